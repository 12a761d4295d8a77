"""What every connection of one bottle shares, and the one place where a connection is judged and its end recorded."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from socket import socket

from bot_bottle.bundle.egress.dial import Dialer, DialFailed
from bot_bottle.bundle.egress.heads import Headers, end_to_end
from bot_bottle.bundle.egress.names import Names
from bot_bottle.bundle.egress.pump import Pump
from bot_bottle.bundle.egress.wire import SocketTransport, Transport
from bot_bottle.bundle.model import BundleLimits, HeaderValue
from bot_bottle.bundle.record import Record
from bot_bottle.policy.egress import Decision, Wanted, decide, decide_request, intercepts, protocol_on
from bot_bottle.policy.model import EgressPolicy, Route

Originate = Callable[[socket, str], Awaitable[Transport]]
"""Speaks TLS over a connected socket, verified against a name; else closes it and raises DialFailed."""


@dataclass(slots=True, kw_only=True)
class Context:
    """`policy` is replaced as a whole when it changes; whoever decides reads it once."""

    policy: EgressPolicy
    credentials: Mapping[str, HeaderValue]
    limits: BundleLimits
    bottle_file: str
    record: Record
    names: Names
    dialer: Dialer
    pump: Pump
    originate: Originate | None = None

    def judge(self, *, host: str, port: int, protocol: str) -> Decision:
        """What the policy says. Whatever goes wrong in deciding is a no."""
        try:
            return decide(self.policy, host=host, port=port, protocol=protocol)
        except Exception:  # noqa: BLE001 - a decision that can't be made must not let anything through
            return Decision(False, None, "undecided", Wanted(host, port, protocol))

    def judge_request(
        self, *, host: str, port: int, protocol: str, method: bytes, target: bytes, headers: Headers
    ) -> Decision:
        """What the policy says of one request: `target` in origin form, `headers` as they came."""
        try:
            return decide_request(
                self.policy,
                host=host,
                port=port,
                protocol=protocol,
                method=method,
                target=target,
                headers=end_to_end(headers),
            )
        except Exception:  # noqa: BLE001 - as in `judge`
            return Decision(False, None, "undecided", Wanted(host, port, protocol))

    def intercepts(self, *, host: str, port: int) -> bool:
        """Whether TLS to it has to be opened."""
        try:
            return intercepts(self.policy, host=host, port=port)
        except Exception:  # noqa: BLE001 - what can't be decided must not pass through unseen
            return True

    def speaks_tcp(self, *, host: str, port: int) -> bool:
        """Whether connections to it are carried as they are, whatever they speak."""
        try:
            return protocol_on(self.policy, host=host, port=port) == "tcp"
        except Exception:  # noqa: BLE001 - as in `judge`: what is taken for TLS or HTTP is judged further
            return False

    async def secure(self, route: Route, sock: socket) -> Transport:
        """`sock` as the transport that `route` asks for: bare, or TLS of our own. Raises DialFailed."""
        upstream = route.upstream
        if upstream is None or not upstream.tls:
            return SocketTransport(sock)
        if self.originate is None:
            sock.close()
            raise DialFailed("tls_failed", "this bundle was started without TLS of its own")
        return await self.originate(sock, upstream.server_name or upstream.host)

    def allowed(self, via: str, wanted: Wanted, **more: str) -> None:
        self.record.event("egress.allowed", {"via": via, **wanted.asked(), "reason": "allowed", **more})

    def refused(self, via: str, reason: str, wanted: Wanted | None, **more: str) -> None:
        asked = wanted.asked() if wanted else {}
        self.record.event("egress.refused", {"via": via, **asked, "reason": reason, **more})

    def failed(self, via: str, reason: str, wanted: Wanted | None, **more: str) -> None:
        asked = wanted.asked() if wanted else {}
        self.record.event("egress.failed", {"via": via, **asked, "reason": reason, **more})

    def closed(self, via: str, wanted: Wanted, *, up: int, down: int, seconds: float, reason: str) -> None:
        counts = {"up": up, "down": down, "seconds": round(seconds, 3), "reason": reason}
        self.record.event("egress.closed", {"via": via, **wanted.asked(), **counts})
