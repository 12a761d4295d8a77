"""Running a command in a bottle to its end and hearing what it said, on top of any backend's `spawn`."""

import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from bot_bottle.backends.base import Bottle, Process, Stdio
from bot_bottle.plan.model import Command
from bot_bottle.typed import NamedTuple

_BLOCK = 65536
TIMED_OUT = 124
"""The code of a command that took too long, as `timeout` has it."""


class Completed(NamedTuple):
    """How a command ended and what it said, each stream at most as long as was asked for."""

    code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    truncated: bool = False

    @property
    def said(self) -> str:
        """What it said about itself: stderr, else stdout; stripped, the last 2,000 characters."""
        return (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")[-2000:]


class _Kept:
    """The beginning of a stream; the rest is read and forgotten."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.truncated = False
        self._limit = limit

    def take(self, part: bytes) -> None:
        room = self._limit - len(self.data)
        self.data += part[:room]
        self.truncated = self.truncated or len(part) > room


class Running:
    """A command on its way inside. What it says waits in its pipes until `finish` hears it; `close` is to follow, always."""

    def __init__(
        self, bottle: Bottle, command: Command, *, stdin: bytes = b"", limit: int = 16 * 1024 * 1024
    ) -> None:
        """Starts it. Raises SandboxError when the bottle has ended."""
        self._out, self._error = _Kept(limit), _Kept(limit)
        with ExitStack() as opened:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            kept = {1: self._out, 2: self._error}
            self._process = _start(bottle, command, stdin, kept, self._selector, opened)
            self._selector.register(self._process, selectors.EVENT_READ, None)
            self._opened = opened.pop_all()

    def finish(self, timeout: float | None = None) -> Completed:
        """Its end, at most `timeout` seconds from now; called once."""
        process = self._process
        deadline = None if timeout is None else time.monotonic() + timeout
        ended = _serve(self._selector, process, deadline)
        if not ended:
            process.signal(signal.SIGKILL)
            process.wait()
        _drain(self._selector)
        code = process.poll()
        assert code is not None
        return Completed(
            code=code if ended else TIMED_OUT,
            stdout=bytes(self._out.data),
            stderr=bytes(self._error.data),
            timed_out=not ended,
            truncated=self._out.truncated or self._error.truncated,
        )

    def close(self) -> None:
        """Closes the pipes, and ends the command if it was not finished. Idempotent."""
        if self._process.poll() is None:
            self._process.signal(signal.SIGKILL)
        self._opened.close()


def run(
    bottle: Bottle,
    command: Command,
    *,
    stdin: bytes = b"",
    timeout: float | None = None,
    limit: int = 16 * 1024 * 1024,
) -> Completed:
    """Runs `command` inside with `stdin`, at most `timeout` seconds, keeping at most `limit` bytes of each stream.

    A command that takes longer is killed with its process group; that is a result, too (code 124). What it left running in
    the background is not waited for. Raises SandboxError when the bottle has ended.
    """
    with closing(Running(bottle, command, stdin=stdin, limit=limit)) as running:
        return running.finish(timeout)


def _start(
    bottle: Bottle,
    command: Command,
    stdin: bytes,
    kept: dict[int, _Kept],
    selector: selectors.BaseSelector,
    opened: ExitStack,
) -> Process:
    """Starts the command on three pipes and registers our ends of them, each with what to do when it is ready."""
    with ExitStack() as theirs:
        ends = {}
        for number in (0, 1, 2):
            reader, writer = os.pipe()
            ours, given = (writer, reader) if number == 0 else (reader, writer)
            ends[number] = given
            opened.callback(_close, selector, ours)
            theirs.callback(os.close, given)
            os.set_blocking(ours, False)
            if number == 0:
                selector.register(ours, selectors.EVENT_WRITE, _writer(ours, stdin))
            else:
                selector.register(ours, selectors.EVENT_READ, _reader(ours, kept[number]))
        return bottle.spawn(command, Stdio(ends[0], ends[1], ends[2]))


def _writer(descriptor: int, data: bytes) -> Callable[[], bool]:
    """Writes a part of `data`; answers whether there is more to write."""
    rest = memoryview(data)

    def write() -> bool:
        nonlocal rest
        try:
            rest = rest[os.write(descriptor, rest[:_BLOCK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(rest)

    return write


def _reader(descriptor: int, kept: _Kept) -> Callable[[], bool]:
    """Reads a part; answers whether there may be more."""

    def read() -> bool:
        part = os.read(descriptor, _BLOCK)
        kept.take(part)
        return bool(part)

    return read


def _serve(selector: selectors.BaseSelector, process: Process, deadline: float | None) -> bool:
    """Moves bytes until the process has ended; answers whether it did before the deadline."""
    while process.poll() is None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        for key, _ in selector.select(left):
            if key.data is not None and not key.data():
                _close(selector, key.fd)
    selector.unregister(process)
    return True


def _drain(selector: selectors.BaseSelector) -> None:
    """Reads what is in the pipes already."""
    for key in list(selector.get_map().values()):
        if key.data is None or key.events != selectors.EVENT_READ:
            continue
        try:
            while key.data():
                pass
        except BlockingIOError:
            continue


def _close(selector: selectors.BaseSelector, descriptor: int) -> None:
    """Closes our end of a pipe once; it is registered exactly as long as it is open."""
    if descriptor in {key.fd for key in selector.get_map().values()}:
        selector.unregister(descriptor)
        os.close(descriptor)
