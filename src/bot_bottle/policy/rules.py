"""Whether one request keeps to the rules of one route: its methods, paths and headers. Pure and total, in linear time."""

from collections.abc import Iterable, Sequence

from bot_bottle.policy.model import HeaderMatch, Route
from bot_bottle.policy.paths import glob_matches, path_matches

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case; those that go on to the upstream."""

_METHOD_OVERRIDES = frozenset((b"x-http-method-override", b"x-http-method", b"x-method-override"))
_PATH_OVERRIDES = frozenset(
    b"x-original-url x-rewrite-url x-original-uri x-forwarded-uri x-http-path-override x-http-destinationurl"
    b" x-waws-unencoded-url".split()
)
"""Headers by which some servers take another method or path than the request line's."""


def objection(route: Route, method: str, path: str | None, headers: Headers) -> str:
    """Why `route` does not allow this request; empty when it does."""
    if route.methods and method not in route.methods:
        return "method_not_allowed"
    if route.paths and path is None:
        return "bad_path"
    if route.paths and not any(path_matches(pattern, path or "") for pattern in route.paths):
        return "path_not_allowed"
    if route.has_rules and _is_overridden(route, headers):
        return "override_not_allowed"
    return "" if all(_has(headers, header) for header in route.headers) else "header_not_allowed"


def looked_at(routes: Iterable[Route]) -> frozenset[bytes]:
    """The names of the headers (with `-` for `_`) that count for any of `routes`: no other changes what is objected to."""
    names: set[bytes] = set()
    for route in routes:
        names.update(_folded(header.name.encode("latin-1", "replace")) for header in route.headers)
        names.update((_METHOD_OVERRIDES if route.methods else ()), (_PATH_OVERRIDES if route.paths else ()))
    return frozenset(names)


def _is_overridden(route: Route, headers: Headers) -> bool:
    for name, value in headers:
        name = _folded(name)
        if route.methods and name in _METHOD_OVERRIDES and value.decode("latin-1") not in route.methods:
            return True
        if route.paths and name in _PATH_OVERRIDES:
            return True
    return False


def _has(headers: Headers, wanted: HeaderMatch) -> bool:
    """Whether the header is there, and each time with a value that matches: servers differ on which of several counts."""
    name, pieces = _folded(wanted.name.encode("latin-1", "replace")), tuple(wanted.pattern.split("*"))
    found = [value.decode("latin-1") for given, value in headers if _folded(given) == name]
    return bool(found) and all(glob_matches(pieces, value) for value in found)


def _folded(name: bytes) -> bytes:
    """A header's name as servers that make variables of it read it."""
    return name.lower().replace(b"_", b"-")
