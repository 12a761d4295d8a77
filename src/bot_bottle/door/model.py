"""The door's listeners as data: what is opened inside the bottle's network namespace and served by the bundle outside."""

from typing import Literal, NamedTuple

from bot_bottle.policy.model import EgressPolicy

ListenerKind = Literal["proxy", "http", "tls", "dns-udp", "dns-tcp", "tcp"]

PROXY_ADDRESS = "127.0.0.1"
PROXY_PORT = 3128
MOST_FURTHER = 32
"""Ports beyond the standard ones that get a listener; the others are reached through the proxy."""
NAME_NETWORK = "198.18.0.0/15"
"""Addresses that the bottle's DNS gives to allowed names (RFC 2544, for benchmarks; nobody's on any network)."""


class Listener(NamedTuple):
    """One socket: `tcp` has a port of its own for a route's protocol that names no host by itself."""

    kind: ListenerKind
    address: str
    port: int


STANDARD: tuple[Listener, ...] = (
    Listener("proxy", PROXY_ADDRESS, PROXY_PORT),
    Listener("http", "0.0.0.0", 80),  # noqa: S104 - inside a namespace that has only lo
    Listener("tls", "0.0.0.0", 443),  # noqa: S104
    Listener("dns-udp", "0.0.0.0", 53),  # noqa: S104
    Listener("dns-tcp", "0.0.0.0", 53),  # noqa: S104
)


def listeners_for(policy: EgressPolicy) -> tuple[Listener, ...]:
    """The standard listeners, and one for each further port of a route, so that clients without a proxy reach it, too.

    A port on which both protocols are allowed is taken for TLS; plain HTTP on it goes through the proxy.
    """
    taken = {listener.port for listener in STANDARD}
    kinds: dict[int, ListenerKind] = {}
    for route in policy.routes:
        if route.port not in taken and (route.protocol == "https" or route.port not in kinds):
            kinds[route.port] = "tls" if route.protocol == "https" else "http"
    further = [Listener(kind, "0.0.0.0", port) for port, kind in sorted(kinds.items())]  # noqa: S104
    return STANDARD + tuple(further[:MOST_FURTHER])
