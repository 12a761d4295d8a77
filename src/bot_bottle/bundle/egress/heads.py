"""The heads of HTTP/1 messages: strictly read, checked by a second parser, and written anew.

Two readers must agree on every head: the grammar here (RFC 9112 without its tolerances: no folding, no bare LF, no space
before a colon, no control character) and llhttp. What was read is never passed on as it came, but written from its parts.
"""

import re
from collections.abc import Set
from functools import lru_cache

import httptools

from bot_bottle.typed import NamedTuple

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, values without the space around them."""

END = b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD = re.compile(
    rb"(" + _TOKEN + rb"):[ \t]*([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?[ \t]*"
)
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_MOST_KEPT, _LONGEST_KEPT = 64, 512
"""Heads of CONNECT that are kept as they were read, and how many bytes each may have."""
_NOTHING: frozenset[bytes] = frozenset()
_MISSPELLED = frozenset((b"content_length", b"transfer_encoding"))
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer"
    b" transfer-encoding upgrade http2-settings content-length".split()
)


class BadMessage(Exception):
    """Not a message that two readers would understand alike; the text says what is wrong with it."""


class Request(NamedTuple):
    method: bytes
    target: bytes
    minor: int
    headers: Headers


class Response(NamedTuple):
    minor: int
    status: int
    phrase: bytes
    headers: Headers


class Body(NamedTuple):
    """How a message's body is framed: `length` bytes, or `chunked`, or (responses only) until the connection ends."""

    length: int = 0
    chunked: bool = False
    until_close: bool = False


NO_BODY = Body()


def has_bare_control(part: bytes, *, at_start: bool) -> bool:
    """Whether a head can be refused before it is whole: a LF without CR, a CR without LF, a NUL.

    What stands before the first byte of a `part` that is not at the start is unknown, so its LF is not judged.
    """
    return _BARE.search(part, 0 if at_start or not part.startswith(b"\n") else 1) is not None


def read_request(head: bytes, *, most: int) -> Request:
    """The request whose head is `head` (with the empty line), at most `most` fields. Raises BadMessage.

    Nobody may change its fields: a client says the same CONNECT for each connection to a host, so those are kept as they were read.
    """
    is_kept = len(head) <= _LONGEST_KEPT and head.startswith(b"CONNECT ")
    return _read_kept(head, most) if is_kept else _read_request(head, most)


def _read_request(head: bytes, most: int) -> Request:
    lines = head.removesuffix(END).split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise BadMessage("the request line is malformed")
    headers = _fields(lines[1:], most)
    second = _Second()
    _agree(second, httptools.HttpRequestParser(second), head, headers)
    return Request(line[1], line[2], int(line[3]), headers)


_read_kept = lru_cache(_MOST_KEPT)(_read_request)


def read_response(head: bytes, *, most: int) -> Response:
    """The response whose head is `head` (with the empty line), at most `most` fields. Raises BadMessage."""
    lines = head.removesuffix(END).split(b"\r\n")
    line = _STATUS_LINE.fullmatch(lines[0])
    if line is None:
        raise BadMessage("the status line is malformed")
    headers = _fields(lines[1:], most)
    second = _Second()
    _agree(second, httptools.HttpResponseParser(second), head, headers)
    return Response(int(line[1]), int(line[2]), line[3] or b"", headers)


def _fields(lines: list[bytes], most: int) -> Headers:
    if len(lines) > most:
        raise BadMessage("too many header fields")
    headers: Headers = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadMessage("a header field is malformed")
        headers.append((field[1].lower(), field[2] or b""))
    return headers


class _Second:
    """What llhttp saw."""

    def __init__(self) -> None:
        self.headers: Headers = []

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self.headers.append((name.lower(), (value or b"").strip(b" \t")))


def _agree(
    second: _Second,
    parser: "httptools.HttpRequestParser | httptools.HttpResponseParser",
    head: bytes,
    headers: Headers,
) -> None:
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:  # CONNECT, or an Upgrade field: the head itself was read
        pass
    except httptools.HttpParserError as error:
        raise BadMessage(f"not HTTP: {type(error).__name__}") from error
    if second.headers != headers:
        raise BadMessage("two readers understand the header fields differently")


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def listed(headers: Headers, name: bytes) -> Set[bytes]:
    """The members of a comma-separated field, in lower case."""
    found = values(headers, name)
    if not found:
        return _NOTHING
    return {item.strip(b" \t").lower() for value in found for item in value.split(b",")} - {b""}


def request_body(request: Request) -> Body | None:
    """How the request's body is framed, None for none. Raises BadMessage when two readers could see it differently."""
    return _framing(request.headers, request.minor)


def response_body(response: Response, method: bytes) -> Body:
    """How the body of the response to a `method` request is framed. Raises BadMessage."""
    framing = _framing(response.headers, response.minor)
    if method == b"HEAD" or response.status < 200 or response.status in (204, 304):
        return NO_BODY
    return framing or Body(until_close=True)


def _framing(headers: Headers, minor: int) -> Body | None:
    codings: list[bytes] = []
    lengths: list[bytes] = []
    for name, value in headers:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name in _MISSPELLED:  # to some servers the same as a dash
            raise BadMessage("the body's framing is written with an underscore")
    if codings and lengths:
        raise BadMessage("both Transfer-Encoding and Content-Length")
    if len(codings) > 1 or len(lengths) > 1:
        raise BadMessage("the body's framing stands twice")
    if codings:
        if codings[0].lower() != b"chunked" or minor == 0:
            raise BadMessage("a Transfer-Encoding other than chunked")
        return Body(chunked=True)
    if lengths:
        if _LENGTH.fullmatch(lengths[0]) is None:
            raise BadMessage("Content-Length is not a number")
        return Body(length=int(lengths[0]))
    return None


def end_to_end(headers: Headers, *, without: frozenset[bytes] = frozenset()) -> Headers:
    """The fields that go on: none that is for this hop only, and none that Connection names."""
    named = listed(headers, b"connection") | without
    return [field for field in headers if field[0] not in _HOP_BY_HOP and field[0] not in named]


def write_head(line: bytes, headers: Headers, body: Body | None) -> bytes:
    """A head from its parts; `body` None writes no framing at all."""
    parts = [line, *[name + b": " + value for name, value in headers]]
    if body is not None and body.chunked:
        parts.append(b"transfer-encoding: chunked")
    elif body is not None and not body.until_close:
        parts.append(b"content-length: %d" % body.length)
    return b"\r\n".join(parts) + END
