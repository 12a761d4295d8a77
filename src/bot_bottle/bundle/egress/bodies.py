"""Carrying one message's body from one wire to another, piece by piece, framed anew."""

import asyncio
import re

from bot_bottle.bundle.egress.heads import BadMessage, Body
from bot_bottle.bundle.egress.wire import CHUNK, Ended, Wire

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_LINE = 8 * 1024
_TRAILERS = 32


class SinkFailed(Exception):
    """The side that was written to failed, not the one that was read from."""


async def carry(source: Wire, target: Wire, framing: Body, *, chunked: bool) -> None:
    """Carries the body that `framing` describes; written in chunks or as it is.

    Each piece goes on as it comes, and no more is read before it has gone. Raises BadMessage when the framing breaks, Ended
    when the source ends too early, TimeoutError and OSError when it fails, SinkFailed when the target does.
    """
    if framing.chunked:
        await _from_chunks(source, target, chunked=chunked)
    elif framing.until_close:
        while data := await source.some():
            await _put(target, data, chunked=chunked)
    else:
        await _exactly(framing.length, source, target, chunked=chunked)
    if chunked:
        await _write(target, b"0\r\n\r\n")


async def _exactly(length: int, source: Wire, target: Wire, *, chunked: bool) -> None:
    left = length
    while left:
        data = await source.some(min(left, CHUNK))
        if not data:
            raise Ended(clean=False)
        await _put(target, data, chunked=chunked)
        left -= len(data)


async def _from_chunks(source: Wire, target: Wire, *, chunked: bool) -> None:
    while True:
        size = await source.line(limit=_LINE)
        if _SIZE.fullmatch(size) is None:  # a chunk extension, too: readers disagree on where those end
            raise BadMessage("a malformed chunk size")
        length = int(size, 16)
        if not length:
            break
        await _exactly(length, source, target, chunked=chunked)
        if await source.line(limit=2):
            raise BadMessage("a chunk that is longer than it says")
    for _ in range(_TRAILERS):
        line = await source.line(limit=_LINE)
        if not line:
            return
        if _TRAILER.fullmatch(line) is None:
            raise BadMessage("a malformed trailer")
    raise BadMessage("too many trailers")


async def _put(target: Wire, data: bytes, *, chunked: bool) -> None:
    await _write(target, b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
    await asyncio.sleep(0)  # two sides that are always ready would let nobody else run


async def _write(target: Wire, data: bytes) -> None:
    try:
        await target.write(data)
    except (OSError, TimeoutError) as error:
        raise SinkFailed from error
