"""The two directions of one stream after it was judged: the body up, past the guard, and the response down, through its filters."""

import asyncio
from collections.abc import Awaitable, Callable

from h2.errors import ErrorCodes

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.exchange import UpstreamFailed, is_encoded
from bot_bottle.bundle.egress.heads import BadMessage, Headers, values
from bot_bottle.bundle.egress.held import Held
from bot_bottle.bundle.egress.hooks import Filter
from bot_bottle.bundle.egress.http2 import grpc
from bot_bottle.bundle.egress.http2.heads import (
    RequestHead,
    read_response,
    read_trailers,
    response_fields,
)
from bot_bottle.bundle.egress.http2.stream import Broken, Stream
from bot_bottle.bundle.egress.pardon import Pardon
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import Route


class Upload:
    """The body of a request, from the agent's stream to the upstream's, looked at in the units that it comes in."""

    def __init__(
        self, context: Context, wanted: Wanted, route: Route, request: RequestHead, agent: Stream
    ) -> None:
        self._context = context
        self._wanted = wanted
        self._route = route
        self._request = request
        self._agent = agent
        self._limit = context.look.message_limit(wanted, route)
        self._messages: grpc.Messages | None = None
        self._first = b""  # what was collected of a body that goes as it comes after all
        self._held = Held(wanted, self._limit or 0)
        if self._limit is not None and request.is_grpc:
            self._messages = grpc.Messages(self._look, self._limit)

    async def collect(self, pardon: Pardon) -> bytes | None:
        """The whole body, looked at, where it has to be seen whole before anything goes out; None when it goes as it comes.

        A body that is too large to be looked at, but may pass, goes as it comes, too. Raises Refusal, Broken.
        """
        if self._agent.ended and not self._agent.waits:
            return b""
        context, limit = self._context, self._limit
        context.look.before_body(self._request.body, self._request.headers, self._wanted, self._route)
        if limit is None or self._messages is not None:
            return None
        body = bytearray()
        async with self._held.coming():
            while data := await self._agent.read():
                body += data
                self._held.are(len(body))
                if len(body) > limit:
                    self._first = await context.look.at_message(bytes(body), self._wanted, self._route)
                    return None
        return await context.look.at_collected(
            bytes(body), self._request.headers, self._wanted, self._route, pardon
        )

    async def carry(self, upstream: Stream, moved: Callable[[], None]) -> None:
        """What was not collected, piece by piece. Raises Refusal, BadMessage, Broken; `OtherBroken` is the upstream's."""
        first, self._first = self._first, b""
        self._held.nothing()
        if first:
            await _sent(upstream.send(first))
        async with self._held.coming():
            while data := await self._agent.read():
                moved()
                if self._messages is not None:
                    data = await self._messages.feed(data)
                    self._held.are(self._messages.holds)
                await _sent(upstream.send(data))
                moved()
        if self._messages is not None:
            self._messages.end()
        await _sent(upstream.finish())

    def done(self) -> None:
        """Whatever happened: nothing of it is held any more."""
        self._held.nothing()

    async def _look(self, message: bytes, compressed: bool) -> bytes:
        limit = self._limit
        self._held.whole()
        if not compressed or (limit is not None and len(message) > limit):
            return await self._context.look.at_message(message, self._wanted, self._route)
        coding = values(self._request.headers, b"grpc-encoding")
        fields = [(b"content-encoding", b",".join(coding) or b"unknown")]
        return await self._context.look.at_whole(message, fields, self._wanted, self._route)


class OtherBroken(Exception):
    """The stream that was written to broke, not the one that was read from."""


class Download:
    """The response, from the upstream's stream to the agent's."""

    def __init__(self, context: Context, route: Route, request: RequestHead, agent: Stream) -> None:
        self._context = context
        self._route = route
        self._request = request
        self._agent = agent
        self.begun = False
        """Whether the agent has got its head."""
        self.status = 0

    async def carry(self, upstream: Stream, moved: Callable[[], None]) -> None:
        """All of it. Raises UpstreamFailed before its head has gone, then Broken; `OtherBroken` is the agent's."""
        through = self._context.look.reflection(self._route)
        try:
            head = read_response(await upstream.head(), most=self._context.limits.headers)
        except BadMessage as error:
            raise UpstreamFailed("upstream_malformed") from error
        except Broken as error:
            raise UpstreamFailed("upstream_failed") from error
        self.status = head.status
        if through is not None and _is_unreadable(head.headers):
            raise UpstreamFailed("response_encoded")  # no filter could see a credential in it
        moved()
        fields = self._starred(response_fields(head))
        await _sent(
            self._agent.send_head(
                fields, ended=upstream.ended and not upstream.waits and not upstream.trailers
            )
        )
        self.begun = True
        if self._agent.sent_end:
            return
        while data := await upstream.read():
            moved()
            await _sent(self._agent.send(data if through is None else through.feed(data)))
            moved()
        if through is not None:
            await _sent(self._agent.send(through.end()))
        await _sent(self._agent.finish(self._trailers(upstream)))

    def _trailers(self, upstream: Stream) -> Headers:
        try:
            trailers = read_trailers(upstream.trailers or [], most=self._context.limits.headers)
        except BadMessage as error:
            raise Broken(ErrorCodes.PROTOCOL_ERROR) from error
        return self._starred(trailers)

    def _starred(self, fields: Headers) -> Headers:
        return [(self._star(name), self._star(value)) for name, value in fields]

    def _star(self, text: bytes) -> bytes:
        alone: Filter | None = self._context.look.reflection(self._route)
        return text if alone is None else alone.feed(text) + alone.end()


async def _sent(sending: Awaitable[None]) -> None:
    try:
        await sending
    except Broken as error:
        raise OtherBroken from error


def _is_unreadable(headers: Headers) -> bool:
    return is_encoded(headers) or not {*values(headers, b"grpc-encoding")} <= {b"identity"}


async def both_ways(
    upload: Upload | None, download: Download, upstream: Stream, moved: Callable[[], None]
) -> None:
    """Carries both until the response has come whole; what is still to be sent up then is not wanted any more."""
    down = asyncio.ensure_future(download.carry(upstream, moved))
    tasks = [down]
    if upload is not None:
        tasks.append(asyncio.ensure_future(upload.carry(upstream, moved)))
    try:
        while not down.done():
            await asyncio.wait(
                [task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
            up = tasks[-1]
            if up is not down and up.done() and not isinstance(up.exception(), (OtherBroken, type(None))):
                up.result()
        down.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
