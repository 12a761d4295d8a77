"""What the tests of a bottle use, whichever backend holds it: running things inside, waiting for something, looking at the host."""

import json
import os
import re
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any, Protocol

from bot_bottle.backends.base import Bottle, Process, Stdio
from bot_bottle.backends.execution import Completed, run
from bot_bottle.errors import SandboxError
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_WORKSPACE, Command

ENVIRONMENT = (("PATH", "/usr/bin:/bin"), ("HOME", INSIDE_HOME), ("LANG", "C.UTF-8"))
DEADLINE = 90.0
SLEEP = ("sleep", "1000")


class MakeBottle(Protocol):
    """Makes a bottle whose agent is `argv`, and releases it unless told otherwise; the test's end destroys it.

    `workspace` is the folder on the host that the bottle shows as its workspace. `changes` are of the plan. `uid` is the agent's
    inside. `own_places` are those of `probes.VISIBLE` that the bottle's own system has, so that they are nothing of the host.
    """

    workspace: Path
    uid: int
    own_places: frozenset[str]

    def __call__(
        self, *argv: str, stdio: Stdio | None = None, release: bool = True, **changes: Any
    ) -> Bottle: ...


def command(*argv: str, cwd: str = INSIDE_WORKSPACE, **env: str) -> Command:
    """`argv` with the suite's environment and `env`."""
    return Command(argv=argv, env=(*ENVIRONMENT, *env.items()), cwd=cwd)


def shell(bottle: Bottle, script: str, **options: Any) -> Completed:
    """Runs a shell script inside."""
    return run(bottle, command("sh", "-c", script), timeout=DEADLINE, **options)


def python(bottle: Bottle, script: str) -> Any:
    """Runs a Python script inside that prints JSON; answers what it printed."""
    done = run(bottle, command("/usr/bin/python3", "-I", "-c", script), timeout=DEADLINE)
    assert done.code == 0, done.said
    return json.loads(done.stdout)


def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` answers once that is true; fails when it is not within the deadline."""
    end = time.monotonic() + DEADLINE
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.01)


@contextmanager
def piped(bottle: Bottle, *argv: str) -> Iterator[tuple[Process, int, int]]:
    """A process inside with our ends of its stdin and stdout."""
    inner, to = os.pipe()
    answer, outer = os.pipe()
    try:
        process = bottle.spawn(command(*argv), Stdio(inner, outer, outer))
    finally:
        os.close(inner)
        os.close(outer)
    try:
        yield process, to, answer
    finally:
        process.signal(signal.SIGKILL)
        os.close(to)
        os.close(answer)


@contextmanager
def terminal_pair(rows: int, columns: int) -> Iterator[tuple[int, Stdio]]:
    ours, theirs = os.openpty()
    ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield ours, Stdio(theirs, theirs, theirs, tty=True)
    finally:
        os.close(ours)
        os.close(theirs)


def until_seen(terminal: int, pattern: bytes) -> None:
    """Reads the terminal until `pattern` was on it."""
    import select

    seen = b""
    end = time.monotonic() + DEADLINE
    while not re.search(pattern, seen):
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], (
            f"not seen: {pattern!r} in {seen!r}"
        )
        seen += os.read(terminal, 65536)


def failure_of(attempt: Callable[[], Any]) -> SandboxError:
    """The SandboxError that `attempt` must raise."""
    try:
        attempt()
    except SandboxError as error:
        return error
    raise AssertionError("it worked")


def accepted(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None


def own_descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())[
        :-1
    ]  # without that of the folder itself


def own_mounts() -> list[str]:
    """What this process sees mounted, without what an engine or another test mounts meanwhile for bottles of its own."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if "docker" not in line and "/bot-bottle-shown/" not in line]


def own_children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def host_processes(marker: str) -> list[int]:
    """Processes of the host with `marker` in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def tree_of(root: Path) -> dict[str, tuple[int, bytes | str]]:
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        content: bytes | str = path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(root))] = (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else content,
        )
    return found
