"""pipelock's config, rendered from a bottle's policy. Pure: the same policy and port give the same bytes.

It is JSON, which is YAML. Only keys that pipelock 2.3 knows stand in it: an unknown one would keep it from starting.
"""

import json
from typing import Any

from bot_bottle.digest import sha256_hex
from bot_bottle.policy.model import EgressPolicy, Route

NOBODY = "nothing.invalid"
"""pipelock refuses an empty list; this name can't exist (RFC 2606), and our proxy in front never asks for it."""

_LONGEST_URL = 64 * 1024
_IDLE_SECONDS, _TUNNEL_SECONDS = 3600, 7 * 24 * 3600
"""Our proxy ends what is idle; pipelock counts each direction by itself and would end a long answer."""


def goes_through(route: Route) -> bool:
    """Whether the route's connections go through pipelock: one with an `upstream:` goes straight where it says."""
    return route.upstream is None


def hosts(policy: EgressPolicy) -> tuple[str, ...]:
    """The names that pipelock may dial for `policy`, sorted, once each; `*.x` is to pipelock also `x`."""
    return tuple(sorted({route.host for route in policy.routes if goes_through(route)})) or (NOBODY,)


def render(policy: EgressPolicy, *, port: int, trusted: tuple[str, ...] = ()) -> bytes:
    """The whole file. `trusted` are names that may have a private address: for measuring on one machine."""
    document: dict[str, Any] = {
        "version": 1,
        "mode": "strict",
        "api_allowlist": list(hosts(policy)),
        "fetch_proxy": {
            "listen": f"127.0.0.1:{port}",
            "timeout_seconds": _IDLE_SECONDS,
            "monitoring": {"max_requests_per_minute": 0, "max_url_length": _LONGEST_URL},
        },
        "forward_proxy": {
            "enabled": True,
            "sni_verification": True,
            "max_tunnel_seconds": _TUNNEL_SECONDS,
            "idle_timeout_seconds": _IDLE_SECONDS,
        },
        "websocket_proxy": {"enabled": False},
        "request_body_scanning": {"enabled": True, "action": "block", "scan_headers": True},
        "response_scanning": {"enabled": True, "action": "block"},
        "dlp": {"include_defaults": True, "scan_env": False},
        "kill_switch": {"enabled": False},
        "logging": {"format": "json", "output": "stdout", "include_allowed": True, "include_blocked": True},
    }
    if trusted:
        document["trusted_domains"] = sorted(trusted)
    return json.dumps(document, indent=1).encode() + b"\n"


def fingerprint(config: bytes) -> str:
    """What pipelock calls its `config_hash`: the SHA-256 of the file's bytes."""
    return sha256_hex(config)
