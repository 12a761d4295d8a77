"""The door's listeners as data: what is opened inside the bottle's network namespace and served by the bundle outside."""

from bot_bottle.policy.model import EgressPolicy
from bot_bottle.policy.ports import DNS_PORT, GIT_PORT, HTTP_PORT, SUPERVISE_PORT, TLS_PORT, further_ports
from bot_bottle.policy.ports import PROXY_PORT as PROXY_PORT
from bot_bottle.typed import Literal, NamedTuple

ListenerKind = Literal["proxy", "http", "tls", "dns-udp", "dns-tcp", "tcp", "supervise", "git"]

PROXY_ADDRESS = "127.0.0.1"
NAME_NETWORK = "198.18.0.0/15"
"""Addresses that the bottle's DNS gives to allowed names (RFC 2544, for benchmarks; nobody's on any network)."""


class Listener(NamedTuple):
    """One socket. `kind` is what is spoken there, unless the address that was dialled is that of a tcp route's name."""

    kind: ListenerKind
    address: str
    port: int


class Hatch(NamedTuple):
    """Where listeners go that can't come here, because they are on another kernel's: to whom is there behind `channel`.

    0 is whoever keeps the supervise server's; see `backends.base.Place`.
    """

    channel: int


STANDARD: tuple[Listener, ...] = (
    Listener("proxy", PROXY_ADDRESS, PROXY_PORT),
    Listener("http", "0.0.0.0", HTTP_PORT),  # noqa: S104 - inside a namespace that has only lo
    Listener("tls", "0.0.0.0", TLS_PORT),  # noqa: S104
    Listener("dns-udp", "0.0.0.0", DNS_PORT),  # noqa: S104
    Listener("dns-tcp", "0.0.0.0", DNS_PORT),  # noqa: S104
)
SUPERVISE = Listener("supervise", PROXY_ADDRESS, SUPERVISE_PORT)
"""Where the agent asks for help. It is not the bundle's: the keeper has it, and hands it to a process of its own."""
GIT = Listener("git", PROXY_ADDRESS, GIT_PORT)
"""Where the agent's git fetches and pushes. The keeper has it, as the one above."""
_KINDS: dict[str, ListenerKind] = {"https": "tls", "http": "http", "tcp": "tcp"}


def listeners_for(policy: EgressPolicy) -> tuple[Listener, ...]:
    """The standard listeners, and one for each further port of a route, so that clients without a proxy reach it, too.

    A port on which both are allowed is taken for TLS; plain HTTP on it goes through the proxy.
    """
    further = further_ports(policy).items()
    return STANDARD + tuple(Listener(_KINDS[kind], "0.0.0.0", port) for port, kind in further)  # noqa: S104
