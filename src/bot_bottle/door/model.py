"""The door's listeners as data: what is opened inside the bottle's network namespace and served by the bundle outside."""

from typing import Literal, NamedTuple

ListenerKind = Literal["proxy", "http", "tls", "dns-udp", "dns-tcp", "tcp"]

PROXY_ADDRESS = "127.0.0.1"
PROXY_PORT = 3128
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
