"""The real Claude Code CLI, set up by its provider and driven by the scripted model.

Not a bottle: bubblewrap only puts the files where the provider says that they are. The network is the
host's loopback.
"""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest

from bot_bottle.operate.demo_setup import lay_out, package_file
from bot_bottle.operate.transcript import read_transcript
from bot_bottle.providers.base import Request
from bot_bottle.providers.claude import PLACEHOLDER, Claude
from bot_bottle.provision.files import archive
from bot_bottle.provision.skills import read_skills
from bot_bottle.testing import model
from bot_bottle.testing.documents import agent_document
from bot_bottle.testing.model import serving
from bot_bottle.testing.script import parse

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

    def setup(self, *, headless=True, prompt="go", arguments=(), text="", **agent):
        request = Request(
            agent=agent_document(prompt=text, **agent),
            run="fixer-2345",
            headless=headless,
            prompt=prompt,
            arguments=arguments,
            program=self.program,
            term="xterm-256color",
        )
        return Claude().setup(request)

    def argv(self, setup, extra_files=()):
        """The command line that runs `setup` here, its files having been written as provisioning writes
        them."""
        stream = archive((*setup.files, *extra_files))
        subprocess.run(
            ["tar", "-x", "-p", "-m", "-f", "-", "-C", self.home, "--strip-components=2"],
            input=stream,
            check=True,
        )
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


def log_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_reads_its_task_its_instructions_and_its_skills_and_asks_nothing_else_of_the_network(
    place, tmp_path
):
    skill = tmp_path / "pirate"
    skill.mkdir()
    (skill / "SKILL.md").write_text("---\nname: pirate\ndescription: Talks like SKILLMARK.\n---\n")
    seen = tmp_path / "seen"
    turns = [
        {
            "match": "TASKMARK",
            "turns": [{"tool": "Bash", "input": {"command": "env; id -u"}}, {"text": "bye"}],
        }
    ]
    with serving(parse({"scripts": turns}), log=seen) as served:
        setup = place.setup(prompt="TASKMARK " + "long " * 50_000, base_url=served.url)
        done = place.run(setup, read_skills([{"name": "pirate", "folder": str(skill)}], setup.skills))
    assert done.returncode == 0, done.stderr
    (action,) = read_transcript(done.stdout).actions
    assert action.ok
    assert f"ANTHROPIC_API_KEY={PLACEHOLDER}" in action.result or "ANTHROPIC_API_KEY" not in action.result
    assert action.result.endswith("1000")
    assert read_transcript(done.stdout).last_word == "bye"
    assert {one["path"] for one in log_of(seen)} <= {"/v1/messages", "/"}
    first = json.loads(done.stdout.splitlines()[0])
    assert "pirate" in first["skills"]


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
    stage = lay_out(tmp_path / "stage", upstream="127.0.0.1:1", real=False)
    shutil.copytree(stage.repository, place.workspace, dirs_exist_ok=True)
    with serving(parse(json.loads(package_file("script.json").read_text()))) as served:
        done = place.run(place.setup(prompt=package_file("prompt.md").read_text(), base_url=served.url))
    assert done.returncode == 0, done.stderr
    transcript = read_transcript(done.stdout)
    told = [(action.tool, action.ok) for action in transcript.actions]
    assert told == [
        *(("Bash", True), ("Bash", False)),
        *(("Read", True), ("Read", True), ("Edit", True), ("Bash", True)),
        *(("Bash", False), ("Bash", False), ("Bash", False)),
    ]
    assert "FAILED (failures=1)" in transcript.actions[1].result
    assert "OK" in transcript.actions[5].result
    assert transcript.last_word.startswith("I am done.")
    diff = subprocess.run(
        ["git", "-C", place.workspace, "diff", "--stat"], capture_output=True, check=True
    ).stdout
    assert b"timesheet/duration.py" in diff
    assert b"1 file changed, 1 insertion(+), 1 deletion(-)" in diff


def test_on_a_terminal_it_asks_no_first_question_and_begins_with_the_first_message(place, tmp_path):
    seen = tmp_path / "seen"
    with serving(parse({"turns": [{"text": "ANSWERMARK"}]}), log=seen) as served:
        setup = place.setup(headless=False, prompt="--say it", base_url=served.url)
        argv = place.argv(setup)
        child, terminal = pty.fork()
        if child == 0:
            os.execvpe(argv[0], [str(part) for part in argv], {**dict(setup.command.env)})
        try:
            shown = read_until(terminal, b"ANSWERMARK", 60)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(terminal)
    assert b"ANSWERMARK" in shown, shown[-3000:].decode(errors="replace")


def read_until(terminal, mark, seconds):
    shown, deadline = b"", time.monotonic() + seconds
    while mark not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break
    return shown
