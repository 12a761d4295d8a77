"""What the keeper gives the bundle when it forks it, as data."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from bot_bottle.door.model import Listener
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.secret import Secret
from bot_bottle.typed import Any, Literal, NamedTuple

AUTHORITY_PLACES = 16
"""How many authorities of a bottle programs find that look them up by name: the places are made before they are."""


def authority_name(number: int) -> str:
    """The whole name (its common name) of the authority that a bundle makes as its `number`th, from 0."""
    return f"bot-bottle {number}"


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
    proxy_seconds: float = 30.0
    """For a proxy to dial an upstream and to say so."""
    head_bytes: int = 64 * 1024
    headers: int = 200
    names: int = 4096
    """Names below wildcards that get an address of their own."""
    holds: int = 8
    """Questions that wait for a person at once."""
    hold_seconds: float = 120.0
    """For a person to answer one."""


class Proxy(NamedTuple):
    """An HTTP proxy on the way to upstreams. With `tls` TLS is spoken to it; `authorization` is what it is told."""

    host: str
    port: int
    tls: bool = False
    authorization: Secret | None = None


class UpstreamProxy(NamedTuple):
    """The proxy for each protocol, where there is one; `direct` are the entries of NO_PROXY."""

    https: Proxy | None = None
    http: Proxy | None = None
    tcp: Proxy | None = None
    direct: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON-able data, logins in plain: for the keeper's own socket to the bundle, nothing else."""
        plain = {name: _plain(one) for name, one in zip(self._fields[:3], self[:3], strict=True)}
        return {**plain, "direct": self.direct}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "UpstreamProxy":
        """What `document` gave. Raises KeyError, ValueError or TypeError when it is something else."""
        https, http, tcp = (_proxy(document[name]) for name in cls._fields[:3])
        return cls(https, http, tcp, tuple(document["direct"]))


def _plain(proxy: Proxy | None) -> list[Any] | None:
    if proxy is None:
        return None
    return [*proxy[:3], proxy.authorization.reveal() if proxy.authorization else None]


def _proxy(plain: list[Any] | None) -> Proxy | None:
    if plain is None:
        return None
    host, port, tls, login = plain
    return Proxy(host, port, tls, Secret(login) if login else None)


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
    authorities: str = ""
    """Certificate authorities (PEM) that upstreams are trusted by, beside the system's."""
    proxy: UpstreamProxy | None = None
    limits: BundleLimits = BundleLimits()
    engine_port: int = 0
    """Where on loopback the engine listens through which upstreams are dialled; 0 when there is none."""
    first_name: int = 0
    """Where in the pool of addresses for names this bundle begins: one that follows another in the same bottle gives none of
    that one's addresses to another name."""
    supervised: bool = False
    """Whether there is somebody who can be asked for what waits."""
    spent: tuple[str, ...] = ()
    """Approvals for one use that were used under a bundle before this one."""

    @property
    def needs_tls(self) -> bool:
        """Whether the bundle itself has to speak TLS to somebody."""
        if self.proxy is not None and any(one is not None and one.tls for one in self.proxy[:3]):
            return True
        to_tls = any(route.upstream is not None and route.upstream.tls for route in self.policy.routes)
        return to_tls or _intercepts_any(self.policy)

    @property
    def needs_guard(self) -> bool:
        """Whether there is anything to look for in what goes out or comes back."""
        return self.policy.secrets is not None or bool(self.credentials)

    def document(self) -> dict[str, Any]:
        """Everything as JSON-able data, the credentials in plain: for the keeper's own socket to the bundle, nothing else."""
        return {
            **self._asdict(),
            "policy": self.policy.document(),
            "credentials": {name: item.document() for name, item in self.credentials.items()},
            "sensitive": [secret.reveal() for secret in self.sensitive],
            "proxy": self.proxy.document() if self.proxy else None,
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
            "spent": tuple(document["spent"]),
            "proxy": UpstreamProxy.from_document(document["proxy"]) if document["proxy"] else None,
            "limits": BundleLimits(**document["limits"]),
        }
        return cls(**{**document, **made})


def cannot_become(config: BundleConfig, policy: EgressPolicy) -> str:
    """Why a bundle that was started with `config` can't take on `policy` while it runs; empty when it can.

    A confined process can't load code or be given secrets that it was not started with.
    """
    becoming = config._replace(policy=policy)
    if becoming.needs_tls and not config.needs_tls:
        return "it needs TLS of the bundle's own, which this bundle was started without"
    if _intercepts_any(policy) and not _intercepts_any(config.policy):
        return "it needs a certificate authority of the bottle's own, which this bundle was started without"
    if becoming.needs_guard and not config.needs_guard:
        return "it searches what goes out for secrets, and this bundle was started without what does that"
    named = {route.credential for route in policy.routes if route.credential is not None}
    if unknown := sorted(named.difference(config.credentials)):
        return f"it names credentials that this bundle does not have: {', '.join(unknown)}"
    return ""


def _intercepts_any(policy: EgressPolicy) -> bool:
    from bot_bottle.policy.egress import intercepts_any  # takes 2 ms, and a keeper may never ask

    return intercepts_any(policy)
