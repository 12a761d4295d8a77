"""The HTTP/2 connections to upstreams that one connection of the agent's leads to: one a place and credential, when needed."""

import asyncio
from contextvars import copy_context

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.heads import Headers
from bot_bottle.bundle.egress.http2.side import Side
from bot_bottle.bundle.egress.http2.stream import Stream
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import Route, Upstream

_Where = tuple[Upstream | None, str | None]


class Upstreams:
    """Ends with `close`."""

    def __init__(self, context: Context, via: str) -> None:
        self._context = context
        self._via = via
        self._sides: dict[_Where, Side] = {}
        self._dialling: dict[_Where, asyncio.Lock] = {}
        self._running: set[Side] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._whose = copy_context()  # the connection's, not that of the stream that happens to be the first

    async def open(self, wanted: Wanted, route: Route, headers: Headers, *, ended: bool) -> Stream:
        """A stream to where `route` leads. Raises DialFailed, ConnectionError, Broken."""
        where = route.upstream, route.credential
        async with self._dialling.setdefault(where, asyncio.Lock()):
            side = self._sides.get(where)
            if side is None or side.going:
                side = self._sides[where] = await self._dial(wanted, route)
        return await side.open(headers, ended=ended)

    def carried(self) -> tuple[int, int]:
        """Bytes so far on those that are open, up and down."""
        wires = [side.wire for side in self._running]
        return sum(wire.sent for wire in wires), sum(wire.received for wire in wires)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dial(self, wanted: Wanted, route: Route) -> Side:
        context = self._context
        sock = await context.dialer.dial(route, wanted.host, wanted.port)
        transport = await context.secure(route, sock, wanted.host, protocol="h2")
        side = Side(transport, context.limits)
        task = asyncio.get_running_loop().create_task(self._run(side, wanted), context=self._whose)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return side

    async def _run(self, side: Side, wanted: Wanted) -> None:
        began = asyncio.get_running_loop().time()
        self._running.add(side)
        try:
            await side.run()
        finally:
            self._running.discard(side)
            wire, place = side.wire, wanted.place
            if side.trouble:
                self._context.failed(self._via, "upstream_malformed", place, detail=side.trouble)
            seconds = asyncio.get_running_loop().time() - began
            self._context.closed(
                self._via, place, up=wire.sent, down=wire.received, seconds=seconds, reason="done"
            )
