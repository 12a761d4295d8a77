"""A real bottle with a real tool in it, in which the tool is told of supervise; and the host's processes, watched meanwhile."""

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.execution import Completed, run
from bot_bottle.backends.registry import backend
from bot_bottle.plan.model import INSIDE_HOME, Command, Registration
from bot_bottle.providers.base import Request
from bot_bottle.providers.registry import provider
from bot_bottle.provision.pipeline import provision
from bot_bottle.provision.supervise import Failed, Registering
from bot_bottle.secret import Secret
from bot_bottle.testing.documents import agent_document
from support.backends import make_plan
from support.mcp_server import URL

TOKEN = f"t0ken-{secrets.token_hex(16)}"


class Bench:
    """The bottle is provisioned and not yet released."""

    def __init__(self, root: Path, name: str, program: str, **agent: object) -> None:
        root.mkdir(exist_ok=True)
        self.setup = provider(name).setup(
            Request(
                agent=agent_document(**agent),
                run="fixer-2345",
                headless=True,
                prompt="go",
                program=program,
                token="0123abcd",
                supervise=URL,
            )
        )
        (root / "workspace").mkdir()
        agent_command = self.setup.command._replace(argv=("sh", "-c", "echo AGENTMARK; exit 7"))
        self.plan = make_plan(root, files=self.setup.files, mounts=self.setup.mounts, command=agent_command)
        said, writing = os.pipe()
        self.said = os.fdopen(said, "rb")
        with open(writing, "wb") as to, open(os.devnull, "rb") as nothing:
            standard = Stdio(nothing.fileno(), to.fileno(), to.fileno())
            self.bottle = backend("namespace").create(self.plan, standard)
        provision(self.bottle, self.plan)
        self.reported: list[str] = []

    def register(self, registration: Registration | None = None) -> Failed | None:
        known = registration or self.setup.registration
        with closing(
            Registering(self.bottle, known, self.plan.command.env, self.reported.append)
        ) as registering:
            return registering.finish(Secret(TOKEN))

    def inside(self, *argv: str) -> Completed:
        """Runs something as the agent would."""
        return run(self.bottle, Command(argv, self.plan.command.env, cwd=INSIDE_HOME), timeout=60)

    def cli(self, *words: str) -> Completed:
        """Runs the tool."""
        return self.inside(*self.setup.registration.program, *words)

    def config(self) -> str:
        return self.inside("cat", self.setup.registration.config).stdout.decode()

    def runs_on(self) -> bool:
        """Whether the agent comes to run and ends by itself."""
        self.bottle.release()
        return self.bottle.agent.wait(30) == 7 and self.said.read() == b"AGENTMARK\n"

    def close(self) -> None:
        self.bottle.destroy()
        self.said.close()


@contextmanager
def watching(*, secret: str, other: str) -> Iterator[dict[str, bool]]:
    """Whether `secret`, and whether `other`, stood in any process's arguments or environment while the block lasted."""
    found = {secret: False, other: False}
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        text = (process / name).read_bytes()
                    except OSError:
                        continue
                    for word in found:
                        found[word] = found[word] or word.encode() in text

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
