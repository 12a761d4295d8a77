"""The heads of HTTP/2 messages: strictly read, and written anew. Pure.

Whether a name or value may stand in a head is decided by the grammar of HTTP/1, which is the narrower one: nothing in here
could become two fields, or two requests, for somebody who translates it further on.
"""

import re
from typing import NamedTuple

from bot_bottle.bundle.egress.heads import BadMessage, Body, Headers, end_to_end, values

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH = re.compile(rb"/[\x21-\x22\x24-\x7e]*")
_STATUS = re.compile(rb"[2-5][0-9][0-9]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_NOT_HERE = frozenset(
    b"connection keep-alive proxy-connection transfer-encoding upgrade http2-settings".split()
)
_NEVER_FORWARDED = frozenset((b"host", b"expect"))


class RequestHead(NamedTuple):
    """`headers` are the fields that go on; `length` that of the body, where it was said; `trailers`: the sender takes some."""

    method: bytes
    authority: bytes
    path: bytes
    headers: Headers
    length: int | None
    trailers: bool

    @property
    def is_grpc(self) -> bool:
        kinds = values(self.headers, b"content-type")
        return len(kinds) == 1 and kinds[0].lower().startswith(b"application/grpc")

    @property
    def body(self) -> Body:
        """How a body would be framed in HTTP/1."""
        return Body(chunked=True) if self.length is None else Body(length=self.length)


class ResponseHead(NamedTuple):
    status: int
    headers: Headers
    length: int | None


def read_request(fields: Headers, *, most: int) -> RequestHead:
    """Raises BadMessage."""
    pseudo, headers = _apart(fields, most)
    if set(pseudo) != _PSEUDO:
        raise BadMessage("a request without its method, scheme, authority and path, or with more than that")
    method, path = pseudo[b":method"], pseudo[b":path"]
    if _METHOD.fullmatch(method) is None or method == b"CONNECT" or pseudo[b":scheme"] != b"https":
        raise BadMessage("a method or scheme that has no place here")
    if _PATH.fullmatch(path) is None and not (path == b"*" and method == b"OPTIONS"):
        raise BadMessage("a malformed path")
    if any(host != pseudo[b":authority"] for host in values(headers, b"host")):
        raise BadMessage("a Host field that differs from :authority")
    te = values(headers, b"te")
    if te not in ([], [b"trailers"]):
        raise BadMessage("a TE field other than trailers")
    onward = end_to_end(headers, without=_NEVER_FORWARDED)
    return RequestHead(method, pseudo[b":authority"], path, onward, _length(headers), bool(te))


def read_response(fields: Headers, *, most: int) -> ResponseHead:
    """Raises BadMessage."""
    pseudo, headers = _apart(fields, most)
    status = pseudo.get(b":status", b"")
    if len(pseudo) != 1 or _STATUS.fullmatch(status) is None:
        raise BadMessage("a response without a status")
    return ResponseHead(int(status), end_to_end(headers), _length(headers))


def read_trailers(fields: Headers, *, most: int) -> Headers:
    """Raises BadMessage."""
    pseudo, headers = _apart(fields, most)
    if pseudo:
        raise BadMessage("trailers that are a head")
    return end_to_end(headers)


def request_fields(
    method: bytes, authority: bytes, target: bytes, headers: Headers, *, length: int | None, trailers: bool
) -> Headers:
    """A request's head as it goes on."""
    made = [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", authority),
        (b":path", target),
        *headers,
    ]
    if trailers:
        made.append((b"te", b"trailers"))
    if length is not None:
        made.append((b"content-length", b"%d" % length))
    return made


def response_fields(head: ResponseHead) -> Headers:
    """A response's head as it goes on."""
    made = [(b":status", b"%d" % head.status), *head.headers]
    if head.length is not None:
        made.append((b"content-length", b"%d" % head.length))
    return made


def _apart(fields: Headers, most: int) -> tuple[dict[bytes, bytes], Headers]:
    if len(fields) > most:
        raise BadMessage("too many header fields")
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    for name, value in fields:
        name, value = bytes(name), bytes(value)
        if _VALUE.fullmatch(value) is None:
            raise BadMessage("a malformed field")
        if name.startswith(b":"):
            if headers or name in pseudo:
                raise BadMessage("a pseudo-header where none may stand")
            pseudo[name] = value
            continue
        if _NAME.fullmatch(name) is None or name in _NOT_HERE:
            raise BadMessage("a field that has no place in HTTP/2")
        headers.append((name, value))
    return pseudo, headers


def _length(headers: Headers) -> int | None:
    lengths = values(headers, b"content-length")
    if not lengths:
        return None
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise BadMessage("Content-Length is not one number")
    return int(lengths[0])
