"""Dialling through a second engine (pipelock) that judges what our policy has let through: both have to agree.

Names are still resolved and their addresses checked here; the engine then resolves, checks and dials by itself. Routes with an
`upstream:` go straight there. While the engine is known to be down nothing is dialled, whoever listens on its port.
"""

import socket
from concurrent.futures import Executor

from bot_bottle.bundle.egress.dial import Dialer, DialFailed, Resolve, resolve
from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.egress.via import connect_through
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import Route

_HOST = "127.0.0.1"
_OWN_HEADERS = b"x-pipelock-"
"""Headers by which a client tells the engine who it is: not the agent's to say."""
_REASONS = {403: "engine_refused", 429: "engine_limited", 503: "engine_stopped"}


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
        """As `Dialer.dial`; for a plain HTTP route without an upstream it leads to the engine itself (`forward`)."""
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

    def forward(self, head: Head, route: Route, wanted: Wanted) -> Head:
        """A plain request as the engine takes it: its whole URL, and nothing that speaks to the engine itself."""
        if route.upstream is not None or route.protocol != "http":
            return head
        headers = [item for item in head.headers if not item[0].startswith(_OWN_HEADERS)]
        authority = wanted.host if wanted.port == 80 else f"{wanted.host}:{wanted.port}"
        path = b"" if head.target == b"*" else head.target
        return head._replace(headers=headers, target=b"http://" + authority.encode("ascii") + path)


def _explained(failed: DialFailed) -> DialFailed:
    """What the tunnel's failure means when the proxy is an engine."""
    status = failed.reason.removeprefix("proxy_status_")
    if not status.isdecimal():
        return DialFailed("engine_failed", "the egress engine gave no usable answer", timeout=failed.timeout)
    reason = _REASONS.get(int(status), "engine_failed")
    if failed.refused:
        return DialFailed(reason, "the egress engine (pipelock) does not let this through", refused=True)
    return DialFailed(reason, f"the egress engine answered with status {status}")
