"""Putting a credential into a request on its way to the upstream: after everything was judged and looked at, and only there.

Whatever the agent sent in its place goes, and so does every other usual way of saying who one is: an upstream that takes
several must not be told by the agent that it is somebody else.
"""

import re
from functools import lru_cache

from bot_bottle.bundle.egress.heads import Headers
from bot_bottle.bundle.model import Injection

IDENTIFYING = frozenset(
    b"authorization cookie x-api-key api-key x-goog-api-key x-auth-token x-access-token private-token job-token"
    b" x-amz-security-token".split()
)
"""Fields that say who sends the request."""

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_TO_ESCAPE = re.compile(rb"[^A-Za-z0-9._~-]")


def inject(target: bytes, headers: Headers, credential: Injection) -> tuple[bytes, Headers]:
    """`target` and `headers` with `credential` in the place of whatever the agent put there."""
    name = credential.name.encode("ascii")
    value = credential.value.reveal().encode()
    if credential.kind == "query":
        return _with_parameter(target, name, value), _anonymous(headers, IDENTIFYING)
    return target, [*_anonymous(headers, _replaced(name)), (name, value)]


@lru_cache(maxsize=64)
def _replaced(name: bytes) -> frozenset[bytes]:
    return IDENTIFYING | {_folded(name)}


def _anonymous(headers: Headers, gone: frozenset[bytes]) -> Headers:
    return [one for one in headers if _folded(one[0]) not in gone]


def _folded(name: bytes) -> bytes:
    """A field's name as servers that make variables of it read it: `x_api_key` is `X-Api-Key` there."""
    return name.lower().replace(b"_", b"-")


def _with_parameter(target: bytes, name: bytes, value: bytes) -> bytes:
    """`target` with that parameter once, at its end; a parameter is the agent's in every spelling and case of its name."""
    path, _, query = target.partition(b"?")
    kept = [part for part in query.split(b"&") if part and not _is_called(part, name.lower())]
    return path + b"?" + b"&".join([*kept, name + b"=" + _quoted(value)])


def _is_called(part: bytes, name: bytes) -> bool:
    """Whether any of the readings of `part` is a parameter of that name: some split at `;`, too."""
    return any(
        _unquoted(piece.partition(b"=")[0]).strip().lower() == name for piece in (part, *part.split(b";"))
    )


def _quoted(text: bytes) -> bytes:
    return _TO_ESCAPE.sub(lambda found: b"%%%02X" % found[0][0], text)


def _unquoted(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text.replace(b"+", b" "))
