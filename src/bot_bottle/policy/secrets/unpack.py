"""Undoing compression, with an end to it: what a body unpacks to may be large, but not without bound.

What can't be unpacked whole (an unknown coding, a broken stream, one that is cut off, something behind its end) is
`Unreadable`: two readers could see different things in it.
"""

import zlib
from collections.abc import Sequence

import brotli

CODINGS = frozenset({"identity", "gzip", "x-gzip", "deflate", "br"})
GZIP = b"\x1f\x8b\x08"
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15
_MOST_CODINGS = 3
_PIECE = 16 * 1024
_MOST_STREAMS = 8


class Unreadable(Exception):
    """These bytes can't be looked into; the text says why."""


def unpack(data: bytes, codings: Sequence[str], *, limit: int) -> bytes:
    """`data` without `codings` (as Content-Encoding lists them), at most `limit` bytes at each step. Raises Unreadable."""
    applied = [coding for coding in codings if coding != "identity"]
    if len(applied) > _MOST_CODINGS:
        raise Unreadable("compressed too many times")
    for coding in reversed(applied):
        data = _without(data, coding, limit)
    return data


def _without(data: bytes, coding: str, limit: int) -> bytes:
    if coding in ("gzip", "x-gzip"):
        return _gzip(data, limit)
    if coding == "deflate":
        is_zlib = len(data) >= 2 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        return _whole(data, _ZLIB_BITS if is_zlib else _RAW_BITS, limit)
    if coding == "br":
        return _brotli(data, limit)
    raise Unreadable(f"compressed with {coding}")


def _gzip(data: bytes, limit: int) -> bytes:
    """All members of a gzip stream."""
    made: list[bytes] = []
    while data:
        member, data = _inflate(data, _GZIP_BITS, limit - sum(map(len, made)))
        made.append(member)
    if not made:
        raise Unreadable("an empty gzip stream")
    return b"".join(made)


def _whole(data: bytes, bits: int, limit: int) -> bytes:
    made, rest = _inflate(data, bits, limit)
    if rest:
        raise Unreadable("bytes behind the compressed data")
    return made


def _inflate(data: bytes, bits: int, limit: int) -> tuple[bytes, bytes]:
    """One stream unpacked, and what stands behind it."""
    stream = zlib.decompressobj(bits)
    try:
        made = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise Unreadable("broken compressed data") from error
    if len(made) > limit:
        raise Unreadable("compressed data that unpacks to too much")
    if not stream.eof:
        raise Unreadable("compressed data that is cut off")
    return made, stream.unused_data


def _brotli(data: bytes, limit: int) -> bytes:
    stream = brotli.Decompressor()
    made: list[bytes] = []
    size = 0
    try:
        for at in range(0, len(data), _PIECE):
            if stream.is_finished():
                raise Unreadable("bytes behind the compressed data")
            piece = stream.process(data[at : at + _PIECE], output_buffer_limit=limit + 1 - size)
            while piece:
                made.append(piece)
                size += len(piece)
                if size > limit:
                    raise Unreadable("compressed data that unpacks to too much")
                piece = (
                    b""
                    if stream.can_accept_more_data()
                    else stream.process(b"", output_buffer_limit=limit + 1 - size)
                )
    except brotli.error as error:
        raise Unreadable("broken compressed data") from error
    if not stream.is_finished():
        raise Unreadable("compressed data that is cut off")
    return b"".join(made)


def embedded(view: bytes, *, limit: int) -> bytes | None:
    """What the first gzip streams within `view` unpack to, as far as they do; None when there is none.

    Raises Unreadable when that is more than `limit`.
    """
    made: list[bytes] = []
    at = view.find(GZIP)
    for _ in range(_MOST_STREAMS):
        if at < 0:
            break
        stream = zlib.decompressobj(_GZIP_BITS)
        try:
            text = stream.decompress(memoryview(view)[at:], limit + 1)
        except zlib.error:
            text = b""  # these three bytes began no stream
        made.append(text)
        limit -= len(text)
        if limit < 0:
            raise Unreadable("compressed data that unpacks to too much")
        at = view.find(GZIP, len(view) - len(stream.unused_data) if stream.eof else at + 1)
    return b"\x1c".join(made) if any(made) else None
