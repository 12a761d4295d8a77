"""One stream: what has come on it and was not taken yet, and sending on it as fast as the other side takes it."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

from h2.errors import ErrorCodes

from bot_bottle.bundle.egress.heads import Headers

if TYPE_CHECKING:
    from bot_bottle.bundle.egress.http2.side import Side

P = ParamSpec("P")


class Broken(Exception):
    """The other side reset the stream with `code`, or is gone (None)."""

    def __init__(self, code: ErrorCodes | None) -> None:
        super().__init__(code)
        self.code = code


class Stream:
    """One reader and one writer may wait at a time."""

    __slots__ = (
        "_broken", "_code", "_data", "_flow", "_head", "_leaver", "_read", "_reader", "_side", "_writer", "ended", "number",
        "sent_end", "trailers",
    )  # fmt: skip

    def __init__(self, side: "Side", number: int) -> None:
        self._side = side
        self.number = number
        self.ended = False
        """Whether the other side has said all that it wants to say."""
        self.sent_end = False
        self.trailers: Headers | None = None
        self._head: Headers | None = None
        self._data = bytearray()
        self._flow = 0  # what the data in `_data` counts for, and what was read and not acknowledged yet
        self._read = 0
        self._broken = False
        self._code: ErrorCodes | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._leaver: asyncio.Future[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether something of a body is there to be read."""
        return bool(self._data)

    # Told by the side

    def came_head(self, headers: Headers) -> None:
        self._head = headers
        _wake(self._reader)

    def came_data(self, data: bytes, flow: int) -> None:
        self._data += data
        self._flow += flow
        _wake(self._reader)

    def came_end(self) -> None:
        self.ended = True
        _wake(self._reader)

    def more_room(self) -> None:
        _wake(self._writer)

    def broken(self, code: ErrorCodes | None) -> None:
        if not self._broken:
            self._broken, self._code = True, code
            _wake(self._reader)
            _wake(self._writer)
            _wake(self._leaver)

    # Asked by whoever serves it

    def left(self) -> "asyncio.Future[None]":
        """Done when the other side has reset it or is gone."""
        self._leaver = asyncio.get_running_loop().create_future()
        if self._broken:
            self._leaver.set_result(None)
        return self._leaver

    async def head(self) -> Headers:
        """Raises Broken."""
        while self._head is None:
            await self._until_read()
        return self._head

    async def read(self) -> bytes:
        """What has come of the body; nothing at its end. What was read before has gone on by now. Raises Broken."""
        self._side.acknowledge(self, self._read)
        self._read = 0
        while not self._data and not self.ended:
            if self._flow:  # padding alone
                self._side.acknowledge(self, self._flow)
                self._flow = 0
            await self._until_read()
        data = bytes(self._data)
        self._data.clear()
        self._read, self._flow = self._flow, 0
        return data

    async def send_head(self, headers: Headers, *, ended: bool = False) -> None:
        """Raises Broken."""
        await self._ready()
        self._act(self._side.send_head, self, headers, ended=ended)
        self.sent_end = ended

    async def send(self, data: bytes) -> None:
        """All of it, as the other side makes room. Raises Broken."""
        at = 0
        while at < len(data):
            await self._ready()
            room = self._room()
            if room <= 0:
                self._writer = asyncio.get_running_loop().create_future()
                await self._writer
                continue
            piece = data[at : at + room]
            self._act(self._side.send_data, self, piece, ended=False)
            at += len(piece)

    async def finish(self, trailers: Headers | None = None) -> None:
        """Raises Broken."""
        await self._ready()
        if trailers:
            self._act(self._side.send_head, self, trailers, ended=True)
        else:
            self._act(self._side.send_data, self, b"", ended=True)
        self.sent_end = True

    def leave(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Nothing more is wanted of it: what is not over is reset with `code`, and what has come is given back."""
        over = self.ended and self.sent_end
        finished = over and not self._broken
        if not self._broken and not over:
            self._side.reset(self, code)
        self._broken = True
        self._side.acknowledge(self, self._read + self._flow)
        self._data.clear()
        self._read = self._flow = 0
        self._side.forget(self, finished=finished)

    async def _until_read(self) -> None:
        self._check()
        self._reader = asyncio.get_running_loop().create_future()
        await self._reader
        self._check()

    async def _ready(self) -> None:
        self._check()
        try:
            await self._side.written()
        except ConnectionError as error:
            raise Broken(self._code) from error
        self._check()

    def _room(self) -> int:
        try:
            return self._side.room_for(self)
        except ConnectionError as error:
            raise Broken(self._code) from error

    def _act(self, action: Callable[P, None], *args: P.args, **more: P.kwargs) -> None:
        try:
            action(*args, **more)
        except ConnectionError as error:
            raise Broken(self._code) from error

    def _check(self) -> None:
        if self._broken:
            raise Broken(self._code)


def _wake(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
