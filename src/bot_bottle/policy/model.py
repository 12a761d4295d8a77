"""What a bottle may reach, as data. Frozen, without I/O; planning makes it, the bundle enforces it, `plan` prints it."""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from bot_bottle.digest import sha256_hex

Protocol = Literal["https", "http"]


class Upstream(NamedTuple):
    """Where a route's connections really go, instead of to its name: the bottle file itself named it.

    This is the one exception to the refusal of private addresses. With `tls` the bundle speaks TLS to it (the agent speaks
    plain HTTP on the door), verified against `server_name`.
    """

    host: str
    port: int
    tls: bool = False
    server_name: str = ""


class Route(NamedTuple):
    """One thing that is allowed: a host (exact, or `*.example.org` for every name below it, not itself) on one port."""

    host: str
    port: int
    protocol: Protocol = "https"
    upstream: Upstream | None = None
    credential: str | None = None

    def document(self) -> dict[str, Any]:
        """The route as JSON-able data."""
        return {**self._asdict(), "upstream": self.upstream._asdict() if self.upstream else None}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Route":
        """What `document` gave. Raises KeyError or TypeError when it is something else."""
        upstream = document["upstream"]
        return cls(**{**document, "upstream": Upstream(**upstream) if upstream else None})


class EgressPolicy(NamedTuple):
    """Everything that is allowed; an empty one allows nothing."""

    routes: tuple[Route, ...] = ()

    def document(self) -> dict[str, Any]:
        """The policy as JSON-able data."""
        return {"routes": [route.document() for route in self.routes]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "EgressPolicy":
        """What `document` gave. Raises KeyError or TypeError when it is something else."""
        return cls(routes=tuple(Route.from_document(route) for route in document["routes"]))

    def fingerprint(self) -> str:
        """The SHA-256 of the policy's canonical JSON: what is acknowledged by whoever enforces it."""
        return sha256_hex(json.dumps(self.document(), sort_keys=True).encode())
