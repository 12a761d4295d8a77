"""The way through a company's proxy: CONNECT, and what the proxy's answers mean. TLS to the proxy itself, where it wants that.

What a proxy says beside its status goes to nobody: it may name things of the company's network.
"""

import asyncio
import select
import socket

from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.heads import END, BadMessage, read_response
from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.secret import Secret

_HEAD = 16 * 1024
"""Bytes that a proxy's answer may have before its end."""
_HEADERS = 100
_PIECE = 64 * 1024


async def connect_through(
    sock: socket.socket, host: str, port: int, authorization: Secret | None, seconds: float
) -> None:
    """Has the proxy at the other end of the non-blocking `sock` open a tunnel to `host` and `port`.

    Not a byte from behind the proxy's answer is read. Raises DialFailed, then `sock` is the caller's to close.
    """
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if authorization is not None:
        lines.append(f"Proxy-Authorization: {authorization.reveal()}")
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("ascii"))
            head = await _head(sock)
        status = read_response(head, most=_HEADERS).status
    except TimeoutError as error:
        raise DialFailed("proxy_timeout", "the proxy did not answer in time", timeout=True) from error
    except BadMessage as error:
        raise DialFailed("proxy_malformed", "the proxy's answer is not HTTP") from error
    except OSError as error:
        raise DialFailed("proxy_failed", "the proxy ended the connection") from error
    if not 200 <= status <= 299:
        raise refusal(status)


def refusal(status: int) -> DialFailed:
    """What a status other than success means."""
    if status in (401, 407):  # 401 is wrong here, and what some answer to a wrong login
        text = f"the proxy asks for a login, or does not take this one ({status})"
        return DialFailed("proxy_authentication", text)
    if status in (502, 503, 504):
        return DialFailed(
            "proxy_failed", f"the proxy could not reach the upstream ({status})", timeout=status == 504
        )
    if 400 <= status <= 599:
        return DialFailed("proxy_refused", f"the proxy refuses this connection ({status})")
    return DialFailed("proxy_malformed", f"the proxy's answer makes no sense ({status})")


async def _head(sock: socket.socket) -> bytes:
    """The answer up to its empty line and no further: looked at first, and then taken."""
    head = b""
    while len(head) <= _HEAD:
        await _readable(sock)
        try:
            seen = sock.recv(_HEAD, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if not seen:
            raise ConnectionResetError("the end before an answer")
        end = (head + seen).find(END)
        count = len(seen) if end < 0 else end + len(END) - len(head)
        head += sock.recv(count)
        if end >= 0:
            return head
    raise BadMessage("an answer without an end")


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def happened() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock.fileno(), happened)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())


class TlsToProxy:
    """Speaks TLS to proxies. What runs through it is given out as a plain socket, so that no other part has to know.

    Imported and made only where a proxy asks for TLS, before confinement.
    """

    def __init__(self, selector: DirectSelector, *, authorities: str, seconds: float, idle: float) -> None:
        import ssl

        from bot_bottle.bundle.egress.tls import TlsTransport, harden

        self._transport = TlsTransport
        self._selector = selector
        self._seconds = seconds
        self._idle = idle
        self._context = harden(ssl.create_default_context())
        if authorities:
            self._context.load_verify_locations(cadata=authorities)
        self._errors = (ssl.SSLCertVerificationError, ssl.SSLError)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, sock: socket.socket, name: str) -> socket.socket:
        """A socket whose other end is `sock`, in TLS that was verified for `name`. Closes `sock` and raises DialFailed."""
        not_valid, broken = self._errors
        transport = self._transport(sock, self._selector, self._context, server_name=name)
        try:
            await transport.handshake(self._seconds)
        except BaseException as error:
            transport.close()
            if isinstance(error, TimeoutError):
                raise DialFailed(
                    "proxy_timeout", "the proxy's TLS handshake took too long", timeout=True
                ) from error
            if isinstance(error, not_valid):
                raise DialFailed("proxy_certificate", "the proxy's certificate is not valid") from error
            if isinstance(error, (OSError, broken)):
                raise DialFailed("proxy_tls_failed", "the TLS handshake with the proxy failed") from error
            raise
        try:
            inner, outer = socket.socketpair()
            for end in (inner, outer):
                end.setblocking(False)
            relay = _Relay(inner, transport, self._idle)
        except BaseException as error:
            transport.close()
            if isinstance(error, OSError):
                raise DialFailed("proxy_failed", "no descriptor is free for the way to the proxy") from error
            raise
        task = asyncio.get_running_loop().create_task(relay.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return outer


class _Relay:
    """Between the socket that the rest of the bundle has the other end of, and TLS to the proxy."""

    def __init__(self, inner: socket.socket, transport: "object", idle: float) -> None:
        from bot_bottle.bundle.egress.tls import TlsTransport

        assert isinstance(transport, TlsTransport)
        self._inner = inner
        self._transport = transport
        self._idle = idle
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Until both sides have ended, or one has broken off: then the other sees that it has."""
        tasks: list[asyncio.Task[None]] = []
        broken = True
        try:
            for direction in (self._up, self._down):
                tasks.append(self._loop.create_task(direction()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            broken = any(task.done() and task.exception() is not None for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._inner.close()
            if broken:
                self._transport.abort()
            else:
                self._transport.close()

    async def _up(self) -> None:
        while data := await self._loop.sock_recv(self._inner, _PIECE):
            done = self._transport.send(data)
            while not done:
                await self._transport.ready.writable()
                done = self._transport.flush()
        if self._left():
            raise ConnectionAbortedError("nobody reads what comes down any more")
        self._transport.end()

    def _left(self) -> bool:
        """Whether the other end was closed, and not only ended in one direction."""
        poll = select.poll()
        poll.register(self._inner, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    async def _down(self) -> None:
        while True:
            data = self._transport.receive(_PIECE)
            if data is None:
                async with asyncio.timeout(self._idle):
                    await self._transport.ready.readable()
            elif data:
                await self._loop.sock_sendall(self._inner, data)
            else:
                self._inner.shutdown(socket.SHUT_WR)
                return
