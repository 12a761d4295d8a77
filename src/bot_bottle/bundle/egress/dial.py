"""Opening the connection to an upstream that the policy allowed: resolved once, every address checked, the checked one dialled.

A route with `upstream:` goes where the bottle file says, unchecked: that is the one exception to the refusal of private
addresses. Everything else goes to the public internet only, and never to this host itself.

Where the host has a proxy, it resolves the name and dials (`via.py`); what is left to check here is the name's spelling.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.model import BundleLimits, Proxy, UpstreamProxy
from bot_bottle.policy.addresses import address_is_public, name_is_private
from bot_bottle.policy.model import Route
from bot_bottle.policy.proxies import goes_direct

OpenTls = Callable[[socket.socket, str], Awaitable[socket.socket]]
Resolve = Callable[[str, int], list[str]]
_KEEP_IDLE = 60
_MOST_ADDRESSES = 8
_SECONDS_IF_OTHERS = 3.0


class DialFailed(Exception):
    """`reason` is a code for events and bodies, `message` says it to a person; neither holds anything secret."""

    def __init__(self, reason: str, message: str, *, refused: bool = False, timeout: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.refused = refused
        self.timeout = timeout


def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`, without repetition, in the system's order. Raises OSError. Blocks."""
    # As bytes: for text, Python would import its IDNA tables, which a confined process can't.
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Dialer:
    """Dials for one bottle; `executor` does the blocking look-ups."""

    def __init__(
        self,
        limits: BundleLimits,
        executor: Executor,
        *,
        resolve: Resolve = resolve,
        proxy: UpstreamProxy | None = None,
        open_tls: OpenTls | None = None,
    ) -> None:
        """`open_tls` speaks TLS to a proxy that asks for it."""
        self._limits = limits
        self._executor = executor
        self._resolve = resolve
        self._proxy = proxy
        self._open_tls = open_tls

    def proxy_for(self, route: Route, host: str, port: int) -> Proxy | None:
        """The proxy through which `route` reaches `host` and `port`; None for the direct way."""
        if self._proxy is None or route.upstream is not None:
            return None
        if goes_direct(self._proxy.direct, host, port):
            return None
        return {"https": self._proxy.https, "http": self._proxy.http, "tcp": self._proxy.tcp}[route.protocol]

    async def dial(self, route: Route, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket to where `route` leads for `host` and `port`. Raises DialFailed.

        For a plain http route that has a proxy, it leads to that proxy, which wants requests in absolute form.
        """
        upstream = route.upstream
        proxy = self.proxy_for(route, host, port)
        if proxy is not None:
            return await self._dial_by(proxy, host, port, tunnel=route.protocol != "http")
        target, target_port = (upstream.host, upstream.port) if upstream else (host, port)
        addresses = await self._addresses(target, target_port)
        if upstream is None:
            self._check(addresses)
        return await self._connect(addresses, target_port)

    def forward(self, head: Head, route: Route) -> Head:  # noqa: ARG002
        """A request's head as whoever `dial` leads to may get it."""
        return head

    async def _dial_by(self, proxy: Proxy, host: str, port: int, *, tunnel: bool) -> socket.socket:
        if name_is_private(host):
            raise DialFailed(
                "name_not_public", "a name like this is not that of a public server", refused=True
            )
        try:
            sock = await self._connect(await self._addresses(proxy.host, proxy.port), proxy.port)
        except DialFailed as error:
            text = f"the proxy can't be reached: {error.message}"
            raise DialFailed("proxy_unreachable", text, timeout=error.timeout) from error
        if proxy.tls:
            if self._open_tls is None:
                sock.close()
                raise DialFailed("proxy_tls_failed", "this bundle was started without TLS to proxies")
            sock = await self._open_tls(sock, proxy.host)
        if tunnel:
            from bot_bottle.bundle.egress.via import connect_through  # was imported before confinement

            try:
                await connect_through(sock, host, port, proxy.authorization, self._limits.proxy_seconds)
            except BaseException:
                sock.close()
                raise
        return sock

    async def _addresses(self, host: str, port: int) -> list[str]:
        if _family(host) is not None:
            return [host]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.resolve_seconds):
                addresses = await loop.run_in_executor(self._executor, self._resolve, host, port)
        except TimeoutError as error:
            raise DialFailed(
                "resolve_timeout", "the name could not be resolved in time", timeout=True
            ) from error
        except (OSError, UnicodeError) as error:
            raise DialFailed("not_resolved", "the name could not be resolved") from error
        if not addresses:
            raise DialFailed("not_resolved", "the name has no address")
        return addresses

    def _check(self, addresses: list[str]) -> None:
        """One bad address condemns the name: an honest one has none, and which one is dialled must not be left to chance."""
        for address in addresses:
            if not address_is_public(address):
                raise DialFailed(
                    "address_not_public", "the name resolves to an address that is not public", refused=True
                )
            if _is_own(address):
                raise DialFailed(
                    "address_of_host", "the name resolves to the host of the bottle", refused=True
                )

    async def _connect(self, addresses: list[str], port: int) -> socket.socket:
        failure = DialFailed("no_address", "no address could be dialled")
        for address in addresses[:_MOST_ADDRESSES]:
            last = address == addresses[:_MOST_ADDRESSES][-1]
            seconds = (
                self._limits.dial_seconds if last else min(_SECONDS_IF_OTHERS, self._limits.dial_seconds)
            )
            try:
                return await self._connect_one(address, port, seconds)
            except TimeoutError:
                failure = DialFailed("connect_timeout", "the upstream did not answer in time", timeout=True)
            except OSError as error:
                failure = DialFailed(
                    "connect_failed", f"the upstream did not accept: {error.strerror or 'error'}"
                )
        raise failure

    async def _connect_one(self, address: str, port: int, seconds: float) -> socket.socket:
        sock = socket.socket(_family(address) or socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            make_lively(sock)
            await connect(sock, address, port, seconds)
        except BaseException:
            sock.close()
            raise
        return sock


async def connect(sock: socket.socket, address: str, port: int, seconds: float) -> None:
    """Connects the non-blocking `sock`. Raises OSError, TimeoutError."""
    for _ in range(2):  # a near one has answered when it is asked for the second time
        code = sock.connect_ex((address, port))
        if not code:
            return
        if code not in (errno.EINPROGRESS, errno.EALREADY):
            raise OSError(code, os.strerror(code))
    async with asyncio.timeout(seconds):
        await asyncio.get_running_loop().sock_connect(sock, (address, port))


def make_lively(sock: socket.socket) -> None:
    """Small pieces go at once, and a peer that has vanished is noticed. What a listening socket accepts takes over both from it."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE)


def _family(address: str) -> socket.AddressFamily | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return family
    return None


def _is_own(address: str) -> bool:
    """Whether `address` is one of this host's: then a datagram to it would leave from it. Sends nothing.

    Raises DialFailed where that can't be found out, as no descriptor is free.
    """
    family = _family(address)
    if family is None:
        return True
    try:
        made = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise DialFailed("connect_failed", f"the bundle has no socket left: {error.strerror}") from error
    with made as probe:
        try:
            probe.connect((address, 9))
        except OSError:  # no way there at all: dialling will say so
            return False
        return str(probe.getsockname()[0]) == address
