"""The supervise server made known to the real tools, in real bottles, by their own CLIs."""

import json
import os
from contextlib import closing

import pytest

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.execution import run
from bot_bottle.backends.registry import backend
from bot_bottle.plan.model import INSIDE_HOME, Command
from bot_bottle.providers.base import Request
from bot_bottle.providers.registry import provider
from bot_bottle.provision.pipeline import provision
from bot_bottle.provision.supervise import Registering
from bot_bottle.secret import Secret
from bot_bottle.testing.documents import agent_document
from support.backends import make_plan
from support.mcp_server import URL, mcp_server

pytestmark = [
    pytest.mark.claude,
    pytest.mark.namespace,
]
TOKEN = "t0ken-5150-VGhpcyBpcyBub3QgYSByZWFsIHRva2VuIQ"


class Bench:
    """A bottle with a tool in it, not yet released; the tool's CLI can be run in it as the agent would run it."""

    def __init__(self, root, name, program, *, url=URL, **agent):
        self.setup = provider(name).setup(
            Request(
                agent=agent_document(**agent), run="fixer-2345", headless=True, prompt="go", program=program,
                token="0123abcd", supervise=url,
            )
        )  # fmt: skip
        (root / "workspace").mkdir()
        self.plan = make_plan(root, files=self.setup.files, mounts=self.setup.mounts)._replace(
            command=self.setup.command._replace(argv=("sleep", "1000"))
        )
        with open(os.devnull, "r+b") as nothing:
            standard = Stdio(nothing.fileno(), nothing.fileno(), nothing.fileno())
            self.bottle = backend("namespace").create(self.plan, standard)
        self.reported = []

    def provision(self):
        provision(self.bottle, self.plan)

    def register(self, registration=None, token=TOKEN):
        with closing(
            Registering(
                self.bottle,
                registration or self.setup.registration,
                self.plan.command.env,
                self.reported.append,
            )
        ) as registering:
            return registering.finish(Secret(token))

    def inside(self, *argv):
        return run(self.bottle, Command(argv, self.plan.command.env, cwd=INSIDE_HOME), timeout=60)

    def config(self):
        return self.inside("cat", self.setup.registration.config).stdout.decode()


@pytest.fixture
def bench(tmp_path, request):
    made = []

    def make(name, program, **options):
        bench = Bench(tmp_path, name, program, **options)
        made.append(bench.bottle)
        return bench

    yield make
    for bottle in made:
        bottle.destroy()


def test_claude_knows_the_server_and_reaches_it_with_the_token(bench, claude_program):
    one = bench("claude", claude_program)
    one.provision()
    assert one.register() is None
    assert one.reported == [f"registering supervise at {URL}"]
    entry = json.loads(one.config())["mcpServers"]["supervise"]
    assert (entry["type"], entry["url"]) == ("http", URL)
    assert entry["headers"] == {"Authorization": f"Bearer {TOKEN}"}
    with mcp_server(one.bottle, TOKEN) as server:
        listed = one.inside("/opt/bot-bottle/claude", "mcp", "list")
    assert listed.code == 0, listed
    assert "supervise" in listed.said
    assert "Connected" in listed.said
    assert server.seen
    assert all(right for _, right in server.seen)
