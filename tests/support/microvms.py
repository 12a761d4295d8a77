"""What the tests in real microVMs share: a home and a repository in which the installed program starts bottles."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bot_bottle.backends.smolmachines import program
from bot_bottle.backends.smolmachines.smolvm import Smolvm

IMAGE = os.environ.get("BOT_BOTTLE_VM_IMAGE", "/var/lib/agent-image")
DEADLINE = 120.0
BOOTS = 3
"""Under emulation a boot now and then makes no progress for longer than smolvm waits; the next one does."""
ENTRY = "from bot_bottle.cli.main import entry; entry()"


def until(condition: Callable[[], Any], what: str, *, every: float = 0.1, within: float = DEADLINE) -> Any:
    """`every`: a look that is a program of its own takes the processor from what it waits for."""
    end = time.monotonic() + within
    while not (answer := condition()):
        assert time.monotonic() < end, what
        time.sleep(every)
    return answer


class Place:
    """A home and a repository."""

    def __init__(self, root: Path, image: str) -> None:
        self.image = image
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
            "TERM": "xterm",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.startswith("/")),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.bottle()

    def write(self, name: str, text: str) -> None:
        path = self.home / ".bot-bottle" / name
        path.write_text(text)
        path.chmod(0o600)

    def bottle(self, more: str = "", *, name: str = "vm", image: str = "") -> None:
        head = f"backend: smolmachines\nimage: {{reference: {image or self.image}}}\n"
        self.write(f"bottles/{name}.md", f"---\n{head}{more}---\n")

    def agent(self, *command: str, name: str = "probe", bottle: str = "vm") -> None:
        said = json.dumps(command)
        self.write(f"agents/{name}.md", f"---\nprovider: command\nbottle: {bottle}\ncommand: {said}\n---\n")

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", ENTRY, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env=self.env, cwd=self.work, capture_output=True, text=True, timeout=350, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *words: str, name: str = "probe") -> subprocess.CompletedProcess[str]:
        """Headless."""
        for _ in range(BOOTS):
            done = self.run("start", name, "--headless", *words)
            if "did not boot" not in done.stderr:
                break
        print(done.stdout, done.stderr)
        return done

    def detached(self, *words: str, name: str = "probe") -> str:
        """A bottle that runs beside the tests; answers the run's id."""
        done = self.start("--detach", "--json", *words, name=name)
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["id"])

    def states(self) -> dict[str, str]:
        """Of every run."""
        return {one["id"]: one["state"] for one in json.loads(self.run("list", "--all", "--json").stdout)}

    @property
    def machines(self) -> Smolvm:
        return Smolvm(program.find(), str(self.home / ".local" / "state" / "bot-bottle" / "vm"))

    def machine(self, run: str) -> str:
        """The name of a run's machine."""
        (name,) = [name for name in self.machines.names() if name.endswith(run)]
        return name

    def process(self, machine: str) -> int:
        """That of the machine."""
        return int((self.machines.status(machine) or {})["pid"])

    def as_root(self, machine: str, script: str, *, seconds: int = 100) -> str:
        """What a shell says that is root in the machine itself, which no agent is."""
        done = self.machines.execute(machine, ("/bin/sh", "-c", script), seconds=seconds)
        print(done.said)
        return done.stdout.decode(errors="replace")

    def processes(self) -> list[int]:
        """Those whose arguments name this home, and that are no zombies."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        return pid != os.getpid() and str(self.home).encode() in _read(pid, "cmdline") and not is_gone(pid)

    @contextmanager
    def keeper(self) -> Iterator[subprocess.Popen[bytes]]:
        """One that keeps `probe` headless; whatever it leaves is removed."""
        argv = self.argv("start", "probe", "--headless", "--workspace", "mount")
        with open(self.home / "said", "wb") as said:
            made = subprocess.Popen(
                argv, env=self.env, cwd=self.work, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            yield made
        finally:
            made.kill()
            made.wait()
            print((self.home / "said").read_text())
            self.run("cleanup")

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """A keeper whose agent has made the file `ready` in the workspace."""
        ready = self.work / "ready"
        ready.unlink(missing_ok=True)
        for left in reversed(range(BOOTS)):
            with self.keeper() as keeper:
                until(partial(_is_there, ready, keeper), "the agent runs")
                if ready.exists() or not left or "did not boot" not in (self.home / "said").read_text():
                    yield keeper
                    return


def _is_there(ready: Path, keeper: subprocess.Popen[bytes]) -> bool:
    return ready.exists() or keeper.poll() is not None


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def is_gone(pid: int) -> bool:
    """Also one that is not buried yet."""
    words = _read(pid, "stat").rpartition(b")")[2].split()
    return not words or words[0] == b"Z"


def children(pid: int, first: bytes) -> list[int]:
    """The processes that `pid` started and whose arguments begin with `first`."""
    found = _read(pid, f"task/{pid}/children").split()
    return [int(one) for one in found if _read(int(one), "cmdline").startswith(first)]
