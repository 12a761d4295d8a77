"""Undoing compression, with an end to it: what a body unpacks to may be large, but not without bound.

What can't be unpacked whole (an unknown coding, a broken stream, one that is cut off, something behind its end) is
`Unreadable`: two readers could see different things in it. It is done bit by bit, so that others
can have their turn.
"""

import contextlib
import zlib
from collections.abc import Generator, Sequence
from typing import Final, TypeVar

import brotli

T = TypeVar("T")
Steps = Generator[int, None, T]
"""Unpacking bit by bit: after each one, how many bytes it took and made; at the end, the whole."""
CODINGS: Final = frozenset({"identity", "gzip", "x-gzip", "deflate", "br"})
GZIP: Final = b"\x1f\x8b\x08"
STEP: Final = 1 << 20
"""Bytes that one step may make; brotli's library takes it for a hint, and makes up to twice as many."""
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15
_MOST_CODINGS = 3
_PIECE = 16 * 1024
"""Bytes that one step takes."""
_MOST_STREAMS = 8
_MOST_MEMBERS = 4096
"""Of one gzip stream: each costs as much as a piece does, however small it is. What bgzip makes of 64 MiB has a quarter as many."""


class Unreadable(Exception):
    """These bytes can't be looked into; the text says why."""


def unpack(data: bytes, codings: Sequence[str], *, limit: int) -> Steps[bytes]:
    """`data` without `codings` (as Content-Encoding lists them), at most `limit` bytes at each one. Raises Unreadable."""
    applied = [coding for coding in codings if coding != "identity"]
    if len(applied) > _MOST_CODINGS:
        raise Unreadable("compressed too many times")
    for coding in reversed(applied):
        data = yield from _without(data, coding, limit)
    return data


def _without(data: bytes, coding: str, limit: int) -> Steps[bytes]:
    if coding in ("gzip", "x-gzip"):
        return (yield from _gzip(data, limit))
    if coding == "deflate":
        is_zlib = len(data) >= 2 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        stream = _Stream(data, 0, _ZLIB_BITS if is_zlib else _RAW_BITS)
        yield from stream.whole(limit)
        if stream.at < len(data):
            raise Unreadable("bytes behind the compressed data")
        return b"".join(stream.made)
    if coding == "br":
        return (yield from _brotli(data, limit))
    raise Unreadable(f"compressed with {coding}")


def _gzip(data: bytes, limit: int) -> Steps[bytes]:
    """All members of a gzip stream."""
    made: list[bytes] = []
    at = members = 0
    while at < len(data):
        if members == _MOST_MEMBERS:
            raise Unreadable("compressed in too many parts")
        member = _Stream(data, at, _GZIP_BITS)
        yield from member.whole(limit)
        made += member.made
        limit -= member.size
        at = member.at
        members += 1
    if not members:
        raise Unreadable("an empty gzip stream")
    return b"".join(made)


class _Stream:
    """One stream of `data`: what was `made` of it so far, `size` bytes, and where it is `at`: at last, behind its end."""

    def __init__(self, data: bytes, at: int, bits: int) -> None:
        self._data = memoryview(data)
        self._stream = zlib.decompressobj(bits)
        self.at, self.size = at, 0
        self.made: list[bytes] = []

    @property
    def is_complete(self) -> bool:
        return self._stream.eof

    def whole(self, limit: int) -> Steps[None]:
        """To its end. Raises Unreadable where there is none."""
        try:
            yield from self.steps(limit)
        except zlib.error as error:
            raise Unreadable("broken compressed data") from error
        if not self.is_complete:
            raise Unreadable("compressed data that is cut off")

    def steps(self, limit: int) -> Steps[None]:
        """As far as it goes. Raises Unreadable when that is more than `limit` bytes, zlib.error."""
        stream = self._stream
        while not stream.eof:
            given: bytes | memoryview = stream.unconsumed_tail
            if not given:
                given = self._data[self.at : self.at + _PIECE]
                self.at += len(given)
            piece = stream.decompress(given, min(STEP, limit + 1 - self.size))
            self.size += len(piece)
            if self.size > limit:
                raise Unreadable("compressed data that unpacks to too much")
            if piece:
                self.made.append(piece)
            elif not given:
                return
            yield len(given) + len(piece)
        self.at -= len(stream.unused_data)


def _brotli(data: bytes, limit: int) -> Steps[bytes]:
    stream = brotli.Decompressor()
    made: list[bytes] = []
    at = size = 0
    while not stream.is_finished():
        given = data[at : at + _PIECE] if stream.can_accept_more_data() else b""
        at += len(given)
        try:
            piece = stream.process(given, output_buffer_limit=min(STEP, limit + 1 - size))
        except brotli.error as error:
            raise Unreadable("broken compressed data") from error
        made.append(piece)
        size += len(piece)
        if size > limit:
            raise Unreadable("compressed data that unpacks to too much")
        if not given and not piece:
            raise Unreadable("compressed data that is cut off")
        yield len(given) + len(piece)
    if at < len(data):
        raise Unreadable("bytes behind the compressed data")
    return b"".join(made)


def embedded(view: bytes, *, limit: int) -> Steps[bytes | None]:
    """What the first gzip streams within `view` unpack to, as far as they do; None when there is none.

    Raises Unreadable when that is more than `limit`.
    """
    made: list[bytes] = []
    at = view.find(GZIP)
    for _ in range(_MOST_STREAMS):
        if at < 0:
            break
        stream = _Stream(view, at, _GZIP_BITS)
        with contextlib.suppress(zlib.error):  # perhaps these three bytes began no stream
            yield from stream.steps(limit)
        made.append(b"".join(stream.made))
        limit -= stream.size
        at = view.find(GZIP, stream.at if stream.is_complete else at + 1)
    return b"\x1c".join(made) if any(made) else None
