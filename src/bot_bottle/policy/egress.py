"""May this bottle reach this: a host on a port in a protocol, and there this request? Pure and total: every input gets an answer.

A host is compared in one spelling only (`hosts.py`), and so is a path (`paths.py`): there is no second spelling to slip
through. Whatever can't be brought into it (an address in any notation, a bad label, a path that servers read differently) is
refused. Default: no.

Routes only ever add: what one allows, no other takes away. Of several that allow the same the most exact one counts, which
says where it goes and with which credential.
"""

from collections.abc import Iterable

from bot_bottle.policy import lines
from bot_bottle.policy.hosts import canonical_host, canonical_pattern, matches, why_no_name
from bot_bottle.policy.model import EgressPolicy, Protocol, Route
from bot_bottle.policy.paths import canonical_path, literal_length, path_matches
from bot_bottle.policy.rules import Headers, objection
from bot_bottle.typed import NamedTuple

__all__ = (
    "REASONS",
    "REQUEST_REASONS",
    "Decision",
    "Headers",
    "Wanted",
    "canonical_host",
    "canonical_path",
    "canonical_pattern",
    "asks",
    "decide",
    "decide_request",
    "intercepted_names",
    "intercepts",
    "intercepts_any",
    "matches",
    "names_allowed",
    "protocol_on",
)


class Wanted(NamedTuple):
    """What was asked for, in the terms of a route.

    `host` and `path` (without its query) are canonical, or as given when they have no canonical form. `method` and `path`
    are empty as long as only the connection is judged.
    """

    host: str
    port: int
    protocol: str
    method: str = ""
    path: str = ""

    @property
    def place(self) -> "Wanted":
        """Without the request: what one connection can serve several requests to."""
        return self._replace(method="", path="")

    def asked(self) -> dict[str, str | int]:
        """What is known of it, for events and bodies."""
        return {
            name: value for name, value in self._asdict().items() if value or name not in ("method", "path")
        }


class Decision(NamedTuple):
    """`reason` is `allowed` or a code that `REASONS` explains; `route` is what allows it.

    `needed` is the least line under `egress: routes:` that would allow it; None when it is allowed, or no line could.
    """

    allowed: bool
    route: Route | None
    reason: str
    wanted: Wanted
    needed: str | None = None


REASONS = {
    "address_literal": "an address was given instead of a host name; only names can be allowed",
    "not_a_host_name": "this is not a valid host name",
    "host_not_allowed": "this host is not in the bottle's egress policy",
    "port_not_allowed": "this host is allowed, but not on this port",
    "protocol_not_allowed": "this host and port are allowed, but not in this protocol",
    "method_not_allowed": "this host is allowed, but not with this method",
    "path_not_allowed": "this host is allowed, but not this path on it",
    "bad_path": "servers could read this path in more than one way, so no path rule can allow it",
    "header_not_allowed": "this host is allowed, but only for requests with other headers",
    "no_name": "this address stands for no name that the bottle's DNS gave out",
    "secret_found": "there is a secret in it",
    "secret_held": "there is a secret in it",
    "secret_unreadable": "it can't be searched for secrets",
    "placeholder_misused": "there is a credential's placeholder in it, which may go to that credential's route only",
    "body_too_large": "its body is larger than what is searched for secrets",
    "body_stalled": "its body was long in coming, and others needed the room",
    "override_not_allowed": "a header asks the server to take another method or path than the policy judged",
    "held_rejected": "a person was asked for it, and said no",
    "held_withdrawn": "a person was asked for it, and the question was taken back before there was an answer",
    "held_expired": "a person was asked for it, and nobody answered in time",
    "held_absent": "a person has to be asked for it, and nobody is there",
    "held_crowded": "a person has to be asked for it, and too much waits for an answer already",
    "held_left": "a person was asked for it, and who wanted it went away before there was an answer",
    "held_used": "a person said yes, and something else used that up or ended it before this one's turn; try again to ask anew",
    "held_failed": "a person has to be asked for it, and could not be, or the answer could not be put in force",
}
HELD_REASONS = frozenset(reason for reason in REASONS if reason.startswith("held_"))
"""Why what waited for a person goes no further. None of them is a yes, and nothing but a route is one."""
REQUEST_REASONS = (
    "method_not_allowed",
    "bad_path",
    "path_not_allowed",
    "override_not_allowed",
    "header_not_allowed",
)
"""Why a request is refused whose connection is allowed. Of several routes the one that came furthest, in this order, says it."""


ASKED_FOR = frozenset(
    {
        "host_not_allowed",
        "port_not_allowed",
        "protocol_not_allowed",
        "method_not_allowed",
        "path_not_allowed",
        "header_not_allowed",
    }
)
"""The reasons of refusals that another line under `routes:` would make an allowance."""


def names_allowed(policy: EgressPolicy, host: str) -> bool:
    """Whether any route or `ask` names the canonical `host`, on whatever port: whether the bottle's DNS knows it."""
    return any(matches(route.host, host) for route in policy.routes) or names_asked(policy, host)


def names_asked(policy: EgressPolicy, host: str) -> bool:
    """Whether `ask` names the canonical `host`."""
    return any(matches(pattern, host) for pattern in policy.ask)


def asks(policy: EgressPolicy, decision: Decision) -> bool:
    """Whether a person is to be asked for what `decision` refuses: only where a line could allow it. It stays refused."""
    askable = not decision.allowed and decision.reason in ASKED_FOR and decision.needed is not None
    return askable and policy.mode == "enforce" and names_asked(policy, decision.wanted.host)


def decide(policy: EgressPolicy, *, host: str, port: int, protocol: str) -> Decision:
    """Whether there is any route for a connection. On one with rules each request has to be judged as well."""
    found = _fitting(policy, host, port, protocol)
    if isinstance(found, Decision):
        return found
    wanted, routes = found
    return Decision(True, max(routes, key=_exactness), "allowed", wanted)


def decide_request(
    policy: EgressPolicy,
    *,
    host: str,
    port: int,
    protocol: str,
    method: bytes,
    target: bytes,
    headers: Headers,
) -> Decision:
    """Whether this request may go there. `target` is in origin form, `headers` are those that the upstream will see."""
    found = _fitting(policy, host, port, protocol)
    path = canonical_path(target)
    raw = target.partition(b"?")[0].decode("latin-1")
    verb, shown = method.decode("latin-1"), raw if path is None else path
    if isinstance(found, Decision):
        return found._replace(wanted=found.wanted._replace(method=verb, path=shown))
    wanted = found[0]._replace(method=verb, path=shown)
    refusals = {route: objection(route, wanted.method, path, headers) for route in found[1]}
    allowing = [route for route, why in refusals.items() if not why]
    if allowing:
        return Decision(
            True, max(allowing, key=lambda route: _request_exactness(route, path)), "allowed", wanted
        )
    reason = max(refusals.values(), key=REQUEST_REASONS.index)
    needed = None if reason in ("bad_path", "override_not_allowed") else lines.for_request(wanted, path)
    return Decision(False, None, reason, wanted, needed)


def protocol_on(policy: EgressPolicy, *, host: str, port: int) -> Protocol | None:
    """What is spoken on `port` of `host`: as the most exact route says, and never `tcp` beside another; None without a route."""
    name = canonical_host(host)
    routes = [route for route in policy.routes if route.port == port and name and matches(route.host, name)]
    best = max(routes, key=lambda route: (_exactness(route)[:2], route.protocol != "tcp"), default=None)
    return best.protocol if best else None


def intercepts(policy: EgressPolicy, *, host: str, port: int) -> bool:
    """Whether TLS to `host` on `port` has to be opened, so that single requests are judged, filled in or searched."""
    name = canonical_host(host)
    if name is None:
        return True  # refused anyway; but whoever asks must not take it for something to pass through
    return any(
        route.port == port and matches(route.host, name) and _needs_opening(policy, route)
        for route in policy.routes
    )


def intercepts_any(policy: EgressPolicy) -> bool:
    """Whether TLS to anything has to be opened, or may be once it was asked for: whether the bottle needs an authority."""
    return bool(policy.ask) or any(_needs_opening(policy, route) for route in policy.routes)


def intercepted_names(policy: EgressPolicy) -> frozenset[str]:
    """The hosts, as routes name them, to which TLS is opened, and those for which it may be asked."""
    return frozenset((*policy.ask, *(route.host for route in policy.routes if _needs_opening(policy, route))))


def _needs_opening(policy: EgressPolicy, route: Route) -> bool:
    searched = policy.secrets is not None and route.scan
    to_tls = route.upstream is not None and route.upstream.tls
    needs = route.has_rules or route.credential is not None or to_tls or searched
    return route.protocol == "https" and needs


def _fitting(
    policy: EgressPolicy, host: str, port: int, protocol: str
) -> Decision | tuple[Wanted, list[Route]]:
    """What is asked for and the routes for it, at least one; else the refusal."""
    name = canonical_host(host)
    if name is None:
        return Decision(False, None, why_no_name(host), Wanted(host, port, protocol))
    wanted = Wanted(name, port, protocol)
    named = [route for route in policy.routes if matches(route.host, name)]
    on_port = [route for route in named if route.port == port]
    fitting = [route for route in on_port if route.protocol == protocol]
    if fitting:
        return wanted, fitting
    reason = "protocol_not_allowed" if on_port else "port_not_allowed" if named else "host_not_allowed"
    # A file that gives one host and port two protocols is wrong, so no line could be added to it.
    taken = any(route.host == name for route in on_port)
    return Decision(False, None, reason, wanted, None if taken else lines.for_connection(wanted))


def _exactness(route: Route) -> tuple[bool, int, bool, bool]:
    """An exact host before a pattern; of the same, what the file allows before what was granted, and that before `once`."""
    return (not route.host.startswith("*."), len(route.host), not route.grant, not route.once)


def _request_exactness(
    route: Route, path: str | None
) -> tuple[tuple[bool, int], int, int, bool, bool, tuple[bool, bool]]:
    """An exact host before a pattern; then the path that is spelled out furthest, more headers, methods.

    Of those that say the same, the one with a credential is more than the one without; then as above.
    """
    fitting: Iterable[str] = (pattern for pattern in route.paths if path and path_matches(pattern, path))
    spelled = max((literal_length(pattern) for pattern in fitting), default=-1)
    exact, length, *lasting = _exactness(route)
    filled = route.credential is not None
    return (exact, length), spelled, len(route.headers), bool(route.methods), filled, (lasting[0], lasting[1])
