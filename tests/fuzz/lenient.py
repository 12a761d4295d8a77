"""A second reading of HTTP that shares no code with the product: as forgiving as the most forgiving server.

What arrived at an upstream is read in every way in which some server might read it; whatever any of them would take for a
request has to be one that the policy allows.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

_HEX = re.compile(rb"[0-9A-Fa-f]+")
_DIGITS = re.compile(rb"[0-9]+")
WAYS = ("chunks first", "first length", "last length", "no body")
"""By what a reader might say where a request's body ends."""


class Seen(NamedTuple):
    """A request as some server might understand it; `path` without dots, doubled slashes and percent signs."""

    method: bytes
    host: bytes
    path: bytes


def requests(stream: bytes) -> set[Seen]:
    """Everything in `stream` that any reader takes for a request."""
    found: set[Seen] = set()
    for way in WAYS[:3]:
        found.update(read(stream, way))
    return found


def read(stream: bytes, way: str) -> list[Seen]:
    """The requests that one kind of reader sees, in order."""
    found = []
    while stream:
        head, stream = _head(stream)
        lines = _unfolded(head)
        while lines and not lines[0].strip():
            lines.pop(0)
        if not lines:
            break
        fields = [
            (name.strip().lower(), value.strip()) for name, _, value in (f.partition(b":") for f in lines[1:])
        ]
        found.append(_seen(lines[0], fields))
        stream = _behind_body(stream, fields, way)
    return found


def _head(stream: bytes) -> tuple[bytes, bytes]:
    """Up to an empty line of any kind; what there is when none comes."""
    text = stream.lstrip(b"\r\n")
    end = re.search(rb"\r?\n\r?\n", text)
    return (text, b"") if end is None else (text[: end.start()], text[end.end() :])


def _unfolded(head: bytes) -> list[bytes]:
    return re.sub(rb"\r?\n[ \t]+", b" ", head).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def _seen(line: bytes, fields: list[tuple[bytes, bytes]]) -> Seen:
    method, _, rest = line.strip().partition(b" ")
    target = rest.strip().split(b" ")[0]
    hosts = [value for name, value in fields if name == b"host"] or [b""]
    absolute = re.match(rb"(?i)[a-z]+://([^/?#]*)(.*)", target, re.DOTALL)
    host = hosts[-1] if absolute is None else absolute[1]
    return Seen(
        method.upper(),
        host.rpartition(b"@")[2].lower(),
        plain_path(target if absolute is None else absolute[2]),
    )


def _behind_body(stream: bytes, fields: list[tuple[bytes, bytes]], way: str) -> bytes:
    codings = b",".join(
        value for name, value in fields if name.replace(b"_", b"-") == b"transfer-encoding"
    ).lower()
    lengths = [found[0] for name, value in fields if name.replace(b"_", b"-") == b"content-length"
               for found in _DIGITS.finditer(value)]  # fmt: skip
    if b"chunked" in codings and (way == "chunks first" or not lengths):
        return _behind_chunks(stream)
    if lengths:
        return stream[int(lengths[-1 if way == "last length" else 0]) :]
    return stream


def _behind_chunks(stream: bytes) -> bytes:
    while stream:
        line, _, stream = stream.partition(b"\n")
        size = _HEX.match(line.strip())
        if size is None:
            return stream
        length = int(size[0], 16)
        if not length:
            while stream:  # trailers
                line, _, stream = stream.partition(b"\n")
                if not line.strip():
                    break
            return stream
        stream = stream[length:].removeprefix(b"\r").removeprefix(b"\n")
    return stream


def plain_path(target: bytes) -> bytes:
    """The path as a server might look it up that undoes everything there is to undo."""
    path = re.split(rb"[?#]", target, maxsplit=1)[0]
    for _ in range(3):
        path = unquote_to_bytes(path)
    kept: list[bytes] = []
    for part in path.replace(b"\\", b"/").split(b"/"):
        part = part.partition(b";")[0].partition(b"\0")[0]
        if part == b"..":
            if kept:
                kept.pop()
        elif part not in (b"", b"."):
            kept.append(part)
    return b"/" + b"/".join(kept)


def statuses(stream: bytes) -> list[int]:
    """The final responses in what an agent got, as a forgiving client reads them when each has a body of its framing."""
    found = []
    while match := re.match(rb"HTTP/\d\.\d (\d{3})[^\n]*\n", stream):
        head, stream = _head(stream)
        fields = [(name.strip().lower(), value.strip())
                  for name, _, value in (line.partition(b":") for line in _unfolded(head)[1:])]  # fmt: skip
        status = int(match[1])
        if status >= 200:
            found.append(status)
            stream = stream if status in (204, 304) else _behind_body(stream, fields, "chunks first")
    return found
