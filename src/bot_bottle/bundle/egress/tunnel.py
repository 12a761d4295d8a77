"""TLS that passes through: transparent connections, and the inside of CONNECT. The hello's name decides, and nothing flows
to the upstream before it did.

Encrypted hellos (ECH) are refused. A name can hide in one that the policy never sees, and a big host's edge would take it to
another customer's site. Random ("GREASE") ones look the same by design, so those are refused as well: curl, OpenSSL, Node,
Go, Python and rustls send none (a test holds that for those at hand); Chromium and Firefox do unless told not to
(`--disable-features=EncryptedClientHello`, `network.dns.echconfig.enabled` and `security.tls.ech.grease_probability` 0).
Real ones have no key to use anyway, because the bottle's DNS answers no HTTPS records.
"""

import asyncio
import socket
from functools import partial

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.hello import (
    ACCESS_DENIED,
    DECODE_ERROR,
    INTERNAL_ERROR,
    MAX_HELLO,
    UNRECOGNIZED_NAME,
    BadHello,
    Hello,
    read_hello,
)
from bot_bottle.bundle.egress.live import POLICY_CHANGED
from bot_bottle.bundle.egress.wire import SocketTransport, Wire, say_last
from bot_bottle.policy.egress import Wanted, canonical_host

_RECORDS = 2 * MAX_HELLO
"""Raw bytes within which a hello must be whole: headers of its records included."""


async def serve_tls(context: Context, sock: socket.socket, port: int) -> None:
    """Serves one connection that the agent meant to make to `port` of some host, in TLS."""
    limits = context.limits
    address = sock.getsockname()[0]
    wire = Wire(SocketTransport(sock, context.selector), idle=limits.idle_seconds)
    hello = await _hello(context, wire, "tls", Wanted("", port, "https"))
    if hello is None:
        return
    host = hello.server_name or ""
    judge = partial(context.judge, host=host, port=port, protocol="https")
    reason, fits = _objection(hello), context.names.fits(address, canonical_host(host) or "")
    decision = await context.admitted("tls", wire.left, judge) if fits and not reason else judge()
    reason = reason or ("" if decision.allowed else decision.reason) or ("" if fits else "name_mismatch")
    if reason or decision.route is None:
        context.refused("tls", reason, decision.wanted)
        await say_last(wire, UNRECOGNIZED_NAME if reason == "no_server_name" else ACCESS_DENIED)
        return
    if context.intercepts(decision.wanted):
        await context.intercept("tls", decision.wanted, wire, sock, hello)
        return
    context.allowed("tls", decision.wanted)
    try:
        upstream = await context.dialer.dial(decision.route, decision.wanted.host, port)
    except DialFailed as error:
        note = context.refused if error.refused else context.failed
        note("tls", error.reason, decision.wanted)
        await say_last(wire, ACCESS_DENIED if error.refused else INTERNAL_ERROR)
        return
    await carry(context, "tls", decision.wanted, wire, sock, upstream)


async def tunnel_tls(
    context: Context, wire: Wire, sock: socket.socket, wanted: Wanted, upstream: socket.socket | None
) -> None:
    """The inside of an allowed and answered CONNECT: its hello must name the host that CONNECT named.

    It passes through to `upstream`; without one it is opened.
    """
    try:
        hello = await _hello(context, wire, "connect", wanted)
        if hello is None:
            return
        reason = _objection(hello)
        if not reason and canonical_host(hello.server_name or "") != wanted.host:
            reason = "name_mismatch"
        if reason:
            context.refused("connect", reason, wanted, server_name=hello.server_name or "")
            await say_last(wire, ACCESS_DENIED)
        elif upstream is None:
            await context.intercept("connect", wanted, wire, sock, hello)
        else:
            await carry(context, "connect", wanted, wire, sock, upstream)
    finally:
        if upstream is not None:
            upstream.close()


async def carry(
    context: Context, via: str, wanted: Wanted, wire: Wire, sock: socket.socket, upstream: socket.socket
) -> None:
    """Passes on what was read so far, then everything, and records the end."""
    began = asyncio.get_running_loop().time()
    first, wire.buffer = wire.buffer, b""
    try:
        await _send(context, upstream, first)
        wire.release()
        context.live.carries(
            partial(context.pump.carried, sock, len(first)), partial(context.pump.stop, sock, POLICY_CHANGED)
        )
        carried = await context.pump.carry(sock, upstream)
    except (OSError, TimeoutError):
        context.failed(via, "upstream_failed", wanted)
        wire.abort()
        return
    finally:
        upstream.close()
    seconds = asyncio.get_running_loop().time() - began
    up = len(first) + carried.up
    context.closed(via, wanted, up=up, down=carried.down, seconds=seconds, reason=carried.reason)


async def _send(context: Context, upstream: socket.socket, data: bytes) -> None:
    """All of `data`, which a connection that was just made takes at once. Raises OSError, TimeoutError."""
    try:
        sent = upstream.send(data) if data else 0
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        onward = Wire(SocketTransport(upstream, context.selector), idle=context.limits.idle_seconds)
        try:
            await onward.write(data[sent:])
        finally:
            onward.release()


def _objection(hello: Hello) -> str:
    """Why this hello goes nowhere, whatever the policy says; empty when there is no objection."""
    if hello.encrypted:
        return "encrypted_hello"
    return "no_server_name" if hello.server_name is None else ""


async def _hello(context: Context, wire: Wire, via: str, wanted: Wanted) -> Hello | None:
    """The hello, whole, with its bytes left in the buffer; None when there is none, and then the connection was ended."""
    context.live.waits()
    now = asyncio.get_running_loop().time
    due = now() + context.limits.first_bytes_seconds
    try:
        while wire.buffer or await wire.more(due - now()):
            hello = read_hello(wire.buffer)
            if hello is not None:
                return hello
            if len(wire.buffer) > _RECORDS:
                raise BadHello("a ClientHello in too many pieces")
            if not await wire.more(due - now()):
                break
    except BadHello as error:
        context.refused(via, "not_tls", wanted, detail=str(error))
        await say_last(wire, DECODE_ERROR)
        return None
    except TimeoutError:
        context.refused(via, "no_hello", wanted)
    except OSError:
        pass
    wire.close()
    return None
