"""One connection as a stream of bytes with a small buffer: what protocols read their heads and bodies from.

Two kinds: a bare socket, and TLS that the bundle itself speaks to an upstream. Every wait has an end: reading and writing
raise TimeoutError; the other side's end is `Ended`, its errors OSError.
"""

import asyncio
import socket
import struct
from typing import Protocol

from bot_bottle.bundle.egress.heads import END, BadMessage, has_bare_control

CHUNK = 64 * 1024
_DISCARD_LINGER = struct.pack("ii", 1, 0)


class Ended(Exception):
    """The other side closed; `clean` when it did so before the first byte of what was waited for."""

    def __init__(self, *, clean: bool) -> None:
        super().__init__("the connection ended")
        self.clean = clean


class TooLarge(Exception):
    """A head longer than the limit."""


class Transport(Protocol):
    async def receive(self, limit: int) -> bytes: ...
    async def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class SocketTransport:
    """A non-blocking socket on the running loop."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def receive(self, limit: int) -> bytes:
        return await self._loop.sock_recv(self.sock, limit)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    def close(self) -> None:
        self.sock.close()

    def abort(self) -> None:
        """Ends it with a reset, so that the other side does not take what it has for the whole."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_LINGER)
            self.sock.close()


class Wire:
    """A transport with what was read too much, and a count of what went through."""

    def __init__(self, transport: Transport, *, idle: float) -> None:
        self.transport = transport
        self.received = 0
        self.sent = 0
        self.buffer = b""
        self._idle = idle

    async def head(self, *, limit: int, first: float, whole: float) -> bytes:
        """A message's head with its empty line: its first byte within `first` seconds, then all within `whole`.

        Raises Ended, TooLarge, BadMessage when no strict reader would take it, TimeoutError, OSError.
        """
        if not self.buffer:
            await self._more(first, clean=True)
        async with asyncio.timeout(whole):
            seen = 0  # what was looked at already, so that a head in single bytes costs no more than one in a piece
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
                await self._more(None, clean=False)

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
            await self._more(self._idle, clean=False)

    async def some(self, most: int = CHUNK) -> bytes:
        """At least one byte, at most `most`; nothing when the other side has ended. Raises TimeoutError, OSError."""
        if self.buffer:
            data, self.buffer = self.buffer[:most], self.buffer[most:]
            return data
        async with asyncio.timeout(self._idle):
            data = await self.transport.receive(most)
        self.received += len(data)
        return data

    async def more(self, within: float) -> bool:
        """Adds what comes to the buffer; False when the other side has ended. Raises TimeoutError, OSError."""
        try:
            await self._more(within, clean=False)
        except Ended:
            return False
        return True

    async def _more(self, within: float | None, *, clean: bool) -> None:
        async with asyncio.timeout(within):
            data = await self.transport.receive(CHUNK)
        if not data:
            raise Ended(clean=clean and not self.buffer)
        self.received += len(data)
        self.buffer += data

    async def write(self, data: bytes) -> None:
        """Hands everything to the kernel. Raises TimeoutError when the other side takes nothing for too long, OSError."""
        async with asyncio.timeout(self._idle):
            await self.transport.send(data)
        self.sent += len(data)

    async def finish(self) -> None:
        """Ends our direction and reads on for a moment: closing with unread bytes would reset, and lose the last answer."""
        try:
            if isinstance(self.transport, SocketTransport):
                self.transport.sock.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(1.0):
                    while await self.transport.receive(CHUNK):
                        pass
        except (OSError, TimeoutError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()
