"""What is compressed within a file, unpacked: zip members, gzip, zlib, bzip2 and xz streams, wherever in it they begin.

No archive's list of its members is believed: what is looked for are the streams themselves. Total, and bounded: a file that
unpacks to more than is looked at, or that can't be looked into, is said to be so.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from bot_bottle.bundle.gitgate.objects import Content

DEPTH = 3
"""Archives in archives that are unpacked."""
MEMBER = 64 << 20
"""Bytes that one stream may unpack to."""
TOTAL = 256 << 20
"""Bytes that everything in one file may unpack to."""
STREAMS = 20_000
"""Streams that are tried in one file."""
_SHORTEST = 12
_FIRST, _STEP = 1 << 12, 1 << 20
"""Bytes that a stream is given first, and at most, at a time: most of what looks like the beginning of one breaks off soon."""
_SIGN = re.compile(
    rb"PK\x03\x04|\x1f\x8b\x08|BZh[1-9]1AY&SY|\xfd7zXZ\x00|\x78[\x01\x5e\x9c\xda]|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07"
)
_CLOSED = {b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
"""What begins an archive that is not looked into; it counts where a file begins with it."""
_STORED, _DEFLATED, _BZIP2, _LZMA, _XZ = 0, 8, 12, 14, 95


class Unpacked(NamedTuple):
    """One stream: `inside` says where it was, such as `!docs/a.txt`. `problem` says what could not be looked into."""

    inside: str
    data: bytes
    problem: str = ""


class _Stream(Protocol):
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class Budget:
    """What one file may still unpack to."""

    def __init__(self) -> None:
        self.bytes = TOTAL
        self.streams = STREAMS


def unpacked(data: Content, budget: Budget, *, depth: int = DEPTH) -> Iterator[Unpacked]:
    """Every stream within `data`, and what is within those."""
    at = 0
    while (found := _SIGN.search(data, at)) is not None:
        start, at = found.start(), found.start() + 1
        budget.streams -= 1
        if budget.streams < 0 or budget.bytes <= 0:
            yield Unpacked("", b"", "it unpacks to more than is looked at")
            return
        closed = _CLOSED.get(found[0][:4])
        if closed is not None:
            if start == 0:
                yield Unpacked("", b"", f"it is packed with {closed}, which is not looked into")
            continue
        made = _unpack(data, start, found[0])
        if made is None:
            continue
        if made.problem:
            yield made
        if len(made.data) < _SHORTEST:
            continue
        budget.bytes -= len(made.data)
        yield made
        if depth > 1:
            for inner in unpacked(made.data, budget, depth=depth - 1):
                yield inner._replace(inside=made.inside + inner.inside)
        elif _SIGN.match(made.data):
            yield Unpacked(made.inside, b"", "it is packed too many times")


def _unpack(data: Content, start: int, sign: bytes) -> Unpacked | None:
    if sign.startswith(b"PK"):
        return _member(data, start)
    if sign.startswith(b"\x1f\x8b"):
        return _stream(lambda: zlib.decompressobj(31), data, start, "!gzip")
    if sign.startswith(b"BZ"):
        return _stream(bz2.BZ2Decompressor, data, start, "!bzip2")
    if sign.startswith(b"\xfd"):
        return _stream(lambda: lzma.LZMADecompressor(memlimit=MEMBER * 2), data, start, "!xz")
    return _stream(zlib.decompressobj, data, start, "!zlib")


def _member(data: Content, start: int) -> Unpacked | None:
    """What stands behind a zip member's own header."""
    if len(data) < start + 30:
        return None
    flags, method = (int.from_bytes(data[start + at : start + at + 2], "little") for at in (6, 8))
    name_size, extra = (int.from_bytes(data[start + at : start + at + 2], "little") for at in (26, 28))
    begin = start + 30 + name_size + extra
    inside = "!" + data[start + 30 : start + 30 + name_size][:200].decode("utf-8", "replace")
    if begin > len(data) or method > 99:
        return None  # four bytes that happened to be there
    if flags & 1:
        return Unpacked(inside, b"", "it is encrypted")
    if method == _STORED:
        return None  # it stands there as it is
    makers: dict[int, Callable[[], _Stream]] = {
        _DEFLATED: lambda: zlib.decompressobj(-15),
        _BZIP2: bz2.BZ2Decompressor,
        _XZ: lambda: lzma.LZMADecompressor(memlimit=MEMBER * 2),
    }
    if method in makers:
        return _stream(makers[method], data, begin, inside)
    return Unpacked(inside, b"", "it is packed in a way that is not looked into")


def _stream(make: Callable[[], _Stream], data: Content, start: int, inside: str) -> Unpacked | None:
    """What the stream that begins at `start` unpacks to, as far as it does; None when nothing begins there."""
    stream = make()
    made: list[bytes] = []
    size = 0
    at, step = start, _FIRST
    try:
        while at < len(data):
            piece = stream.decompress(data[at : at + step], MEMBER + 1 - size)
            at, step = at + step, min(2 * step, _STEP)
            made.append(piece)
            size += len(piece)
            if size > MEMBER:
                return Unpacked(inside, b"".join(made)[:MEMBER], "it unpacks to more than is looked at")
            if getattr(stream, "eof", False):
                break
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError):
        if not size:
            return None
    return Unpacked(inside, b"".join(made)) if size else None
