"""What every connection of one bottle shares, and the one place where a connection is judged and its end recorded.

What is on its way out is looked at by `look`.
"""

from collections.abc import Awaitable, Callable
from socket import socket

from bot_bottle.bundle.egress.asking import Asking, Left, Question
from bot_bottle.bundle.egress.credentials import Credentials
from bot_bottle.bundle.egress.decided import Decided
from bot_bottle.bundle.egress.dial import Dialer, DialFailed, OpenTls
from bot_bottle.bundle.egress.grants import Grants
from bot_bottle.bundle.egress.heads import Headers
from bot_bottle.bundle.egress.hello import INTERNAL_ERROR, Hello
from bot_bottle.bundle.egress.live import Judge, Live
from bot_bottle.bundle.egress.look import Look
from bot_bottle.bundle.egress.names import Names
from bot_bottle.bundle.egress.observe import let_through, spoken
from bot_bottle.bundle.egress.pardon import Pardon, SecretHeld
from bot_bottle.bundle.egress.pump import Pump
from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.bundle.egress.wire import SocketTransport, Transport, Wire, say_last
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.bundle.record import Record
from bot_bottle.policy.egress import Decision, Wanted, asks, decide, decide_request, intercepts
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.policy.ports import HTTP_PORT
from bot_bottle.typed import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from bot_bottle.bundle.egress.intercept import Interceptor


class Originate(Protocol):
    """Speaks TLS over a socket, verified against a name, and `protocol` inside it; else closes it and raises DialFailed."""

    def __call__(self, sock: socket, server_name: str, /, *, protocol: str) -> Awaitable[Transport]: ...


class Tls(NamedTuple):
    """What speaks TLS for this bottle: to upstreams, and in their place to the agent. Imported only where it is needed."""

    originate: Originate | None
    interceptor: "Interceptor | None"
    to_proxy: OpenTls | None = None


class Context:
    """`policy` is replaced as a whole when it changes; whoever decides reads it once."""

    def __init__(
        self,
        *,
        policy: EgressPolicy,
        credentials: Credentials,
        limits: BundleLimits,
        bottle_file: str,
        record: Record,
        live: Live,
        grants: Grants,
        asking: Asking,
        names: Names,
        dialer: Dialer,
        pump: Pump,
        selector: DirectSelector,
        tls: Tls,
    ) -> None:
        self.policy = policy
        self.credentials = credentials
        self.limits = limits
        self.bottle_file = bottle_file
        self.record = record
        self.live = live
        self.grants = grants
        self.asking = asking
        self.names = names
        self.dialer = dialer
        self.pump = pump
        self.selector = selector
        self.tls = tls
        self.look = Look(lambda: self.policy)
        self._decided = Decided()
        """Of what is usable of the policy; `_opened` is of all of it."""
        self._opened = Decided()

    def judge(self, *, host: str, port: int, protocol: str) -> Decision:
        """What the policy says. Whatever goes wrong in deciding is a no."""

        def judge(policy: EgressPolicy) -> Decision:
            return let_through(policy, decide(policy, host=host, port=port, protocol=protocol))

        def recall(policy: EgressPolicy) -> Decision:
            return self._decided.recall(policy, (host, port, protocol), judge)

        return self._judged(recall, judge, Wanted(host, port, protocol))

    def judge_tunnel(self, *, host: str, port: int) -> Decision:
        """The same of what is inside a CONNECT: as a route says what is spoken there, else TLS, and plain HTTP on its port."""
        if self.speaks_tcp(host=host, port=port):
            return self.judge(host=host, port=port, protocol="tcp")
        decision = self.judge(host=host, port=port, protocol="https")
        is_plain = decision.reason == "protocol_not_allowed" or (
            port == HTTP_PORT and not decision.allowed and self._is_asked(decision)
        )
        return self.judge(host=host, port=port, protocol="http") if is_plain else decision

    async def admitted(self, via: str, left: Left, judge: Callable[[], Decision]) -> Decision:
        """What `judge` says; where a person can be asked for what it refuses, what it says once they have answered.

        `left` gives what is done when the agent has gone away.
        """
        decision = judge()
        if not self._is_asked(decision):
            return decision
        again: list[Decision] = []

        def settled() -> bool:
            now = judge()
            if now.allowed or not self._is_asked(now):
                again.append(now)
            return bool(again)

        self.live.asks()
        used = self.grants.used_up
        self._event("egress.held", via, decision.reason, decision.wanted)
        reason = await self.asking.answer(Question("request", decision.wanted), left, settled)
        if reason:
            return decision._replace(reason=reason)
        if again:
            return again[0]
        now = judge()
        if now.allowed:
            return now
        return now._replace(reason="held_used" if self.grants.used_up > used else "held_failed")

    def _is_asked(self, decision: Decision) -> bool:
        """Whether a person is asked for what `decision` refuses. Never for what must not be read by them, either."""
        try:
            wanted = decision.wanted
            return (
                self.asking.able
                and asks(self.policy, decision)
                and not self.look.at_name(wanted.host)
                and self.look.shown(wanted.path) == wanted.path
            )
        except Exception:  # noqa: BLE001 - as in `judge`: it is refused
            return False

    def judge_request(
        self,
        *,
        host: str,
        port: int,
        protocol: str,
        method: bytes,
        target: bytes,
        headers: Headers,
    ) -> Decision:
        """What the policy says of one request. Whatever goes wrong in deciding is a no."""

        def judge(policy: EgressPolicy) -> Decision:
            decision = decide_request(
                policy, host=host, port=port, protocol=protocol, method=method, target=target, headers=headers
            )
            return let_through(policy, decision)

        def recall(policy: EgressPolicy) -> Decision:
            counting = self._decided.counting(policy, headers)
            return self._decided.recall(policy, (host, port, protocol, method, target, *counting), judge)

        return self._judged(recall, judge, Wanted(host, port, protocol))

    def _named(self, host: str, decision: Decision) -> Decision:
        """`decision`, unless the guard has something against the name as it was written, where the agent can make it up."""
        if decision.route is None or not (
            decision.route.host.startswith("*.") or decision.reason != "allowed"
        ):
            return decision
        reason = self.look.at_name(host)
        return Decision(False, None, reason, decision.wanted) if reason else decision

    def intercepts(self, wanted: Wanted) -> bool:
        """Whether TLS to it is opened; when that can't be decided, nothing passes through."""
        try:
            return self._opened.recall(
                self.policy,
                ("intercepts", wanted.host, wanted.port),
                lambda policy: intercepts(policy, host=wanted.host, port=wanted.port),
            )
        except Exception:  # noqa: BLE001 - as in `judge`
            return True

    def speaks_tcp(self, *, host: str, port: int) -> bool:
        """Whether connections to it are carried as they are, whatever they speak."""
        try:
            return self._decided.recall(
                self.grants.usable(self.policy),
                ("speaks tcp", host, port),
                lambda policy: spoken(policy, host=host, port=port) == "tcp",
            )
        except Exception:  # noqa: BLE001 - as in `judge`: what is taken for TLS or HTTP is judged further
            return False

    async def intercept(self, via: str, wanted: Wanted, wire: Wire, sock: socket, hello: Hello) -> None:
        """Opens the TLS of an allowed connection and serves what is inside. Without the means to, refuses."""
        if self.tls.interceptor is None:
            self.failed(via, "no_authority", wanted)
            await say_last(wire, INTERNAL_ERROR)
            return
        await self.tls.interceptor.serve(self, via, wanted, wire, sock, hello)

    def rests(self, wanted: Wanted) -> None:
        """The running connection waits for its next request: what is kept of the last is where it went."""
        self.live.rests(
            lambda policy: let_through(
                policy, decide(policy, host=wanted.host, port=wanted.port, protocol=wanted.protocol)
            )
        )

    def _judged(self, now: Judge, again: Judge, asked: Wanted) -> Decision:
        """What `now` says of the policy in force; for what lets something through, `again` is kept, to be asked of the next."""
        try:
            decision = self._named(asked.host, now(self.grants.usable(self.policy)))
            if not self._taken(decision):
                return Decision(False, None, "undecided", asked)
            self.live.note(decision, again)
        except Exception:  # noqa: BLE001 - a decision that can't be made must not let anything through
            return Decision(False, None, "undecided", asked)
        return decision

    def _taken(self, decision: Decision) -> bool:
        """Notes the use of the approval by which `decision` allows something; False when it may not be used.

        Where single requests are judged, each of them is a use, and the connection that they come on is none.
        """
        route, wanted = decision.route, decision.wanted
        if route is None or not route.grant:
            return True
        by_request = wanted.protocol == "http" or (wanted.protocol == "https" and self.intercepts(wanted))
        if by_request and not wanted.method:
            return True
        if not self.grants.take(route):
            return False
        if route.once:
            self.live.uses_once(route.grant)
        return True

    def pardon(self, via: str, left: Left) -> Pardon:
        """For one request, in which a secret may be found; `left` as for `admitted`."""

        def note(kind: str, held: SecretHeld) -> None:
            self._event(kind, via, held.reason, held.wanted, **held.what)

        return Pardon(self.asking, left, note, self.look.shown)

    async def secure(self, route: Route, sock: socket, host: str, *, protocol: str = "http/1.1") -> Transport:
        """`sock` as the transport that `route` asks for when it is for `host`: bare, or TLS of our own. Raises DialFailed."""
        if not speaks_tls(route):
            return SocketTransport(sock, self.selector)
        if self.tls.originate is None:
            sock.close()
            raise DialFailed("tls_failed", "this bundle was started without TLS of its own")
        return await self.tls.originate(sock, verified_name(route, host), protocol=protocol)

    def allowed(self, via: str, wanted: Wanted) -> None:
        kind, reason = "egress.allowed", "allowed"
        decision = self.live.decision()
        # The path may be another than was judged: what the guard took out of it is not recorded either.
        if decision is not None and decision.reason != reason and decision.wanted[:-1] == wanted[:-1]:
            kind, reason = "egress.observed", decision.reason
        elif self.record.again(kind, via, wanted.host, wanted.port, wanted.protocol, reason):
            return
        data = {"via": via, **wanted.asked(), "reason": reason}
        unsearched = decision is None or decision.route is None or not decision.route.scan
        self.record.event(kind, self.look.recorded(data) if unsearched else data)

    def refused(self, via: str, reason: str, wanted: Wanted | None, **more: str) -> None:
        self._event("egress.refused", via, reason, wanted, **more)

    def failed(self, via: str, reason: str, wanted: Wanted | None, **more: str) -> None:
        self._event("egress.failed", via, reason, wanted, **more)

    def _event(self, kind: str, via: str, reason: str, wanted: Wanted | None, **more: str) -> None:
        asked = wanted.asked() if wanted else {}
        self.record.event(kind, self.look.recorded({"via": via, **asked, "reason": reason, **more}))

    def closed(self, via: str, wanted: Wanted, *, up: int, down: int, seconds: float, reason: str) -> None:
        reason = self.live.ended_by() or reason
        place = (via, wanted.host, wanted.port, wanted.protocol)
        if self.record.again("egress.closed", *place, reason, up=up, down=down, seconds=seconds):
            return
        counts = {"up": up, "down": down, "seconds": round(seconds, 3), "reason": reason}
        self.record.event("egress.closed", self.look.recorded({"via": via, **wanted.asked(), **counts}))


def speaks_tls(route: Route) -> bool:
    """Whether what goes to the upstream of `route` goes in TLS that was verified: only then a credential goes with it."""
    return route.protocol == "https" or (route.upstream is not None and route.upstream.tls)


def verified_name(route: Route, host: str) -> str:
    """The name that the upstream of `route` has to have a certificate for."""
    upstream = route.upstream
    return (upstream.server_name or upstream.host) if upstream is not None and upstream.tls else host
