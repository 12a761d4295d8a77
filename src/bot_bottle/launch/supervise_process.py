"""One process of the supervise server, as the keeper sees it: started with nothing of the keeper's, and a line to it.

It faces the agent and is believed no further than a bundle: what it says is bounded in length and rate.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from bot_bottle.host import spawn
from bot_bottle.launch.heard import parse

READY_WITHIN = 30.0
"""Seconds for it to be ready, which takes one of them on a busy machine."""
LONGEST_LINE = 64 * 1024
LONGEST_BACKLOG = 4 << 20
"""Bytes that may wait for a process that does not read."""
BURST, RATE = 256, 64.0
"""Messages that are taken at once, and messages a second that they are made up by; what comes faster waits in the socket."""
_START = (
    "import sys; sys.path[:0] = sys.argv[3:]; from bot_bottle.bundle.supervise import main;"
    " main.serve(*map(int, sys.argv[1:3]))"
)

Message = Mapping[str, Any]


class Ends(Protocol):
    """A process that can be ended."""

    @property
    def pid(self) -> int: ...
    def kill(self) -> None: ...
    def wait(self) -> int | None: ...
    def close(self) -> None: ...


def beside(start: Callable[[int], Ends]) -> tuple[socket.socket, Ends]:
    """Starts a process on this host by `start`, which gets its end of the line; answers ours."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            return ours, start(theirs.fileno())
    except BaseException:
        ours.close()
        raise


class Process:
    """One process, and the line to it."""

    def __init__(self, begin: Callable[[], tuple[socket.socket, Ends]], order: Mapping[str, object]) -> None:
        """Starts it by `begin`, which answers our end of the line. Raises ChildFailed, SandboxError, OSError."""
        self.idle = False
        self.failed = ""
        self.held_back = False
        """Whether it has said so much that the rest has to wait."""
        self.spoke = False
        self.ready = False
        self.due = time.monotonic() + READY_WITHIN
        """When it has to be ready."""
        self.waiting = bytearray()
        self._buffer = b""
        self._room = float(BURST)
        self._filled_at = time.monotonic()
        self.sock, self.child = begin()
        try:
            self.sock.setblocking(False)
            self.tell(order)
        except BaseException:
            self.sock.close()
            raise

    def tell(self, message: Message) -> None:
        """Sends it one object, now or as soon as it reads; one that reads nothing is found out by `flush`."""
        import json

        self.waiting += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Sends what waits; False when too much does, or nobody reads any more."""
        try:
            while self.waiting:
                del self.waiting[: self.sock.send(self.waiting)]
        except BlockingIOError:
            return len(self.waiting) <= LONGEST_BACKLOG
        except OSError:
            return False
        return True

    def room(self, now: float) -> bool:
        """Whether more of what it says is taken now."""
        self._room = min(BURST, self._room + (now - self._filled_at) * RATE)
        self._filled_at = now
        return self._room >= 1

    def read(self) -> list[dict[str, Any]] | None:
        """The messages that have come; None at the end, or when it says what no message is."""
        try:
            data = self.sock.recv(LONGEST_LINE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._room -= len(lines)
        messages = [parse(line) for line in lines if len(line) <= LONGEST_LINE]
        if not data or len(self._buffer) > LONGEST_LINE or None in messages or len(messages) < len(lines):
            return None
        return [message for message in messages if message is not None]

    def end(self) -> int | None:
        """Ends it at once; its exit code. Idempotent."""
        self.child.kill()
        code = self.child.wait()
        self.child.close()
        self.sock.close()
        return code


def spawn_server(listener: int, line: int) -> spawn.Child:
    """Starts the program, with nothing of the keeper's: not its terminal, its folder, its environment or its memory."""
    places = [path for path in sys.path if os.path.isabs(path)]
    argv = (sys.executable, "-I", "-S", "-c", _START, str(listener), str(line), *places)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return spawn.start(
            [
                spawn.Step("streams", partial(spawn.set_standard, null, null, null)),
                spawn.Step("session", os.setsid),
                spawn.Step("folder", partial(os.chdir, "/")),
            ],
            spawn.Program(sys.executable, argv, {"LC_ALL": "C.UTF-8"}),
            keep=(listener, line),
            for_steps=(null,),
        )
    finally:
        os.close(null)
