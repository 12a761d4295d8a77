"""The switch of a connection to WebSocket: what the agent asks for, what the upstream is asked for, and whether it did it. Pure.

Keys, versions and extensions are written anew: the upstream's proof that it has understood is for a key of ours, the agent's
for the agent's. An upstream that only looks as if it had switched would take frames for requests.
"""

import binascii
import os
import re

from bot_bottle.bundle.egress.denial import Refusal
from bot_bottle.bundle.egress.heads import (
    BadMessage,
    Headers,
    Request,
    Response,
    end_to_end,
    listed,
    request_body,
    values,
)
from bot_bottle.typed import NamedTuple

try:
    from _sha1 import sha1  # type: ignore[import-not-found,unused-ignore]  # without OpenSSL, like `digest.py`
except ImportError:
    from hashlib import sha1  # type: ignore[no-redef,unused-ignore]

_APPENDED = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = b"13"
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DEFLATE = re.compile(
    rb"permessage-deflate(?:[ \t]*;[ \t]*(?:(?:server|client)_no_context_takeover"
    rb"|(?:server|client)_max_window_bits(?:[ \t]*=[ \t]*\"?(?:8|9|1[0-5])\"?)?))*"
)
_MOST_PROTOCOLS = 32
FIELDS = frozenset(
    b"sec-websocket-key sec-websocket-accept sec-websocket-version sec-websocket-extensions".split()
)
"""What is never passed on as it came. Subprotocols are the request's own, to be judged and looked at like its other fields."""


class Offer(NamedTuple):
    """What the agent asks for: its `key`, `protocols`, and the offers to compress (`deflate`) that are understood here."""

    key: bytes
    protocols: tuple[bytes, ...]
    deflate: tuple[bytes, ...]


class Switch(NamedTuple):
    """What the upstream is asked for, with the `key` that it must answer to."""

    offer: Offer
    key: bytes
    deflate: tuple[bytes, ...]


class Switched(NamedTuple):
    """That it did: the fields of its answer for the agent, and whether messages may be compressed."""

    headers: Headers
    deflate: bool


def read_offer(request: Request) -> Offer | None:
    """The agent's wish to switch to WebSocket; None for none. Raises Refusal for every other switch, and a malformed one."""
    wanted = listed(request.headers, b"upgrade") - {b"h2c"}
    if not wanted or b"upgrade" not in listed(request.headers, b"connection"):
        return None
    if wanted != {b"websocket"} or values(request.headers, b"upgrade") != [_only(request, b"upgrade")]:
        raise Refusal(
            501, "upgrade_refused", "A connection can be switched to WebSocket here, and to nothing else."
        )
    if _only(request, b"sec-websocket-version") != _VERSION:
        raise Refusal(426, "websocket_version", "Only version 13 of WebSocket is spoken here.")
    key = _only(request, b"sec-websocket-key")
    if request.method != b"GET" or request.minor != 1 or _KEY.fullmatch(key) is None or _has_body(request):
        raise Refusal(400, "bad_websocket", "Not a well-formed request for a WebSocket.")
    protocols = _list(request.headers, b"sec-websocket-protocol")
    if len(protocols) > _MOST_PROTOCOLS or not all(map(_TOKEN.fullmatch, protocols)):
        raise Refusal(400, "bad_websocket", "The WebSocket's subprotocols are malformed.")
    offers = _list(request.headers, b"sec-websocket-extensions")
    return Offer(key, protocols, tuple(offer for offer in offers if _DEFLATE.fullmatch(offer)))


def switch(offer: Offer, *, readable: bool) -> Switch:
    """What to ask the upstream for. `readable`: messages have to be looked at, so nobody may compress them."""
    key = binascii.b2a_base64(os.urandom(16), newline=False)
    return Switch(offer, key, () if readable else offer.deflate)


def fields(asked: Switch) -> Headers:
    """The fields that ask the upstream."""
    made = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", _VERSION),
        (b"sec-websocket-key", asked.key),
    ]
    if asked.deflate:
        made.append((b"sec-websocket-extensions", b", ".join(asked.deflate)))
    return made


def check(response: Response, asked: Switch) -> Switched:
    """Whether `response` (a 101) is the switch that was asked for. Raises BadMessage when it is any other."""
    headers = response.headers
    if values(headers, b"upgrade") == [] or listed(headers, b"upgrade") != {b"websocket"}:
        raise BadMessage("a switch to something else than WebSocket")
    if b"upgrade" not in listed(headers, b"connection"):
        raise BadMessage("a switch that is none")
    if values(headers, b"sec-websocket-accept") != [_accept(asked.key)]:
        raise BadMessage("a switch that answers another request")
    if values(headers, b"content-length") or values(headers, b"transfer-encoding"):
        raise BadMessage("a switch with a body")
    protocols = values(headers, b"sec-websocket-protocol")
    if len(protocols) > 1 or not set(protocols) <= set(asked.offer.protocols):
        raise BadMessage("a subprotocol that was not asked for")
    extensions = _list(headers, b"sec-websocket-extensions")
    if len(extensions) > (1 if asked.deflate else 0) or not all(map(_DEFLATE.fullmatch, extensions)):
        raise BadMessage("an extension that was not asked for")
    made = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-accept", _accept(asked.offer.key)),
        *((b"sec-websocket-extensions", extension) for extension in extensions),
    ]
    return Switched([*made, *end_to_end(headers, without=FIELDS)], bool(extensions))


def _accept(key: bytes) -> bytes:
    digest = sha1(key + _APPENDED).digest()  # noqa: S324 - RFC 6455 says so; it proves understanding, not identity
    return binascii.b2a_base64(digest, newline=False)


def _only(request: Request, name: bytes) -> bytes:
    found = values(request.headers, name)
    return found[0] if len(found) == 1 else b""


def _list(headers: Headers, name: bytes) -> tuple[bytes, ...]:
    items = (item.strip(b" \t") for value in values(headers, name) for item in value.split(b","))
    return tuple(item for item in items if item)


def _has_body(request: Request) -> bool:
    try:
        return request_body(request) is not None
    except BadMessage:
        return True
