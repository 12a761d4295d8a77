"""TLS as a transport, for either side: OpenSSL between two buffers in memory, and a socket that is read and written here.

Through buffers rather than on the socket itself: the bytes of a hello that were read to judge it can be fed in, a write never
waits for a read, and a piece of many records is one system call. Imported only by bundles that speak TLS.
"""

import asyncio
import mmap
import socket
import ssl
from collections.abc import Callable
from typing import cast

from bot_bottle.bundle.egress.ready import Ready
from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.bundle.egress.wire import discard, reset

HTTP_1 = "http/1.1"
PIECE = 256 * 1024
"""Bytes that are carried at once, at most."""
_SMALLEST, _TOGETHER = 16 * 1024, 16 * 1024 * 1024
"""A connection's buffers stay as large as its largest piece, so of many connections each gets a smaller one."""
_MOST_ANSWERS = 64 * 1024
"""What a peer may make us want to say (alerts, key updates) without taking it."""
_raw = memoryview(mmap.mmap(-1, PIECE))
_plain = memoryview(mmap.mmap(-1, PIECE))
# Shared by all connections: they are used within one call only, and a process has one loop. Mapped, so that they take no memory
# before they are used.


def harden(context: ssl.SSLContext) -> ssl.SSLContext:
    """What holds for both sides: TLS 1.2 or newer, HTTP/1.1, no renegotiation, no compression."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([HTTP_1])
    return context


class TlsBroken(ConnectionResetError):
    """The other side's records can't be read any more, or it went away without saying that this is the end."""


class TlsTransport:
    """`sock` is non-blocking. Nothing but `handshake` waits."""

    alive = 0
    """How many there are, of both sides."""
    most = PIECE
    """Bytes that each of so many may have in its buffers."""

    def __init__(
        self,
        sock: socket.socket,
        selector: DirectSelector,
        context: ssl.SSLContext,
        *,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
        first: bytes = b"",
    ) -> None:
        """With a `server_name` the client's side of it, verified against that name; else the server's, which has read `first`."""
        self.sock = sock
        self.ready = Ready(sock.fileno(), selector)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._incoming.write(first)
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            # As bytes: a text would go through a codec that can't be loaded any more, and takes half a MiB.
            server_hostname=None if server_name is None else server_name.encode("ascii"),
            session=session,
        )
        # Given a buffer it answers with a number, and any writable buffer will do.
        self._read = cast("Callable[[int, memoryview], int]", self._object.read)
        self._unsent = memoryview(b"")
        self._is_alive = True
        _are_alive(TlsTransport.alive + 1)
        self._dry = False
        self._ended = False
        self._broken = False
        self._open = False

    async def handshake(self, seconds: float) -> None:
        """Raises ssl.SSLError, OSError, TimeoutError; then the other side was told, and the connection is to be closed."""
        async with asyncio.timeout(seconds):
            while not self._shake():
                while not self.flush():
                    await self.ready.writable()
                while not self._fill():
                    await self.ready.readable()
            while not self.flush():
                await self.ready.writable()
        self._open = True

    def _shake(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            self._tell_last()
            raise
        return True

    def session(self) -> ssl.SSLSession | None:
        """What a later handshake with the same server can be shortened with."""
        return self._object.session

    def protocol(self) -> str | None:
        """What both sides agreed to speak inside it, if they said."""
        return self._object.selected_alpn_protocol()

    def resumed(self) -> bool:
        return bool(self._object.session_reused)

    @property
    def drained(self) -> bool:
        return self._dry and self.ready.drained

    def receive(self, limit: int) -> bytes | None:
        if self._ended:
            return b""
        limit = min(limit, TlsTransport.most)
        while True:
            if not self._dry:
                count = self._decrypt(limit)
                if count or self._ended:
                    return bytes(_plain[:count])
            if not self._fill():
                return None

    def _decrypt(self, limit: int) -> int:
        """Into `_plain`: all there is, up to `limit` bytes."""
        if self._broken:
            raise TlsBroken("TLS broke off")
        count = 0
        incoming, read = self._incoming, self._read
        try:
            while count < limit:
                room = limit - count
                got = read(room, _plain[count:] if count else _plain)
                if not got:
                    self._ended = True
                    break
                count += got
                if got < room and not incoming.pending:
                    self._dry = True  # what is left of a record would have come with it
                    break
        except ssl.SSLWantReadError:
            self._dry = True
        except ssl.SSLError as error:
            self._broken = True  # OpenSSL would call whatever comes behind it a proper end
            if not count:
                self._tell_last()
                raise TlsBroken("TLS broke off") from error
        if self._outgoing.pending:
            self._answer()
        return count

    def _answer(self) -> None:
        """Sends what OpenSSL has to say for itself."""
        if self._outgoing.pending > _MOST_ANSWERS:
            raise TlsBroken("too many TLS messages that want an answer")
        if not self._unsent:
            self.flush()

    def _fill(self) -> bool:
        """Reads what is there from the socket; False when there is nothing yet."""
        most = TlsTransport.most
        try:
            count = self.sock.recv_into(_raw, most)
        except BlockingIOError:
            self.ready.read_all()
            return False
        if not count:
            raise TlsBroken("the connection ended without the end of TLS")
        self._incoming.write(_raw[:count])
        self._dry = False
        if count < most:
            self.ready.read_all()
        return True

    def send(self, data: bytes) -> bool:
        write = self._object.write
        sent = 0
        try:
            while sent < len(data):
                sent += write(memoryview(data)[sent:] if sent else data)
        except ssl.SSLError as error:
            raise TlsBroken("TLS broke off") from error
        return self.flush()

    def flush(self) -> bool:
        outgoing, send = self._outgoing, self.sock.send
        try:
            while self._unsent or outgoing.pending:
                if not self._unsent:
                    self._unsent = memoryview(outgoing.read())
                self._unsent = self._unsent[send(self._unsent) :]
        except BlockingIOError:
            return False
        return True

    def end(self) -> None:
        self._say_end()
        self.sock.shutdown(socket.SHUT_WR)

    def _say_end(self) -> None:
        """The end of TLS, if it can be said: there is no waiting for somebody who reads nothing."""
        try:
            if self._open and not self._unsent:
                self._open = False
                self._object.unwrap()
        except (OSError, ssl.SSLError):  # it was written; the other side's end is not waited for
            pass
        try:
            self.flush()
        except OSError:
            pass

    def _tell_last(self) -> None:
        """Sends the alert that says what was wrong, if it goes at once."""
        try:
            self.flush()
        except OSError:
            pass

    def discard(self) -> bool:
        return discard(self.sock)

    def close(self) -> None:
        self._leave()
        if self.sock.fileno() >= 0:
            self._say_end()
            self.sock.close()

    def abort(self) -> None:
        self._leave()
        reset(self.sock)

    def _leave(self) -> None:
        self.ready.forget()
        if self._is_alive:
            self._is_alive = False
            _are_alive(TlsTransport.alive - 1)


def _are_alive(number: int) -> None:
    TlsTransport.alive = number
    TlsTransport.most = max(_SMALLEST, min(PIECE, _TOGETHER // max(1, number)))
