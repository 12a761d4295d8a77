"""Which host a plain HTTP request is for: its target, its Host and the connection it came on must say the same. Pure."""

import re
from collections.abc import Callable
from functools import lru_cache

from bot_bottle.bundle.egress.denial import Refusal
from bot_bottle.bundle.egress.heads import Request, values
from bot_bottle.policy.egress import canonical_host
from bot_bottle.policy.hosts import MAX_HOST
from bot_bottle.typed import Literal, NamedTuple

_AUTHORITY = re.compile(r"([^:@/\\?#\[\]%\s]+)(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(rb"(?i:(http|https))://([^/?#]+)(/[^#]*|\?[^#]*)?")

_LONGEST = 4 * MAX_HOST
"""What is longer than any host's name, however it is written, and a port."""


class Authority(NamedTuple):
    """`host` as it was written; the policy canonicalises it."""

    host: str
    port: int


class Target(NamedTuple):
    """Where the request goes; `path` is the target in origin form."""

    host: str
    port: int
    path: bytes


class Entry(NamedTuple):
    """How the connection came in, for events, and what that says about its target.

    `fixed`: the only authority that it is for (inside CONNECT or TLS). `port` and `fits`: a transparent connection to that
    port, and whether the address that the agent dialled may be that host's. None of them: the proxy itself.
    """

    via: str
    fixed: Authority | None = None
    port: int = 80
    protocol: Literal["http", "https"] = "http"
    fits: Callable[[str], bool] | None = None

    @property
    def is_proxy(self) -> bool:
        return self.fixed is None and self.fits is None


def read_authority(text: bytes, default_port: int | None) -> Authority | None:
    """`HOST` or `HOST:PORT`; None for anything else. Userinfo, brackets and percent signs have no place in it."""
    return _authority(text, default_port) if len(text) <= _LONGEST else None


@lru_cache(maxsize=256)
def _authority(text: bytes, default_port: int | None) -> Authority | None:
    try:
        match = _AUTHORITY.fullmatch(text.decode("ascii"))
    except UnicodeDecodeError:
        return None
    if match is None:
        return None
    port = int(match[2]) if match[2] else default_port
    if port is None or not 0 < port < 65536:
        return None
    return Authority(match[1], port)


def find_target(request: Request, entry: Entry) -> Target:
    """Where `request` is for. Raises Refusal when that is not said exactly once and the same everywhere."""
    if entry.is_proxy:
        absolute = _absolute(request)
        _host_agrees(request, absolute, default_port=80)
        return absolute
    port = entry.fixed.port if entry.fixed else entry.port
    path = request.target
    if not (path.startswith(b"/") or (path == b"*" and request.method == b"OPTIONS")):
        raise Refusal(400, "bad_target", "A request here names its path only, not a whole URL.")
    if b"#" in path:
        raise Refusal(400, "bad_target", "A request's target has no fragment.")
    named = _one_host(request)
    authority = read_authority(named, port) if named is not None else None
    if authority is None:
        raise Refusal(400, "bad_host", "The request needs exactly one valid Host field.")
    if authority.port != port or not _belongs(authority, entry):
        raise Refusal(421, "name_mismatch", "The Host field names another host or port than the connection.")
    return Target(authority.host, port, path)


def _belongs(authority: Authority, entry: Entry) -> bool:
    host = canonical_host(authority.host)
    if host is None:
        return True  # no name at all: the policy refuses it, and says so better
    if entry.fixed is not None:
        return host == entry.fixed.host
    return entry.fits is not None and entry.fits(host)


def _absolute(request: Request) -> Target:
    match = _ABSOLUTE.fullmatch(request.target)
    if match is None:
        raise Refusal(400, "bad_target", "This is a proxy: it takes CONNECT, or a whole http:// URL.")
    if match[1].lower() == b"https":
        raise Refusal(400, "https_needs_connect", "For https:// URLs this proxy takes CONNECT.")
    authority = read_authority(match[2], 80)
    if authority is None:
        raise Refusal(400, "bad_target", "The URL's host or port is not valid.")
    path = match[3] or b"/"
    return Target(authority.host, authority.port, path if path.startswith(b"/") else b"/" + path)


def _host_agrees(request: Request, target: Target, *, default_port: int) -> None:
    named = _one_host(request)
    if named is None:
        if request.minor == 0 and not values(request.headers, b"host"):
            return
        raise Refusal(400, "bad_host", "The request needs exactly one Host field.")
    authority = read_authority(named, default_port)
    same = authority is not None and (
        authority.port == target.port and _spelling(authority.host) == _spelling(target.host)
    )
    if not same:
        raise Refusal(421, "name_mismatch", "The Host field and the URL name different hosts.")


def _spelling(host: str) -> str:
    return canonical_host(host) or host


def _one_host(request: Request) -> bytes | None:
    hosts = values(request.headers, b"host")
    return hosts[0] if len(hosts) == 1 else None
