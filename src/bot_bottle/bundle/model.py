"""What the keeper gives the bundle when it forks it, as data."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from bot_bottle.door.model import Listener
from bot_bottle.policy.egress import intercepts_any
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.secret import Secret


class Injection(NamedTuple):
    """A credential that is put into requests: as the header `name`, or as the URL's parameter `name`.

    `value` is what goes out (with its prefix), `secret` the bare secret. `placeholder` is what the agent holds instead, empty
    when it holds nothing. `renewable`: a new one can be had when the upstream does not take it any more.
    """

    kind: Literal["header", "query"]
    name: str
    value: Secret
    secret: Secret
    placeholder: str = ""
    renewable: bool = False

    def document(self) -> list[Any]:
        """As JSON-able data, in plain: for the keeper's own socket to the bundle, nothing else."""
        return [
            self.kind, self.name, self.value.reveal(), self.secret.reveal(), self.placeholder, self.renewable,
        ]  # fmt: skip

    @classmethod
    def from_document(cls, document: Sequence[Any]) -> "Injection":
        """What `document` gave. Raises ValueError or TypeError when it is something else."""
        kind, name, value, secret, placeholder, renewable = document
        return cls(kind, name, Secret(value), Secret(secret), placeholder, renewable)


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
    credentials: Mapping[str, Injection] = MappingProxyType({})
    sensitive: tuple[Secret, ...] = ()
    """What else must not leave."""
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
        return {
            **self._asdict(),
            "policy": self.policy.document(),
            "credentials": {name: item.document() for name, item in self.credentials.items()},
            "sensitive": [secret.reveal() for secret in self.sensitive],
            "limits": self.limits._asdict(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "BundleConfig":
        """What `document` gave. Raises KeyError or TypeError when it is something else."""
        made = {
            "policy": EgressPolicy.from_document(document["policy"]),
            "listeners": tuple(Listener(*item) for item in document["listeners"]),
            "credentials": {
                name: Injection.from_document(item) for name, item in document["credentials"].items()
            },
            "sensitive": tuple(Secret(value) for value in document["sensitive"]),
            "limits": BundleLimits(**document["limits"]),
        }
        return cls(**{**document, **made})
