"""What a bottle may reach, as data. Frozen, without I/O; planning makes it, the bundle enforces it, `plan` prints it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

Protocol = Literal["https", "http"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where a route's connections really go, instead of to its name: the bottle file itself named it.

    This is the one exception to the refusal of private addresses. With `tls` the bundle speaks TLS to it (the agent speaks
    plain HTTP on the door), verified against `server_name`.
    """

    host: str
    port: int
    tls: bool = False
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One thing that is allowed: a host (exact, or `*.example.org` for every name below it, not itself) on one port."""

    host: str
    port: int
    protocol: Protocol = "https"
    upstream: Upstream | None = None
    credential: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """Everything that is allowed; an empty one allows nothing."""

    routes: tuple[Route, ...] = ()

    def fingerprint(self) -> str:
        """The SHA-256 of the policy's canonical JSON: what is acknowledged by whoever enforces it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
