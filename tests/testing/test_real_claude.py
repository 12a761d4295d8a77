"""The real Claude Code CLI, set up by its provider and driven by the scripted model.

Not a bottle: bubblewrap only puts the files where the provider says that they are. The network is the
host's loopback.
"""

import json
import shutil
import signal
import socketserver
import subprocess
import threading
from contextlib import contextmanager

import pytest

from bot_bottle.backends.namespace.held import write_file
from bot_bottle.operate.demo_setup import lay_out, package_file
from bot_bottle.operate.transcript import read_transcript
from bot_bottle.plan.model import INSIDE_HOME
from bot_bottle.providers.base import Request
from bot_bottle.providers.claude import Claude
from bot_bottle.provision.files import checked
from bot_bottle.provision.skills import read_skills
from bot_bottle.testing import model
from bot_bottle.testing.documents import agent_document
from bot_bottle.testing.model import serving
from bot_bottle.testing.script import parse
from support.terminals import shown_until

pytestmark = [
    pytest.mark.claude,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap (bwrap) is not installed"),
]


class Place:
    """A home and a workspace, shown to the CLI at the paths that it has in a bottle."""

    def __init__(self, root, program):
        self.home, self.workspace, self.program = root / "home", root / "workspace", program
        self.home.mkdir()
        self.workspace.mkdir()

    def setup(self, *, headless=True, prompt="go", arguments=(), text="", bottle_env=None, **agent):
        request = Request(
            agent=agent_document(prompt=text, **agent),
            run="fixer-2345",
            headless=headless,
            prompt=prompt,
            arguments=arguments,
            program=self.program,
            term="xterm-256color",
            bottle_env=bottle_env or {},
            token="0123abcd",
        )
        return Claude().setup(request)

    def argv(self, setup, extra_files=()):
        """The command line that runs `setup` here, its files having been written as provisioning writes
        them."""
        for file in checked((*setup.files, *extra_files)):
            write_file(str(self.home) + file.target.removeprefix(INSIDE_HOME), file.mode, file.content)
        shown = [("--ro-bind", one.source, one.target) for one in setup.mounts]
        system = [("--ro-bind-try", path, path) for path in ("/usr", "/bin", "/lib", "/lib64", "/etc")]
        return [
            *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--uid", "1000", "--gid", "1000"),
            *("--die-with-parent", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
            *(part for one in (*system, *shown) for part in one),
            *(
                "--bind",
                self.home,
                "/home/agent",
                "--bind",
                self.workspace,
                "/workspace",
                "--chdir",
                "/workspace",
            ),
            *("--", *setup.command.argv),
        ]

    def run(self, setup, extra_files=()):
        return subprocess.run(
            self.argv(setup, extra_files),
            env=dict(setup.command.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
            check=False,
        )


@pytest.fixture
def place(tmp_path, claude_program):
    return Place(tmp_path, claude_program)


def test_it_reads_its_task_and_its_skills_and_has_the_placeholder(place, tmp_path):
    skill = tmp_path / "pirate"
    skill.mkdir()
    (skill / "SKILL.md").write_text("---\nname: pirate\ndescription: Talks like one.\n---\n")
    turns = [
        {
            "match": "TASKMARK",
            "turns": [{"tool": "Bash", "input": {"command": "env; id -u"}}, {"text": "bye"}],
        }
    ]
    with serving(parse({"scripts": turns})) as served:
        setup = place.setup(prompt="TASKMARK " + "long " * 50_000, base_url=served.url)
        done = place.run(setup, read_skills([{"name": "pirate", "folder": str(skill)}], setup.skills))
    assert done.returncode == 0, done.stderr
    transcript = read_transcript(done.stdout)
    (action,) = transcript.actions
    assert "ANTHROPIC_API_KEY=sk-ant-api03-placeholder-none-0123abcd" in action.result
    assert action.result.endswith("1000")
    assert transcript.last_word == "bye"
    assert "pirate" in json.loads(done.stdout.splitlines()[0])["skills"]


@contextmanager
def recording_proxy():
    """A proxy that refuses everything; yields its address and the list of what it was asked for."""
    asked = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline().decode().strip())
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def test_it_asks_nothing_of_the_network_but_its_model(place, tmp_path):
    seen = tmp_path / "seen"
    script = parse({"turns": [{"tool": "Bash", "input": {"command": "true"}}, {"text": "bye", "delay": 2}]})
    with recording_proxy() as (proxy, asked), serving(script, log=seen) as served:
        through = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
        done = place.run(place.setup(base_url=served.url, bottle_env=through))
    assert done.returncode == 0, done.stderr
    assert asked == []
    assert {json.loads(line)["path"] for line in seen.read_text().splitlines()} <= {"/v1/messages", "/"}


def test_the_agents_text_reaches_the_system_prompt(place, monkeypatch):
    asked = []
    parsed = model._object
    monkeypatch.setattr(model, "_object", lambda body: asked.append(body) or parsed(body))
    with serving(parse({"turns": [{"text": "bye"}]})) as served:
        done = place.run(place.setup(prompt="TASKMARK", base_url=served.url, text="Be brief: BODYMARK."))
    assert done.returncode == 0, done.stderr
    main = next(request for request in map(json.loads, asked) if request.get("tools"))
    assert "BODYMARK" in json.dumps(main["system"])
    assert "BODYMARK" not in json.dumps([one for one in main["messages"] if one["role"] == "user"])
    assert "TASKMARK" in json.dumps(main["messages"])


def test_it_plays_the_demo_reads_repairs_tests_and_reports(place, tmp_path):
    (tmp_path / "stage").mkdir()
    stage = lay_out(tmp_path / "stage", pages="127.0.0.1:1", authority=tmp_path / "unused.pem", real=False)
    shutil.copytree(stage.repository, place.workspace, dirs_exist_ok=True)
    with serving(parse(json.loads(package_file("script.json").read_text()))) as served:
        done = place.run(place.setup(prompt=package_file("prompt.md").read_text(), base_url=served.url))
    assert done.returncode == 0, done.stderr
    transcript = read_transcript(done.stdout)
    told = [(action.tool, action.ok) for action in transcript.actions]
    assert told == [
        *(("Bash", True), ("Bash", False)),
        *(("Read", True), ("Read", True), ("Edit", True), ("Bash", True)),
        *(
            ("Bash", False),
            ("mcp__supervise__pipelock-block", False),
            ("Bash", False),
        ),  # nothing here answers either
        *(("Bash", False), ("Bash", False)),  # nor is there a remote to push to
        *(("Bash", True), ("Bash", False), ("Bash", False), ("Bash", False), ("Bash", False)),
    ]
    assert "FAILED (failures=1)" in transcript.actions[1].result
    assert "OK" in transcript.actions[5].result
    assert transcript.last_word.startswith("I am done.")
    diff = subprocess.run(
        ["git", "-C", place.workspace, "diff", "--stat", "main", "--", "timesheet"],
        capture_output=True,
        check=True,
    ).stdout
    assert b"timesheet/duration.py" in diff
    assert b"1 file changed, 1 insertion(+), 1 deletion(-)" in diff


def test_on_a_terminal_it_asks_no_first_question_and_begins_with_the_first_message(place, tmp_path):
    seen = tmp_path / "seen"
    with serving(parse({"turns": [{"text": "ANSWERMARK"}]}), log=seen) as served:
        setup = place.setup(headless=False, prompt="--say it", base_url=served.url)
        argv = place.argv(setup)
        environment = dict(setup.command.env)
        shown = shown_until(b"ANSWERMARK", argv, environment, ends_by=signal.SIGKILL)
    assert b"ANSWERMARK" in shown, shown[-3000:].decode(errors="replace")
