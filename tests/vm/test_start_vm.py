"""The installed program with bottles in real microVMs: start, the door, copies, and whoever takes part killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.backends.smolmachines import kvm, program
from bot_bottle.backends.smolmachines.smolvm import Smolvm
from bot_bottle.errors import HostError

IMAGE = os.environ.get("BOT_BOTTLE_VM_IMAGE", "/var/lib/agent-image")
DEADLINE = 120.0
ENTRY = "from bot_bottle.cli.main import entry; entry()"
PROBE = """
import socket, sys
def asked(place, request):
    with socket.create_connection(place, 60) as sock:
        sock.sendall(request)
        return sock.recv(4096).split(b"\\r\\n")[0].decode()
head = b"GET %s HTTP/1.1\\r\\nHost: denied.example.org\\r\\nConnection: close\\r\\n\\r\\n"
print(asked(("127.0.0.1", 3128), head % b"http://denied.example.org/"))
print(asked(("192.0.2.7", 80), head % b"/"))
sys.exit(7)
"""
pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]


class Place:
    """A home and a repository."""

    def __init__(self, root: Path) -> None:
        self.home, self.work = root / "h", root / "w"
        for folder in (
            self.home / ".bot-bottle" / "bottles",
            self.home / ".bot-bottle" / "agents",
            self.work,
        ):
            folder.mkdir(parents=True)
        self.env = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.startswith("/")),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.write("bottles/vm.md", f"---\nbackend: smolmachines\nimage: {{reference: {IMAGE}}}\n---\n")

    def write(self, name: str, text: str) -> None:
        path = self.home / ".bot-bottle" / name
        path.write_text(text)
        path.chmod(0o600)

    def agent(self, *command: str) -> None:
        self.write(
            "agents/probe.md", f"---\nprovider: command\nbottle: vm\ncommand: {json.dumps(command)}\n---\n"
        )

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", ENTRY, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env=self.env, cwd=self.work, capture_output=True, text=True, timeout=350, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Under emulation a boot now and then makes no progress for longer than smolvm waits."""
        for _ in range(2):
            done = self.run("start", "probe", "--headless", *words)
            if "did not boot" not in done.stderr:
                break
        print(done.stdout, done.stderr)
        return done

    @property
    def machines(self) -> Smolvm:
        return Smolvm(program.find(), str(self.home / ".local" / "state" / "bot-bottle" / "vm"))


def until(condition: Callable[[], Any], what: str, *, every: float = 0.1, within: float = DEADLINE) -> Any:
    """`every`: a look that is a program of its own takes the processor from what it waits for."""
    end = time.monotonic() + within
    while not (answer := condition()):
        assert time.monotonic() < end, what
        time.sleep(every)
    return answer


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    try:
        kvm.check()
        program.find()
    except HostError as error:
        pytest.skip(f"no microVM boots here: {error.brief}")
    if not os.path.isdir(IMAGE):
        pytest.skip(f"there is no image for a microVM at {IMAGE}")
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as root:  # smolvm's sockets need short paths
        yield Place(Path(root))


def test_the_agent_s_exit_code_is_the_run_s_and_its_requests_reach_the_bundle(place: Place) -> None:
    place.agent("sh", "-c", f"exec /usr/bin/python3 -I -c '{PROBE}' > out 2>&1")
    done = place.start("--workspace", "mount")
    said = (place.work / "out").read_text()
    assert [line.split()[1] for line in said.splitlines()] == ["403", "403"], said
    assert done.returncode == 7
    assert place.machines.names() == []


def test_a_copy_keeps_the_repository_as_it_was_and_brings_the_changes_back(place: Place) -> None:
    (place.work / "out").write_text("before\n")
    place.agent("sh", "-c", "echo after > out; echo hello")
    done = place.start()
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert (place.work / "out").read_text() == "before\n"
    (run,) = re.findall(r"bot-bottle diff (\S+)", done.stderr)
    assert "+after" in place.run("diff", run).stdout


@pytest.fixture
def running(place: Place) -> Iterator[tuple[subprocess.Popen[bytes], str, int]]:
    """A bottle whose agent sleeps: its keeper, its machine's name and process."""
    place.agent("sh", "-c", "touch ready; exec sleep 1000")
    (place.work / "ready").unlink(missing_ok=True)
    argv = place.argv("start", "probe", "--headless", "--workspace", "mount")
    keeper = subprocess.Popen(
        argv, env=place.env, cwd=place.work, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: (place.work / "ready").exists() or keeper.poll() is not None, "the agent runs")
        (name,) = place.machines.names()
        yield keeper, name, int((place.machines.status(name) or {})["pid"])
    finally:
        keeper.kill()
        print(keeper.communicate()[1])
        place.run("cleanup")


def test_a_keeper_that_is_killed_takes_its_machine_along_and_cleanup_removes_the_rest(place, running) -> None:
    keeper, name, pid = running
    keeper.kill()
    keeper.wait()
    until(lambda: is_gone(pid), "the machine's process ends with the keeper")
    assert place.machines.names() == [name]
    said = place.run("cleanup")
    assert name in said.stdout + said.stderr
    assert place.machines.names() == []


def test_a_machine_that_is_killed_ends_the_run_and_leaves_nothing(place, running) -> None:
    keeper, _, pid = running
    os.kill(pid, signal.SIGKILL)
    assert keeper.wait(DEADLINE) != 0
    assert place.machines.names() == []


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


ASKER = """
import asyncio, json, os, sys
sys.path.insert(0, "/workspace/lib")
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

async def call(tool, arguments):
    with open(os.environ["BOT_BOTTLE_SUPERVISE_TOKEN_FILE"]) as file:
        headers = {"authorization": "Bearer " + file.read()}
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(120), verify=False, trust_env=False) as http:
        async with Client(streamable_http_client(os.environ["BOT_BOTTLE_SUPERVISE_URL"], http_client=http)) as client:
            return (await client.call_tool(tool, arguments)).structured_content

async def main():
    tool, arguments = "pipelock-block", {"urls": ["https://api.example.org/new"], "reason": "to read it"}
    while True:
        answer = await call(tool, arguments)
        with open("/workspace/told", "w") as file:
            json.dump(answer, file)
        if answer["state"] not in ("pending", "approved"):
            return
        tool, arguments = "supervise-await", {"proposal": answer["proposal_id"]}

asyncio.run(main())
"""


def test_an_agent_asks_by_the_protocol_s_own_client_and_hears_what_was_decided(place: Place) -> None:
    import mcp

    site = Path(mcp.__file__).parent.parent
    shutil.copytree(
        site, place.work / "lib", ignore=shutil.ignore_patterns("textual", "docker", "rich", "pygments")
    )
    (place.work / "ask.py").write_text(ASKER)
    place.write(
        "bottles/vm.md", f"---\nbackend: smolmachines\nimage: {{reference: {IMAGE}}}\nsupervise: true\n---\n"
    )
    place.agent("sh", "-c", "exec /usr/bin/python3 -I /workspace/ask.py > out 2>&1")
    argv = place.argv("start", "probe", "--headless", "--workspace", "mount")
    with subprocess.Popen(argv, env=place.env, cwd=place.work, stdin=subprocess.DEVNULL) as keeper:
        try:
            listed = ("approvals", "list", "--json")
            shown = until(
                lambda: json.loads(place.run(*listed).stdout or "[]") or keeper.poll() is not None,
                "it asks",
                every=5.0,
                within=270.0,
            )
            assert shown is not True, f"the run ended with {keeper.returncode}"
            [shown] = shown
            done = place.run("approvals", "approve", f"{shown['id']}@{shown['digest']}", "--json")
            assert json.loads(done.stdout)[0]["state"] == "applied", done.stderr
            assert keeper.wait(DEADLINE) == 0, (place.work / "out").read_text()
        finally:
            print((place.work / "out").read_text() if (place.work / "out").exists() else "no output")
            keeper.kill()
    assert json.loads((place.work / "told").read_text())["state"] == "applied"
