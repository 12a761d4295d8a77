"""What the keeper gives the bundle when it forks it, as data."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bot_bottle.door.model import Listener
from bot_bottle.policy.egress import intercepts_any
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.secret import Secret


class HeaderValue(NamedTuple):
    """A resolved credential: the header it goes out in, and its whole value (prefix included)."""

    header: str
    value: Secret


class BundleLimits(NamedTuple):
    """What one bottle may use of its bundle. Times in seconds, sizes in bytes."""

    connections: int = 1024
    """Open at once, over all listeners; further ones wait in the listeners' backlog."""
    files: int = 4096
    first_bytes_seconds: float = 15.0
    """For a request's head, or a TLS hello, to be there whole."""
    idle_seconds: float = 900.0
    """Without a byte in either direction of a plain request or tunnel."""
    keep_alive_seconds: float = 75.0
    """Between two requests of one connection."""
    dial_seconds: float = 10.0
    """For one address to answer."""
    resolve_seconds: float = 15.0
    head_bytes: int = 64 * 1024
    headers: int = 200
    names: int = 4096
    """Names below wildcards that get an address of their own."""


class BundleConfig(NamedTuple):
    """One bottle's bundle.

    `keeper` is the process id of the keeper, which must still be the parent. `credentials` has those that the policy's
    routes name, and no others. `uid` and `gid` are taken on when the keeper is root: nobody's, and not the agent's.
    """

    run: str
    keeper: int
    policy: EgressPolicy
    listeners: tuple[Listener, ...]
    uid: int
    gid: int
    bottle_file: str = ""
    """What a refusal names as the file in which the person would allow it."""
    credentials: Mapping[str, HeaderValue] = MappingProxyType({})
    limits: BundleLimits = BundleLimits()
    engine_port: int = 0
    """Where on loopback the engine listens through which upstreams are dialled; 0 when there is none."""

    @property
    def needs_tls(self) -> bool:
        """Whether the bundle itself has to speak TLS to somebody."""
        to_tls = any(route.upstream is not None and route.upstream.tls for route in self.policy.routes)
        return to_tls or intercepts_any(self.policy)

    def document(self) -> dict[str, Any]:
        """Everything as JSON-able data, the credentials in plain: for the keeper's own socket to the bundle, nothing else."""
        values = {name: [item.header, item.value.reveal()] for name, item in self.credentials.items()}
        return {
            **self._asdict(),
            "policy": self.policy.document(),
            "credentials": values,
            "limits": self.limits._asdict(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "BundleConfig":
        """What `document` gave. Raises KeyError or TypeError when it is something else."""
        values = document["credentials"].items()
        made = {
            "policy": EgressPolicy.from_document(document["policy"]),
            "listeners": tuple(Listener(*item) for item in document["listeners"]),
            "credentials": {name: HeaderValue(header, Secret(value)) for name, (header, value) in values},
            "limits": BundleLimits(**document["limits"]),
        }
        return cls(**{**document, **made})
