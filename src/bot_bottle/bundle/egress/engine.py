"""Dialling through a second engine (pipelock) that judges what our policy has let through: both have to agree.

Names are still resolved and their addresses checked here; the engine then resolves, checks and dials by itself. Routes with an
`upstream:` go straight there. While the engine is known to be down nothing is dialled, whoever listens on its port.
"""

import socket
from concurrent.futures import Executor

from bot_bottle.bundle.egress.dial import Dialer, DialFailed, Resolve, resolve
from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.egress.via import connect_through
from bot_bottle.bundle.model import BundleLimits, Proxy
from bot_bottle.policy.model import Route

_HOST = "127.0.0.1"
_OWN_HEADERS = b"x-pipelock-"
"""Headers by which a client tells the engine who it is: not the agent's to say."""


class EngineDialer(Dialer):
    """`port` is the engine's on loopback."""

    def __init__(
        self, limits: BundleLimits, executor: Executor, *, port: int, resolve: Resolve = resolve
    ) -> None:
        super().__init__(limits, executor, resolve=resolve)
        self._port = port
        self._seconds = limits.dial_seconds
        self.up = True

    async def dial(self, route: Route, host: str, port: int) -> socket.socket:
        """As `Dialer.dial`; for a plain HTTP route without an upstream it leads to the engine itself (`proxy_for`)."""
        if route.upstream is not None:
            return await super().dial(route, host, port)
        if route.protocol == "tcp":
            raise DialFailed("engine_cannot", "the egress engine carries HTTP and TLS only", refused=True)
        self._check(await self._addresses(host, port))
        sock = await self._reach()
        if route.protocol == "http":
            return sock
        try:
            await connect_through(sock, host, port, None, self._seconds)
        except DialFailed as failed:
            sock.close()
            raise _explained(failed) from failed
        except BaseException:
            sock.close()
            raise
        return sock

    async def _reach(self) -> socket.socket:
        if not self.up:
            raise DialFailed("engine_down", "the egress engine has ended")
        try:
            return await self._connect_one(_HOST, self._port, self._seconds)
        except (OSError, TimeoutError) as error:
            raise DialFailed("engine_down", "the egress engine does not answer") from error

    def proxy_for(self, route: Route, host: str, port: int) -> Proxy | None:  # noqa: ARG002
        """The engine, for what it is asked as any proxy is: in absolute form, so that it can read it."""
        return Proxy(_HOST, self._port) if route.upstream is None and route.protocol == "http" else None

    def forward(self, head: Head, route: Route) -> Head:
        """A plain request's head without what speaks to the engine itself."""
        if self.proxy_for(route, "", 0) is None:
            return head
        return head._replace(headers=[item for item in head.headers if not item[0].startswith(_OWN_HEADERS)])


def _explained(failed: DialFailed) -> DialFailed:
    """What a tunnel's failure means when the proxy is an engine."""
    if failed.reason == "proxy_refused":
        return DialFailed(
            "engine_refused", "the egress engine (pipelock) does not let this through", refused=True
        )
    return DialFailed("engine_failed", "the egress engine gave no usable answer", timeout=failed.timeout)
