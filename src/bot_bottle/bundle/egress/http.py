"""Plain HTTP/1 from the agent: the proxy's own port, transparent port 80, and the inside of CONNECT to an http route.

Every request of a connection is judged anew. Nothing is passed on as it came.
"""

import asyncio
import socket
from functools import partial

from bot_bottle.bundle.egress.bodies import SinkFailed
from bot_bottle.bundle.egress.context import Context, speaks_tls, verified_name
from bot_bottle.bundle.egress.denial import Refusal, not_allowed, respond
from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.exchange import (
    CONTINUE,
    Outcome,
    Outgoing,
    UpstreamFailed,
    exchange,
    wants_more,
)
from bot_bottle.bundle.egress.heads import (
    BadMessage,
    Body,
    Request,
    end_to_end,
    listed,
    read_request,
    request_body,
)
from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.egress.target import Authority, Entry, find_target, read_authority
from bot_bottle.bundle.egress.tunnel import carry, tunnel_tls
from bot_bottle.bundle.egress.websocket.handshake import FIELDS, read_offer, switch
from bot_bottle.bundle.egress.websocket.messages import Messages
from bot_bottle.bundle.egress.wire import Ended, SocketTransport, TooLarge, Wire
from bot_bottle.bundle.model import Injection
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import Route

_NEVER_FORWARDED = frozenset({b"host", b"expect"})
_REPEATABLE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods that do the same when they are done twice (RFC 9110, 9.2.2): an upstream that ended may have followed the request."""
_ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"


class _Upstream:
    """An open connection to an upstream, kept for the next request to the same place."""

    def __init__(self, wire: Wire, wanted: Wanted, route: Route, began: float) -> None:
        self.wire = wire
        self.place = _place(wanted)
        self.wanted = wanted._replace(method="", path="")
        self.route = route
        self.began = began

    def serves(self, wanted: Wanted, route: Route) -> bool:
        """Whether it goes there and is still open: nothing, not even its end, waits to be read."""
        if self.place != _place(wanted) or self.route != route:
            return False
        return self.wire.is_quiet()


class HttpConnection:
    """One connection of the agent's; `run` serves it to its end."""

    def __init__(self, context: Context, sock: socket.socket, entry: Entry, wire: Wire | None = None) -> None:
        self._context = context
        self._sock = sock
        self._entry = entry
        self._wire = wire or Wire(SocketTransport(sock, context.selector), idle=context.limits.idle_seconds)
        self._upstream: _Upstream | None = None

    async def run(self) -> None:
        try:
            while await self._one_request():
                if self._wire.buffer:  # whoever pipelines without end lets the others run, too
                    await asyncio.sleep(0)
        except (SinkFailed, Ended, OSError, TimeoutError) as error:
            # The response broke off, or the agent went away: a reset says that what came is not the whole.
            self._wire.abort()
            self._retire("idle" if isinstance(error, TimeoutError) else "reset")
        finally:
            self._retire()

    async def _one_request(self) -> bool:
        """Serves one request; whether another may follow. Closes the connection unless one may."""
        limits = self._context.limits
        self._context.live.over()
        self._context.live.waits()
        try:
            head = await self._wire.head(
                limit=limits.head_bytes, first=limits.keep_alive_seconds, whole=limits.first_bytes_seconds
            )
            request = read_request(head, most=limits.headers)
        except (Ended, TimeoutError):
            self._wire.close()
            return False
        except TooLarge:
            return await self._refuse(
                Refusal(431, "head_too_large", "The request's head is too large."), None
            )
        except BadMessage as error:
            return await self._refuse(_malformed(error), None)
        try:
            if request.method == b"CONNECT" and self._entry.is_proxy:
                return await self._connect(request)
            return await self._request(request)
        except Refusal as refusal:
            return await self._refuse(refusal, request)
        except (BadMessage, SinkFailed) as error:
            raise Ended(clean=False) from error

    def _left(self) -> "asyncio.Future[None]":
        """For a request that has to wait: what is open from the one before does not, as it is no more judged meanwhile."""
        self._retire()
        return self._wire.left()

    async def _request(self, request: Request) -> bool:
        target = find_target(request, self._entry)
        body = _body(request)
        context = self._context
        offer = read_offer(request)
        without = _NEVER_FORWARDED if offer is None else _NEVER_FORWARDED | FIELDS
        headers = end_to_end(request.headers, without=without)
        judge = partial(
            context.judge_request,
            host=target.host,
            port=target.port,
            protocol=self._entry.protocol,
            method=request.method,
            target=target.path,
            headers=headers,
        )
        decision = await context.admitted(self._entry.via, self._left, judge)
        wanted, route = decision.wanted, decision.route
        if not decision.allowed or route is None:
            raise not_allowed(decision)
        pardon = context.pardon(self._entry.via, self._left)
        head = await context.look.at_head(wanted, route, wanted.method, Head(target.path, headers), pardon)
        if (
            head.target != target.path
        ):  # something was taken out of it, and is not to stand in the record either
            wanted = wanted._replace(path=head.target.partition(b"?")[0].decode("ascii", "replace"))
        whole = None
        if body is not None and (body.chunked or body.length):
            context.look.before_body(body, headers, wanted, route)
            if listed(request.headers, b"expect"):
                await self._wire.write(CONTINUE)
            whole = await context.look.at_body(self._wire, body, headers, wanted, route, pardon)
        messages = None if offer is None else Messages(context, wanted, route)
        context.allowed(self._entry.via, wanted)
        outgoing = self._outgoing(request, head, body, whole, wanted, route)
        if offer is not None and messages is not None:
            outgoing = outgoing._replace(switch=switch(offer, readable=messages.readable))
        outcome = await self._carry(outgoing, wanted, route)
        if outcome.switched is not None and messages is not None and self._upstream is not None:
            wire = self._upstream.wire
            reason = await messages.carry(self._entry.via, self._wire, wire, deflate=outcome.switched.deflate)
            self._retire(reason)
            return False
        if outgoing.credential is not None:
            context.credentials.refused(route.credential, outcome.status)
        if not outcome.upstream_lives:
            self._retire()
        if not outcome.agent_lives:
            await self._wire.finish()
        context.rests(wanted)
        return outcome.agent_lives

    def _outgoing(
        self,
        request: Request,
        head: Head,
        body: Body | None,
        whole: bytes | None,
        wanted: Wanted,
        route: Route,
    ) -> Outgoing:
        context = self._context
        return Outgoing(
            request=request,
            head=context.dialer.forward(head, route),
            host=host_field(wanted, route),
            body=body if whole is None else Body(length=len(whole)),
            whole=whole,
            credential=credential_for(context, self._entry.via, wanted, route),
            proxy=context.dialer.proxy_for(route, wanted.host, wanted.port)
            if route.protocol == "http"
            else None,
            switch=None,
            head_filter=context.look.reflection(route),
            body_filter=context.look.reflection(route),
        )

    async def _carry(self, outgoing: Outgoing, wanted: Wanted, route: Route) -> Outcome:
        """Over the open upstream connection or a new one; a kept one that turns out closed is tried anew, once."""
        while True:
            kept = self._upstream is not None and self._upstream.serves(wanted, route)
            upstream = self._upstream if kept and self._upstream else await self._open(wanted, route)
            try:
                return await exchange(self._wire, upstream.wire, outgoing, self._context.limits)
            except DialFailed as error:
                self._retire()
                raise self._not_dialled(wanted, error) from error
            except UpstreamFailed as error:
                self._retire()
                again = outgoing.body is None and outgoing.request.method in _REPEATABLE
                if kept and error.untouched and again:
                    continue
                status = 504 if error.timeout else 502
                message = "The upstream gave no usable response."
                raise self._failure(wanted, error.reason, message, status) from error

    async def _open(self, wanted: Wanted, route: Route) -> _Upstream:
        self._retire()
        context = self._context
        began = asyncio.get_running_loop().time()
        try:
            sock = await context.dialer.dial(route, wanted.host, wanted.port)
            transport = await context.secure(route, sock, wanted.host)
        except DialFailed as error:
            raise self._not_dialled(wanted, error) from error
        wire = Wire(transport, idle=context.limits.idle_seconds)
        self._upstream = _Upstream(wire, wanted, route, began)
        context.live.carries(lambda: (wire.sent, wire.received))
        return self._upstream

    def _not_dialled(self, wanted: Wanted, error: DialFailed, *, via: str = "") -> Refusal:
        if error.refused:
            return Refusal(403, error.reason, f"Refused: {error.message}.", wanted=wanted)
        status = 504 if error.timeout else 502
        return self._failure(wanted, error.reason, f"{error.message}.", status, via=via)

    def _failure(self, wanted: Wanted, reason: str, message: str, status: int, *, via: str = "") -> Refusal:
        self._context.failed(via or self._entry.via, reason, wanted)
        return Refusal(status, reason, message[0].upper() + message[1:], wanted=wanted)

    def _retire(self, reason: str = "done") -> None:
        """Ends the upstream connection, if there is one, and records it."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.wire.close()
            self._context.live.carries_nothing()
            self._context.closed(
                self._entry.via,
                upstream.wanted,
                up=upstream.wire.sent,
                down=upstream.wire.received,
                seconds=asyncio.get_running_loop().time() - upstream.began,
                reason=reason,
            )

    async def _connect(self, request: Request) -> bool:
        authority = read_authority(request.target, None)
        if authority is None:
            raise Refusal(
                400, "bad_target", "CONNECT takes HOST:PORT.", target=request.target.decode("ascii")
            )
        if _body(request) is not None:
            raise Refusal(400, "bad_message", "CONNECT has no body.")
        context = self._context
        judge = partial(context.judge_tunnel, host=authority.host, port=authority.port)
        decision = await context.admitted("connect", self._left, judge)
        if not decision.allowed or decision.route is None:
            raise not_allowed(decision, method="CONNECT")
        wanted = decision.wanted
        if wanted.protocol == "http":
            return await self._connect_http(wanted)
        if wanted.protocol == "https" and context.intercepts(wanted):
            await self._wire.write(_ESTABLISHED)
            await tunnel_tls(context, self._wire, self._sock, wanted, None)
            return False
        context.allowed("connect", wanted)
        upstream = await self._establish(decision.route, wanted)
        if wanted.protocol == "tcp":  # nothing inside is looked at: name and port are all that is held
            await carry(context, "connect", wanted, self._wire, self._sock, upstream)
        else:
            await tunnel_tls(context, self._wire, self._sock, wanted, upstream)
        return False

    async def _establish(self, route: Route, wanted: Wanted) -> socket.socket:
        """The upstream, once the agent has been told that it is there."""
        try:
            upstream = await self._context.dialer.dial(route, wanted.host, wanted.port)
        except DialFailed as error:
            raise self._not_dialled(wanted, error, via="connect") from error
        try:
            await self._wire.write(_ESTABLISHED)
        except BaseException:
            upstream.close()
            raise
        return upstream

    async def _connect_http(self, wanted: Wanted) -> bool:
        """Some clients (Node's own) tunnel plain HTTP, too: its requests are judged like any others."""
        await self._wire.write(_ESTABLISHED)
        fixed = Authority(wanted.host, wanted.port)
        await HttpConnection(self._context, self._sock, Entry("connect", fixed=fixed), self._wire).run()
        return False

    async def _refuse(self, refusal: Refusal, request: Request | None) -> bool:
        """Answers and, when the rest of the connection can still be understood, goes on."""
        if refusal.status not in (502, 504):
            via = "connect" if request is not None and request.method == b"CONNECT" else self._entry.via
            self._context.refused(via, refusal.reason, refusal.wanted, **refusal.what)
        goes_on = (
            request is not None
            and refusal.status in (403, 421, 502, 504)
            and request.method != b"CONNECT"
            and _is_bodyless(request)
            and wants_more(request.minor, request.headers)
        )
        with_body = request is None or request.method != b"HEAD"
        bottle_file = self._context.bottle_file
        response = respond(refusal, bottle_file=bottle_file, close=not goes_on, with_body=with_body)
        await self._wire.write(response)
        if not goes_on:
            await self._wire.finish()
        return goes_on


def _place(wanted: Wanted) -> tuple[str, int]:
    return wanted.host, wanted.port


def _body(request: Request) -> Body | None:
    try:
        body = request_body(request)
    except BadMessage as error:
        raise _malformed(error) from error
    if listed(request.headers, b"expect") - {b"100-continue"}:
        raise Refusal(417, "bad_expectation", "Only 100-continue can be expected.")
    return body


def _is_bodyless(request: Request) -> bool:
    try:
        return request_body(request) in (None, Body())
    except BadMessage:
        return False


def _malformed(error: BadMessage) -> Refusal:
    return Refusal(400, "bad_message", f"Not a request that can be passed on: {error}.")


def credential_for(context: Context, via: str, wanted: Wanted, route: Route) -> Injection | None:
    """What is put into a request to `route`, if anything is. Raises Refusal when it is not there."""
    if route.credential is None or not speaks_tls(route):
        return None
    credential = context.credentials.get(route.credential)
    if credential is None:
        context.failed(via, "no_credential", wanted)
        raise Refusal(502, "no_credential", "The route's credential is not there.", wanted=wanted)
    return credential


def host_field(wanted: Wanted, route: Route) -> bytes:
    """What the upstream is told: over TLS the name that was verified, so that no other name can be meant."""
    host, port, usual = wanted.host, wanted.port, 80
    if route.upstream is not None and route.upstream.tls:
        host, port, usual = verified_name(route, host), route.upstream.port, 443
    elif route.protocol == "https":
        usual = 443
    return (host if port == usual else f"{host}:{port}").encode("ascii")
