"""Carrying one message's body from one wire to another, piece by piece, framed anew."""

import asyncio
import re
from collections.abc import Callable

from bot_bottle.bundle.egress.heads import NO_BODY, BadMessage, Body
from bot_bottle.bundle.egress.hooks import Filter
from bot_bottle.bundle.egress.wire import CHUNK, Ended, Wire

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_LINE = 8 * 1024
_TRAILERS = 32
_AT_ONCE = 2
"""Pieces that are carried before others have their turn."""


class SinkFailed(Exception):
    """The side that was written to failed, not the one that was read from."""


async def carry(
    source: Wire,
    target: Wire,
    framing: Body,
    *,
    chunked: bool,
    head: bytes = b"",
    through: Filter | None = None,
) -> None:
    """Carries `head` and the body that `framing` describes, led through `through`; written in chunks or as it is.

    Each piece goes on as it comes, and no more is read before it has gone. Raises BadMessage when the framing breaks, Ended
    when the source ends too early, TimeoutError and OSError when it fails, SinkFailed when the target does.
    """
    sink = _Sink(target, chunked=chunked, head=head, through=through)
    if not (framing.chunked or framing.until_close) and framing.length <= len(source.buffer):
        data, source.buffer = source.buffer[: framing.length], source.buffer[framing.length :]
        await sink.whole(data)
        return
    if head and not source.buffer and framing != NO_BODY:
        await sink.flush()  # what comes behind it may take its time
    if framing.chunked:
        await _from_chunks(source, sink)
    elif framing.until_close:
        while data := await source.some():
            await sink.put(data)
    else:
        await _exactly(framing.length, source, sink)
    await sink.end()


class _Sink:
    """Where a body goes. `_before` is what is written with its next piece."""

    def __init__(self, target: Wire, *, chunked: bool, head: bytes, through: Filter | None) -> None:
        self._target = target
        self._chunked = chunked
        self._before = head
        self._through = through
        self._pieces = 0

    async def put(self, data: bytes) -> None:
        if self._through is not None:
            data = self._through.feed(data)
        if data:
            await self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        self._pieces += 1
        if self._pieces % _AT_ONCE == 0:  # two sides that are always ready would let nobody else run
            await asyncio.sleep(0)

    async def end(self) -> None:
        last = b"" if self._through is None else self._through.end()
        if self._chunked:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
        await self._write(last)

    async def whole(self, data: bytes) -> None:
        """All there is, at once."""
        if self._through is not None:
            data = self._through.feed(data) + self._through.end()
        if self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        await self._write(data)

    async def flush(self) -> None:
        await self._write(b"")

    async def _write(self, data: bytes) -> None:
        if self._before:
            data, self._before = self._before + data, b""
        if data:
            try:
                await self._target.write(data)
            except (OSError, TimeoutError) as error:
                raise SinkFailed from error


async def _exactly(length: int, source: Wire, sink: _Sink) -> None:
    left = length
    while left:
        data = await source.some(min(left, CHUNK))
        if not data:
            raise Ended(clean=False)
        await sink.put(data)
        left -= len(data)


async def _from_chunks(source: Wire, sink: _Sink) -> None:
    while length := await _chunk_size(source):
        await _exactly(length, source, sink)
        await _chunk_end(source)
    await _trailers(source)


def _nobody(_: int) -> None:
    return


async def collect(
    source: Wire, framing: Body, *, limit: int, holds: Callable[[int], None] = _nobody
) -> bytes | None:
    """The body that `framing` describes, whole; None when it is longer than `limit`, and then it is still there to be read.

    `holds` is told how much there is of it as it comes. Raises as `carry` does of its source, and what `holds` raises.
    """
    if not framing.chunked:
        return None if framing.length > limit else await _take(source, framing.length, holds, 0)
    parts: list[bytes] = []
    size = 0
    while length := await _chunk_size(source):
        if size + length > limit:
            before = b"".join(parts)
            again = b"%x\r\n%b\r\n" % (size, before) if before else b""
            source.buffer = b"%b%x\r\n%b" % (again, length, source.buffer)
            return None
        parts.append(await _take(source, length, holds, size))
        size += length
        await _chunk_end(source)
    await _trailers(source)
    return b"".join(parts)


async def _take(source: Wire, length: int, holds: Callable[[int], None], before: int) -> bytes:
    parts: list[bytes] = []
    whole = before + length
    while length:
        data = await source.some(min(length, CHUNK))
        if not data:
            raise Ended(clean=False)
        parts.append(data)
        length -= len(data)
        holds(whole - length)
    return b"".join(parts)


async def _chunk_size(source: Wire) -> int:
    """The size of the next chunk, 0 for the end."""
    size = await source.line(limit=_LINE)
    if _SIZE.fullmatch(size) is None:  # a chunk extension, too: readers disagree on where those end
        raise BadMessage("a malformed chunk size")
    return int(size, 16)


async def _chunk_end(source: Wire) -> None:
    if await source.line(limit=2):
        raise BadMessage("a chunk that is longer than it says")


async def _trailers(source: Wire) -> None:
    """Read and dropped."""
    for _ in range(_TRAILERS):
        line = await source.line(limit=_LINE)
        if not line:
            return
        if _TRAILER.fullmatch(line) is None:
            raise BadMessage("a malformed trailer")
    raise BadMessage("too many trailers")
