"""One connection as a stream of bytes with a small buffer: what protocols read their heads and bodies from.

A transport (a bare socket here, TLS in `tls.py`) tries and never waits; a wire waits, and every wait has an end: reading and
writing raise TimeoutError; the other side's end is `Ended`, its errors OSError.
"""

import asyncio
import socket
import struct

from bot_bottle.bundle.egress.heads import END, BadMessage, has_bare_control
from bot_bottle.bundle.egress.ready import Ready
from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.typed import Protocol

CHUNK = 256 * 1024
_SOME = 32 * 1024
"""Bytes that are read at once, at most: of a body, and of what may be a head or a line."""
_DISCARD_LINGER = struct.pack("ii", 1, 0)
_GOODBYE_SECONDS = 1.0


class Ended(Exception):
    """The other side closed; `clean` when it did so before the first byte of what was waited for."""

    def __init__(self, *, clean: bool) -> None:
        super().__init__("the connection ended")
        self.clean = clean


class TooLarge(Exception):
    """A head longer than the limit."""


class Transport(Protocol):
    """What a wire needs of a connection. Nothing here waits; everything may raise OSError."""

    ready: Ready

    @property
    def drained(self) -> bool:
        """Whether `receive` would find nothing, as far as is known without asking the kernel."""
        ...

    def receive(self, limit: int) -> bytes | None:
        """What is there, at most `limit` bytes; empty at the other side's proper end, None when nothing is there yet."""
        ...

    def send(self, data: bytes) -> bool:
        """Takes all of `data`; whether the kernel has taken everything, too. Not called again before it has."""
        ...

    def flush(self) -> bool:
        """Hands on what the kernel did not take yet; whether it has taken everything."""
        ...

    def end(self) -> None:
        """Says that nothing follows."""
        ...

    def discard(self) -> bool:
        """Reads and drops what is there; whether the other side has ended."""
        ...

    def close(self) -> None: ...

    def abort(self) -> None:
        """Ends it with a reset, so that the other side does not take what it has for the whole."""
        ...


def reset(sock: socket.socket) -> None:
    """Closes `sock` so that its other side sees an error."""
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_LINGER)
        sock.close()


def discard(sock: socket.socket) -> bool:
    """Reads and drops what is there; whether the other side has ended."""
    try:
        while sock.recv(CHUNK):
            pass
    except BlockingIOError:
        return False
    return True


class SocketTransport:
    """A non-blocking socket on the running loop, whose selector is `selector`."""

    def __init__(self, sock: socket.socket, selector: DirectSelector) -> None:
        self.sock = sock
        self.ready = Ready(sock.fileno(), selector)
        self._unsent = memoryview(b"")

    @property
    def drained(self) -> bool:
        return self.ready.drained

    def receive(self, limit: int) -> bytes | None:
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            self.ready.read_all()
            return None
        if 0 < len(data) < limit:
            self.ready.read_all()
        return data

    def send(self, data: bytes) -> bool:
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        return False

    def flush(self) -> bool:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            return False
        return True

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def discard(self) -> bool:
        return discard(self.sock)

    def close(self) -> None:
        self.ready.forget()
        self.sock.close()

    def abort(self) -> None:
        self.ready.forget()
        reset(self.sock)


class _Alarm:
    """Ends a wait that takes too long. Its timer is left in place from one wait to the next, which is cheaper than a new one."""

    __slots__ = ("_due", "_future", "_loop", "_timer", "_wire")

    def __init__(self, wire: "Wire", loop: asyncio.AbstractEventLoop) -> None:
        self._wire = wire
        self._loop = loop
        self._due: float | None = None
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, future: "asyncio.Future[None]", due: float | None) -> None:
        """Waits for `future` until `due`; None: until the wire was idle for too long. Raises TimeoutError."""
        first = self._wire.idle_at() if due is None else due
        self._future, self._due = future, due
        if self._timer is None or self._timer.when() > first:
            self.cancel()
            self._timer = self._loop.call_at(first, self._ring)
        await future

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        future = self._future
        if future is None or future.done():
            return
        due = self._wire.idle_at() if self._due is None else self._due
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._ring)
        else:
            future.set_exception(TimeoutError())


class Wire:
    """A transport with what was read too much, and a count of what went through.

    `idle` seconds without a byte in either direction end it. What comes on one wire of an exchange goes out on the other, so as
    long as anything moves in the exchange, neither is idle.
    """

    def __init__(self, transport: Transport, *, idle: float) -> None:
        self.transport = transport
        self.received = 0
        self.sent = 0
        self.buffer = b""
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._moved = self._now()
        self._reading = _Alarm(self, self._loop)
        self._writing = _Alarm(self, self._loop)

    def idle_at(self) -> float:
        """When it will have been idle for too long, if nothing moves until then."""
        return self._moved + self._idle

    async def head(self, *, limit: int, first: float | None, whole: float) -> bytes:
        """A message's head with its empty line: its first byte within `first` seconds, then all within `whole`.

        With `first` None it may take as long as the wire is not idle. Raises Ended, TooLarge, BadMessage when no strict reader
        would take it, TimeoutError, OSError.
        """
        if not self.buffer:
            await self._more(None if first is None else self._now() + first, clean=True)
        due = self._now() + whole
        seen = (
            0  # what was looked at already, so that a head in single bytes costs no more than one in a piece
        )
        while True:
            start = max(0, seen - 3)
            end = self.buffer.find(END, start)
            if has_bare_control(self.buffer[start : end if end >= 0 else None], at_start=not start):
                raise BadMessage("a line that does not end in CR LF")
            if (end if end >= 0 else len(self.buffer)) > limit:
                raise TooLarge
            if end >= 0:
                head, self.buffer = self.buffer[: end + 4], self.buffer[end + 4 :]
                return head
            seen = len(self.buffer)
            await self._more(due, clean=False)

    async def line(self, *, limit: int) -> bytes:
        """One line without its CR LF. Raises Ended, BadMessage, TimeoutError, OSError."""
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0 and (end == 0 or self.buffer[end - 1] != 13):
                raise BadMessage("a line that does not end in CR LF")
            if (end if end >= 0 else len(self.buffer)) > limit:
                raise BadMessage("a line that is too long")
            if end >= 0:
                line, self.buffer = self.buffer[: end - 1], self.buffer[end + 1 :]
                return line
            await self._more(None, clean=False)

    async def some(self, most: int = CHUNK) -> bytes:
        """At least one byte, at most `most`; nothing when the other side has ended. Raises TimeoutError, OSError."""
        if self.buffer:
            data, self.buffer = self.buffer[:most], self.buffer[most:]
            return data
        return await self._receive(most, None)

    async def more(self, within: float) -> bool:
        """Adds what comes to the buffer; False when the other side has ended. Raises TimeoutError, OSError."""
        try:
            await self._more(self._now() + within, clean=False)
        except Ended:
            return False
        return True

    def is_quiet(self) -> bool:
        """Whether the other side is still there and has said nothing, not even that it ends."""
        if self.buffer:
            return False
        if self.transport.drained:
            return True
        try:
            data = self.transport.receive(_SOME)
        except OSError:
            return False
        if data:
            self.buffer = data
        return data is None

    async def _more(self, due: float | None, *, clean: bool) -> None:
        data = await self._receive(_SOME, due)
        if not data:
            raise Ended(clean=clean and not self.buffer)
        self.buffer = self.buffer + data if self.buffer else data

    async def _receive(self, most: int, due: float | None) -> bytes:
        transport = self.transport
        while transport.drained or (data := transport.receive(most)) is None:
            await self._reading.wait(transport.ready.readable(), due)
        self.received += len(data)
        self._moved = self._now()
        return data

    def left(self) -> "asyncio.Future[None]":
        """Done when the other side is gone, as far as that can be seen without reading."""
        return self.transport.ready.left()

    async def write(self, data: bytes) -> None:
        """Hands everything to the kernel. Raises TimeoutError when the other side takes nothing for too long, OSError."""
        done = self.transport.send(data)
        self._moved = self._now()
        while not done:
            await self._writing.wait(self.transport.ready.writable(), None)
            done = self.transport.flush()
            self._moved = self._now()
        self.sent += len(data)

    async def finish(self) -> None:
        """Ends our direction and reads on for a moment: closing with unread bytes would reset, and lose the last answer."""
        due = self._now() + _GOODBYE_SECONDS
        try:
            self.transport.end()
            while not self.transport.discard() and self._now() < due:
                await self._reading.wait(self.transport.ready.readable(), due)
        except (OSError, TimeoutError):
            pass
        finally:
            self.close()

    def release(self) -> None:
        """Gives the socket up to somebody else who waits for it."""
        self._reading.cancel()
        self._writing.cancel()
        self.transport.ready.forget()

    def close(self) -> None:
        self.release()
        self.transport.close()

    def abort(self) -> None:
        self.release()
        self.transport.abort()


async def say_last(wire: Wire, data: bytes) -> None:
    """Writes `data` and ends the connection."""
    try:
        await wire.write(data)
    except (OSError, TimeoutError):
        wire.abort()
        return
    await wire.finish()
