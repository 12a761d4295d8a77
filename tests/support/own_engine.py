"""An engine that a test has for itself, on a small disk, to stop, kill, restart and fill up."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot_bottle.backends.docker.engine import Engine, connect
from support import engine as engines
from support.waiting import wait_for


class OwnEngine:
    """`start` and `end` may follow each other; the disk stays."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.host = f"unix://{root}/s"
        self.pid_file = root / "pid"
        self.ballast = self.data / "ballast"

    def start(self) -> str:
        """Answers why it does not run."""
        program = shutil.which("dockerd", path=engines.SBIN)
        if program is None:
            return "dockerd is not installed"
        options = (f"--data-root={self.data}", f"--exec-root={self.root}/run", *engines.WITHOUT_NETWORK)
        return engines.dockerd(program, self.pid_file, self.root / "log", *options, host=self.host)

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def connect(self) -> Engine:
        return connect({"DOCKER_HOST": self.host})

    def containers(self) -> list[str]:
        """The names of all there are."""
        engine = self.connect()
        with contextlib.closing(engine.client):
            return [one["Names"][0] for one in engine.client.api.containers(all=True)]

    def restart(self) -> None:
        """Its containers end with it."""
        engines.end(self.pid_file)
        assert not self.start()

    def kill(self) -> None:
        """It, and what it started, without a word."""
        files = (self.root / "run/containerd/containerd.pid", self.pid_file)
        pids = [int(file.read_text()) for file in files if file.exists()]
        for pid in reversed(pids):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(_runs, pids)), "dockerd to be gone")
        for file in files:
            file.unlink(missing_ok=True)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is there, takes connections and answers nobody."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    @contextmanager
    def full(self, left: int = 0) -> Iterator[None]:
        """Its disk has `left` bytes left."""
        room = os.statvfs(self.data)
        with self.ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_bsize - left))
        try:
            yield
        finally:
            self.ballast.unlink()

    def put_base(self) -> None:
        """The tests' base image, imported."""
        engine = self.connect()
        with contextlib.closing(engine.client):
            assert not engines.without_base(engine)


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextmanager
def own_engine(size: str = "900m") -> Iterator["OwnEngine | str"]:
    """One on a disk of `size`, or why there can be none here."""
    if os.geteuid() != 0:
        yield "not run as root"
        return
    root = Path(tempfile.mkdtemp(prefix="bb-engine-", dir="/tmp"))
    made = OwnEngine(root)
    made.data.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "bb-engine", str(made.data)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    try:
        yield f"no disk can be made here ({done.stderr.strip()})" if done.returncode else made.start() or made
    finally:
        engines.end(made.pid_file)
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                if f"{root}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)  # what a killed engine left
        _unmount(root)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def with_base(size: str = "900m") -> Iterator["OwnEngine"]:
    """One that has the tests' base image; the test is skipped where there can be none."""
    with own_engine(size) as made:
        if isinstance(made, str):
            pytest.skip(made)
        made.put_base()
        yield made


def _unmount(root: Path) -> None:
    """All that is mounted below `root`, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for place in reversed([line.split()[4] for line in lines if line.split()[4].startswith(f"{root}/")]):
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
