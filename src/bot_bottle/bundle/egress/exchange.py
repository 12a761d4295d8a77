"""One request carried to its upstream and the response carried back: heads written anew, bodies piece by piece."""

import asyncio

from bot_bottle.bundle.egress.bodies import SinkFailed, carry
from bot_bottle.bundle.egress.heads import (
    NO_BODY,
    BadMessage,
    Body,
    Headers,
    Request,
    Response,
    end_to_end,
    listed,
    read_response,
    response_body,
    values,
    write_head,
)
from bot_bottle.bundle.egress.hooks import Filter, Head
from bot_bottle.bundle.egress.inject import inject
from bot_bottle.bundle.egress.via import refusal
from bot_bottle.bundle.egress.websocket.handshake import Switch, Switched, check, fields
from bot_bottle.bundle.egress.wire import CHUNK, Ended, TooLarge, Wire
from bot_bottle.bundle.model import BundleLimits, Injection, Proxy
from bot_bottle.typed import NamedTuple

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MOST_INTERIM = 16
_AT_ONCE = 32 * 1024
"""A body up to this size goes out with its head: the kernel takes that much from a connection that has nothing under way."""


class UpstreamFailed(Exception):
    """The upstream gave no response that can be passed on; nothing of one was. `untouched`: it never said a byte."""

    def __init__(self, reason: str, *, timeout: bool = False, untouched: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timeout = timeout
        self.untouched = untouched


class Outgoing(NamedTuple):
    """A request as it goes on, `request` as it came.

    `head` has the fields that go on, without Host; `host` is that field's text; `body` is the framing (None: no body), `whole`
    the body where it is here already and needs not be read from the agent. With a `proxy` it goes there, in absolute form.
    `switch` is the one to WebSocket that it asks for. The filters are for the response.
    """

    request: Request
    head: Head
    host: bytes
    body: Body | None
    whole: bytes | None
    credential: Injection | None
    proxy: Proxy | None
    switch: Switch | None
    head_filter: Filter | None
    body_filter: Filter | None


class Outcome(NamedTuple):
    """Which of the two connections can carry another request; and the response's status, if there was one."""

    agent_lives: bool
    upstream_lives: bool
    status: int = 0
    switched: Switched | None = None
    """To messages, which both connections are for from now on: then the status is 101."""


async def exchange(agent: Wire, upstream: Wire, outgoing: Outgoing, limits: BundleLimits) -> Outcome:
    """Carries one request and its response.

    Raises UpstreamFailed, or DialFailed for a proxy that refuses, while there is something to answer with; any other exception
    (BadMessage, Ended, SinkFailed, TimeoutError, OSError) means that the agent's connection can't be saved.
    """
    body, whole = outgoing.body, outgoing.whole
    head = _request_head(outgoing)
    at_once = whole is not None and len(whole) <= _AT_ONCE
    if at_once:
        head += whole or b""
    try:
        await upstream.write(head)
    except (OSError, TimeoutError) as error:
        raise UpstreamFailed("upstream_failed", untouched=True) from error
    if at_once or body is None or not (body.chunked or body.length):
        return await _respond(agent, upstream, outgoing, limits)
    return await _both_ways(agent, upstream, outgoing, body, limits)


async def _both_ways(
    agent: Wire, upstream: Wire, outgoing: Outgoing, body: Body, limits: BundleLimits
) -> Outcome:
    """The body goes up while the response may already come down; whichever ends first, the other goes on to its end."""
    upload = asyncio.create_task(_upload(agent, upstream, outgoing, body))
    download = asyncio.create_task(_respond(agent, upstream, outgoing, limits))
    try:
        await asyncio.wait({upload, download}, return_when=asyncio.FIRST_COMPLETED)
        if download.done() and not download.result().upstream_lives:
            return Outcome(False, False, download.result().status)
        try:
            await upload
        except SinkFailed:  # the upstream wants no more of it: what it answers is what counts
            return Outcome(False, False, (await download).status)
        return await download
    finally:
        for task in (upload, download):
            task.cancel()
        await asyncio.gather(upload, download, return_exceptions=True)


async def _upload(agent: Wire, upstream: Wire, outgoing: Outgoing, body: Body) -> None:
    if outgoing.whole is None:
        await carry(agent, upstream, body, chunked=body.chunked)
        return
    whole = outgoing.whole
    try:
        for at in range(
            0, len(whole), CHUNK
        ):  # what is written at once is held once more, for as long as the connection lives
            await upstream.write(whole[at : at + CHUNK])
    except (OSError, TimeoutError) as error:
        raise SinkFailed from error


async def _respond(agent: Wire, upstream: Wire, outgoing: Outgoing, limits: BundleLimits) -> Outcome:
    response = await _final_response(upstream, limits, switch=outgoing.switch is not None)
    if outgoing.switch is not None and response.status == 101:
        return await _switch(agent, response, outgoing.switch, outgoing.head_filter)
    if outgoing.proxy is not None and response.status == 407:
        raise refusal(407)  # between the proxy and the bundle: the agent has no login, and none to give
    request = outgoing.request
    try:
        body = response_body(response, request.method)
    except BadMessage as error:
        raise UpstreamFailed("upstream_malformed") from error
    if outgoing.body_filter is not None and body != NO_BODY and is_encoded(response.headers):
        raise UpstreamFailed("response_encoded")  # no filter could see a credential in it
    chunked = (body.chunked or body.until_close) and request.minor == 1
    to_agent = not (body.until_close or body.chunked) or chunked
    agent_lives = to_agent and wants_more(request.minor, request.headers)
    head = _response_head(response, request.method, body, chunked=chunked, lives=agent_lives)
    if outgoing.head_filter is not None:
        head = outgoing.head_filter.feed(head) + outgoing.head_filter.end()
    await carry(upstream, agent, body, chunked=chunked, head=head, through=outgoing.body_filter)
    upstream_lives = not body.until_close and wants_more(response.minor, response.headers)
    return Outcome(agent_lives, upstream_lives, response.status)


async def _switch(agent: Wire, response: Response, asked: Switch, through: Filter | None) -> Outcome:
    """Tells the agent that its connection is switched, once that is sure."""
    try:
        switched = check(response, asked)
    except BadMessage as error:
        raise UpstreamFailed("upstream_malformed") from error
    head = write_head(b"HTTP/1.1 101 Switching Protocols", switched.headers, None)
    if through is not None:
        head = through.feed(head) + through.end()
    await agent.write(head)
    return Outcome(False, True, 101, switched)


async def _final_response(upstream: Wire, limits: BundleLimits, *, switch: bool) -> Response:
    """The response's head; those that only say "wait" are dropped. `switch`: it may be a 101. Raises UpstreamFailed."""
    before = upstream.received
    try:
        for _ in range(_MOST_INTERIM):
            head = await upstream.head(limit=limits.head_bytes, first=None, whole=limits.idle_seconds)
            response = read_response(head, most=limits.headers)
            if response.status == 101 and not switch:
                raise BadMessage("a switch of protocols that nobody asked for")
            if response.status >= 200 or response.status == 101:
                return response
        raise BadMessage("too many interim responses")
    except (BadMessage, TooLarge) as error:
        raise UpstreamFailed("upstream_malformed") from error
    except TimeoutError as error:
        raise UpstreamFailed("upstream_timeout", timeout=True) from error
    except (Ended, OSError) as error:
        raise UpstreamFailed("upstream_failed", untouched=upstream.received == before) from error


def is_encoded(headers: Headers) -> bool:
    """Whether the body is compressed, although it was asked for as it is."""
    return bool(listed(headers, b"content-encoding") - {b"identity"})


def wants_more(minor: int, headers: Headers) -> bool:
    """Whether the sender of a head keeps its connection; HTTP/1.0's own way of asking for that is not taken up."""
    return minor == 1 and b"close" not in listed(headers, b"connection")


def _request_head(outgoing: Outgoing) -> bytes:
    target = outgoing.head.target
    headers = outgoing.head.headers
    if outgoing.credential is not None:
        target, headers = inject(target, headers, outgoing.credential)
    headers = [(b"host", outgoing.host), *headers]
    if outgoing.switch is not None:
        headers += fields(outgoing.switch)
    if outgoing.proxy is not None:
        target = b"http://" + outgoing.host + (b"" if target == b"*" else target)
        if outgoing.proxy.authorization is not None:
            headers.append((b"proxy-authorization", outgoing.proxy.authorization.reveal().encode()))
    return write_head(b"%b %b HTTP/1.1" % (outgoing.request.method, target), headers, outgoing.body)


def _response_head(response: Response, method: bytes, body: Body, *, chunked: bool, lives: bool) -> bytes:
    headers = end_to_end(response.headers)
    if not lives:
        headers.append((b"connection", b"close"))
    framing: Body | None = Body(chunked=True) if chunked else body
    if framing is not None and not chunked and (body.chunked or body.until_close):
        framing = None  # to HTTP/1.0: until the connection ends
    if method == b"HEAD" or response.status in (204, 304):
        framing = None
        lengths = values(response.headers, b"content-length") if response.status != 204 else []
        headers += [(b"content-length", length) for length in lengths]
    line = b"HTTP/1.1 %d %b" % (response.status, response.phrase)
    return write_head(line, headers, framing)
