"""What a bottle may reach, as data. Frozen, without I/O; planning makes it, the bundle enforces it, `plan` prints it."""

import json
from collections.abc import Mapping

from bot_bottle.digest import sha256_hex
from bot_bottle.typed import Any, Literal, NamedTuple

Protocol = Literal["https", "http", "tcp"]
Mode = Literal["enforce", "observe"]
Engine = Literal["builtin", "pipelock"]
OnMatch = Literal["hold", "redact", "block"]
Oversize = Literal["block", "pass"]
MIB = 2**20
MOST_ASKED = 200
"""Patterns under `ask:`."""


class Upstream(NamedTuple):
    """Where a route's connections really go, instead of to its name: the bottle file itself named it.

    This is the one exception to the refusal of private addresses. With `tls` the bundle speaks TLS to it (the agent speaks
    plain HTTP on the door), verified against `server_name`.
    """

    host: str
    port: int
    tls: bool = False
    server_name: str = ""


class HeaderMatch(NamedTuple):
    """A header that a request must have: `name` in lower case; in `pattern` a `*` stands for any run of characters."""

    name: str
    pattern: str


class Route(NamedTuple):
    """One thing that is allowed: a host (exact, or `*.example.org` for every name below it, not itself) on one port.

    `methods`, `paths` and `headers` narrow it to requests that have one of the methods, one of the paths and all of the
    headers; empty means all. `scan` is whether what it carries may be opened and searched for secrets.

    `on_match` is what happens to a secret on this route, where that is not what `SecretsPolicy` says.
    `grant` is the id of the approval that it came by, empty for one of the bottle's file; with `once` it is for one connection
    or request. Neither is part of what it allows, so neither is shown of it.
    """

    host: str
    port: int
    protocol: Protocol = "https"
    upstream: Upstream | None = None
    credential: str | None = None
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    scan: bool = True
    on_match: OnMatch | None = None
    grant: str = ""
    once: bool = False

    @property
    def has_rules(self) -> bool:
        """Whether single requests have to be judged, and not only connections."""
        return bool(self.methods or self.paths or self.headers)

    def document(self) -> dict[str, Any]:
        """The route as JSON-able data."""
        return {
            **self._asdict(),
            "upstream": self.upstream._asdict() if self.upstream else None,
            "methods": list(self.methods),
            "paths": list(self.paths),
            "headers": [list(header) for header in self.headers],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Route":
        """What `document` gave. Raises KeyError or TypeError when it is something else."""
        upstream = document["upstream"]
        made = {
            "upstream": Upstream(**upstream) if upstream else None,
            "methods": tuple(document["methods"]),
            "paths": tuple(document["paths"]),
            "headers": tuple(HeaderMatch(*header) for header in document["headers"]),
        }
        return cls(**{**document, **made})


class SecretsPolicy(NamedTuple):
    """What happens when something that goes out has a secret in it, or is too large to be looked at.

    `limit` is how many bytes of one body are looked at whole; of a larger one `oversize` decides.
    """

    on_match: OnMatch = "block"
    oversize: Oversize = "block"
    limit: int = 32 * MIB


class EgressPolicy(NamedTuple):
    """Everything that is allowed; an empty one allows nothing. Without `secrets` nothing is searched.

    `ask` are hosts (as in routes) for which a person is asked what no route allows: it waits meanwhile. It allows nothing.
    """

    routes: tuple[Route, ...] = ()
    secrets: SecretsPolicy | None = None
    mode: Mode = "enforce"
    engine: Engine = "builtin"
    ask: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The policy as JSON-able data."""
        return {
            "routes": [route.document() for route in self.routes],
            "secrets": self.secrets._asdict() if self.secrets else None,
            "mode": self.mode,
            "engine": self.engine,
            "ask": list(self.ask),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "EgressPolicy":
        """What `document` gave. Raises KeyError or TypeError when it is something else."""
        secrets = document["secrets"]
        made = {
            "routes": tuple(Route.from_document(route) for route in document["routes"]),
            "secrets": SecretsPolicy(**secrets) if secrets else None,
            "ask": tuple(document["ask"]),
        }
        return cls(**{**document, **made})

    def fingerprint(self) -> str:
        """The SHA-256 of the policy's canonical JSON: what is acknowledged by whoever enforces it."""
        return sha256_hex(json.dumps(self.document(), sort_keys=True).encode())
