"""One connection of the agent's that speaks HTTP/2: each of its streams judged, looked at and carried like any other request."""

import asyncio
from functools import partial
from typing import ClassVar

from h2.errors import ErrorCodes

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.denial import Refusal, not_allowed
from bot_bottle.bundle.egress.denial import fields as denial_fields
from bot_bottle.bundle.egress.denial import text as denial_text
from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.exchange import UpstreamFailed
from bot_bottle.bundle.egress.faults import INTERNAL
from bot_bottle.bundle.egress.heads import BadMessage, Headers
from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.egress.http import credential_for, host_field
from bot_bottle.bundle.egress.http2 import grpc
from bot_bottle.bundle.egress.http2.carry import Download, OtherBroken, Upload, both_ways
from bot_bottle.bundle.egress.http2.heads import RequestHead, read_request, request_fields
from bot_bottle.bundle.egress.http2.side import Side
from bot_bottle.bundle.egress.http2.stream import Broken, Stream
from bot_bottle.bundle.egress.http2.upstreams import Upstreams
from bot_bottle.bundle.egress.inject import inject
from bot_bottle.bundle.egress.target import read_authority
from bot_bottle.bundle.egress.wire import Transport
from bot_bottle.errors import described
from bot_bottle.policy.egress import Wanted, canonical_host
from bot_bottle.policy.model import Route

_MOST_CONNECTIONS = 64
"""Of one bottle at once: each may hold more than one that carries a request at a time."""


async def serve_h2(context: Context, via: str, wanted: Wanted, transport: Transport) -> None:
    """Serves the connection to its end; it is for `wanted` alone."""
    if Served.alive >= _MOST_CONNECTIONS:
        context.refused(via, "too_many_connections", wanted)
        transport.abort()
        return
    Served.alive += 1
    try:
        await Served(context, via, wanted, transport).run()
    finally:
        Served.alive -= 1


class Served:
    """One connection."""

    alive: ClassVar[int] = 0

    def __init__(self, context: Context, via: str, wanted: Wanted, transport: Transport) -> None:
        self._context = context
        self._via = via
        self._wanted = wanted
        self._loop = asyncio.get_running_loop()
        self._upstreams = Upstreams(context, via)
        self._tasks: set[asyncio.Task[None]] = set()
        self._side = Side(transport, context.limits, opened=self._opened)
        self._timer = self._loop.call_later(context.limits.first_bytes_seconds, self._side.end)

    async def run(self) -> None:
        self._context.live.carries(self._upstreams.carried)
        try:
            await self._side.run()
        finally:
            self._timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._upstreams.close()
        if self._side.trouble:
            reason = "h2_flood" if self._side.trouble == "flood" else "bad_message"
            self._context.refused(self._via, reason, self._wanted, detail=self._side.trouble)

    def _opened(self, stream: Stream) -> None:
        self._timer.cancel()
        task = self._loop.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._context.limits.keep_alive_seconds, self._side.end)

    async def _serve(self, stream: Stream) -> None:
        try:
            with self._context.live.connection(None):
                await _Exchange(self._context, self._via, self._wanted, stream, self._upstreams).run()
        except Exception as error:  # noqa: BLE001 - one stream's trouble is no other's; it ends, and lets nothing out
            self._context.failed(self._via, INTERNAL, self._wanted, detail=described(error))
            stream.leave(ErrorCodes.INTERNAL_ERROR)
        except BaseException:
            stream.leave(ErrorCodes.CANCEL)
            raise


class _Exchange:
    """One stream: a request and its response."""

    def __init__(
        self, context: Context, via: str, place: Wanted, agent: Stream, upstreams: Upstreams
    ) -> None:
        self._context = context
        self._via = via
        self._place = place
        self._agent = agent
        self._upstreams = upstreams
        self._grpc = False
        self._download: Download | None = None
        self._seconds = context.limits.idle_seconds
        self._now = asyncio.get_running_loop().time

    async def run(self) -> None:
        code = ErrorCodes.NO_ERROR
        try:
            async with asyncio.timeout(self._seconds) as self._timer:
                try:
                    await self._request()
                except Refusal as refusal:
                    code = await self._refuse(refusal)
        except TimeoutError:
            code = await self._idle()
        except Broken as error:  # the upstream's once the response was begun, else the agent's own
            code = error.code or ErrorCodes.INTERNAL_ERROR
        except OtherBroken:
            code = ErrorCodes.CANCEL
        self._agent.leave(code)

    async def _idle(self) -> ErrorCodes:
        """Nothing moved for too long: says so if that goes at once."""
        failure = self._failure(self._place, "idle", "nothing came for too long", 504)
        try:
            async with asyncio.timeout(1):
                return await self._refuse(failure)
        except (TimeoutError, Broken):
            return ErrorCodes.CANCEL

    def _moved(self) -> None:
        self._timer.reschedule(self._now() + self._seconds)

    async def _request(self) -> None:
        context = self._context
        request = self._read(await self._agent.head())
        self._grpc = request.is_grpc
        self._is_here(request)
        judge = partial(
            context.judge_request,
            host=self._place.host,
            port=self._place.port,
            protocol="https",
            method=request.method,
            target=request.path,
            headers=request.headers,
        )
        decision = await context.admitted(self._via, self._agent.left, judge)
        self._moved()
        wanted, route = decision.wanted, decision.route
        if not decision.allowed or route is None:
            raise not_allowed(decision)
        pardon = context.pardon(self._via, self._agent.left)
        head = await context.look.at_head(
            wanted, route, wanted.method, Head(request.path, request.headers), pardon
        )
        if head.target != request.path:  # as for HTTP/1: not to stand in the record either
            wanted = wanted._replace(path=head.target.partition(b"?")[0].decode("ascii", "replace"))
        upload = Upload(context, wanted, route, request, self._agent)
        try:
            whole = await upload.collect(pardon)
            self._moved()
            context.allowed(self._via, wanted)
            await self._carry(request, head, upload, whole, wanted, route)
        finally:
            upload.done()

    def _read(self, fields: Headers) -> RequestHead:
        try:
            return read_request(fields, most=self._context.limits.headers)
        except BadMessage as error:
            text = f"Not a request that can be passed on: {error}."
            raise Refusal(400, "bad_message", text, wanted=self._place) from error

    def _is_here(self, request: RequestHead) -> None:
        """Whether it is for the host and port that the connection is for."""
        authority = read_authority(request.authority, 443)
        same = authority is not None and (
            canonical_host(authority.host) == self._place.host and authority.port == self._place.port
        )
        if not same:
            text = "The request names another host or port than the connection."
            raise Refusal(421, "name_mismatch", text, wanted=self._place)

    async def _carry(
        self,
        request: RequestHead,
        head: Head,
        upload: Upload,
        whole: bytes | None,
        wanted: Wanted,
        route: Route,
    ) -> None:
        target, headers = self._context.dialer.forward(head, route)
        credential = credential_for(self._context, self._via, wanted, route)
        if credential is not None:
            target, headers = inject(target, headers, credential)
        if self._context.look.reflection(route) is not None:
            headers = [field for field in headers if field[0] != b"grpc-accept-encoding"]
        length = request.length if whole is None or (not whole and request.length is None) else len(whole)
        fields = request_fields(
            request.method,
            host_field(wanted, route),
            target,
            headers,
            length=length,
            trailers=request.trailers,
        )
        upstream = await self._open(wanted, route, fields, ended=whole == b"")
        self._download = download = Download(self._context, route, request, self._agent)
        done = False
        try:
            if whole:
                await _send_whole(upstream, whole)
            await both_ways(upload if whole is None else None, download, upstream, self._moved)
            done = True
        except UpstreamFailed as error:
            raise self._failure(wanted, error.reason, "The upstream gave no usable response.", 502) from error
        except BadMessage as error:
            raise Refusal(
                400, "bad_message", f"Not a body that can be passed on: {error}.", wanted=wanted
            ) from error
        finally:
            upstream.leave(ErrorCodes.NO_ERROR if done else ErrorCodes.CANCEL)
            if credential is not None:
                self._context.credentials.refused(route.credential, download.status)

    async def _open(self, wanted: Wanted, route: Route, fields: Headers, *, ended: bool) -> Stream:
        try:
            return await self._upstreams.open(wanted, route, fields, ended=ended)
        except DialFailed as error:
            if error.refused:
                raise Refusal(403, error.reason, f"Refused: {error.message}.", wanted=wanted) from error
            status = 504 if error.timeout else 502
            raise self._failure(wanted, error.reason, f"{error.message}.", status) from error
        except (Broken, ConnectionError) as error:
            raise self._failure(wanted, "upstream_failed", "The upstream's connection ended.", 502) from error

    def _failure(self, wanted: Wanted, reason: str, message: str, status: int) -> Refusal:
        self._context.failed(self._via, reason, wanted)
        return Refusal(status, reason, message[0].upper() + message[1:], wanted=wanted)

    async def _refuse(self, refusal: Refusal) -> ErrorCodes:
        """Says no on the stream, as far as something can still be said on it; what is left of it is reset with the code."""
        if refusal.status not in (502, 504):
            self._context.refused(self._via, refusal.reason, refusal.wanted, **refusal.what)
        if self._download is not None and self._download.begun:
            if not self._grpc:
                return ErrorCodes.CANCEL
            await self._agent.finish(grpc.failure(refusal.status, refusal.reason, refusal.message))
            return ErrorCodes.NO_ERROR
        if self._grpc:
            answer = grpc.refusal(refusal.status, refusal.reason, refusal.message)
            await self._agent.send_head(answer, ended=True)
            return ErrorCodes.NO_ERROR
        body = denial_text(refusal, self._context.bottle_file)
        status = (b":status", b"%d" % refusal.status)
        length = (b"content-length", b"%d" % len(body))
        await self._agent.send_head([status, *denial_fields(refusal), length])
        await self._agent.send(body)
        await self._agent.finish()
        return ErrorCodes.NO_ERROR


async def _send_whole(upstream: Stream, body: bytes) -> None:
    try:
        await upstream.send(body)
        await upstream.finish()
    except Broken:  # what it answers is what counts
        return
