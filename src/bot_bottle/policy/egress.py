"""May this bottle open a connection to this host, on this port, in this protocol? Pure and total: every input gets an answer.

A host is compared in one spelling only (`canonical_host`), so that there is no second spelling to slip through. Whatever
can't be brought into it (an address in any notation, a bad label, a stray character) is refused. Default: no.
"""

import re
from typing import NamedTuple

from bot_bottle.policy.model import EgressPolicy, Route

MAX_HOST = 253
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEVIATIONS = frozenset("\u00df\u1e9e\u03c2\u200c\u200d")
"""Letters that IDNA 2003 and 2008 map to different names: whoever means such a host writes its `xn--` form."""


class Wanted(NamedTuple):
    """What was asked for, in the terms of a route; `host` is canonical, or as given when it has no canonical form."""

    host: str
    port: int
    protocol: str


class Decision(NamedTuple):
    """`reason` is `allowed` or a code that `REASONS` explains; `route` is what allows it."""

    allowed: bool
    route: Route | None
    reason: str
    wanted: Wanted


REASONS = {
    "address_literal": "an address was given instead of a host name; only names can be allowed",
    "not_a_host_name": "this is not a valid host name",
    "host_not_allowed": "this host is not in the bottle's egress policy",
    "port_not_allowed": "this host is allowed, but not on this port",
    "protocol_not_allowed": "this host and port are allowed, but not in this protocol",
}


def canonical_host(text: str) -> str | None:
    """The one spelling of a host name: lower case, no trailing dot, punycode. None for anything that is not a name.

    Addresses are no names, in whatever notation (`127.1`, `0x7f000001`, `017700000001`, `[::1]`): as in the URL standard,
    a name whose last label is a number is an address.
    """
    if not text or len(text) > 4 * MAX_HOST:
        return None
    if not text.isascii():
        ascii_text = _punycode(text)
        if ascii_text is None:
            return None
        text = ascii_text
    host = text.lower().removesuffix(".")
    if len(host) > MAX_HOST or _HOST.fullmatch(host) is None:
        return None
    return None if _NUMBER.fullmatch(host.rpartition(".")[2]) else host


def _punycode(text: str) -> str | None:
    if _DEVIATIONS.intersection(text):
        return None
    try:
        return text.encode("idna").decode("ascii")
    except (UnicodeError, IndexError):
        return None


def canonical_pattern(text: str) -> str | None:
    """A route's host in its one spelling: a name, or `*.` and a name. None for anything else."""
    wildcard = text.startswith("*.")
    host = canonical_host(text[2:] if wildcard else text)
    if host is None:
        return None
    return f"*.{host}" if wildcard else host


def matches(pattern: str, host: str) -> bool:
    """Whether the canonical `host` is what `pattern` names; `*.` stands for one or more whole labels."""
    if pattern.startswith("*."):
        return len(host) > len(pattern) - 1 and host.endswith(pattern[1:])
    return host == pattern


def names_allowed(policy: EgressPolicy, host: str) -> bool:
    """Whether any route names the canonical `host`, on whatever port: whether the bottle's DNS knows it."""
    return any(matches(route.host, host) for route in policy.routes)


def decide(policy: EgressPolicy, *, host: str, port: int, protocol: str) -> Decision:
    """Whether `policy` allows it; of several routes the most exact one counts."""
    name = canonical_host(host)
    if name is None:
        return Decision(False, None, _no_name_reason(host), Wanted(host, port, protocol))
    wanted = Wanted(name, port, protocol)
    named = [route for route in policy.routes if matches(route.host, name)]
    if not named:
        return Decision(False, None, "host_not_allowed", wanted)
    on_port = [route for route in named if route.port == port]
    if not on_port:
        return Decision(False, None, "port_not_allowed", wanted)
    fitting = [route for route in on_port if route.protocol == protocol]
    if not fitting:
        return Decision(False, None, "protocol_not_allowed", wanted)
    return Decision(True, max(fitting, key=_exactness), "allowed", wanted)


def _exactness(route: Route) -> tuple[bool, int]:
    return (not route.host.startswith("*."), len(route.host))


def _no_name_reason(host: str) -> str:
    last = host.lower().removesuffix(".").rpartition(".")[2]
    is_address = ":" in host or host.startswith("[") or _NUMBER.fullmatch(last) is not None
    return "address_literal" if is_address else "not_a_host_name"
