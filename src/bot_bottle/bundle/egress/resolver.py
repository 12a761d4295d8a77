"""The bottle's DNS: names of the policy get their own address, all others don't exist. No resolver is ever asked here."""

import asyncio
import socket
import struct

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.dns import (
    CLASS_IN,
    MAX_QUERY,
    NAME_ERROR,
    NO_ERROR,
    REFUSED,
    TYPE_A,
    Malformed,
    answer,
    read_question,
)
from bot_bottle.bundle.egress.faults import INTERNAL
from bot_bottle.bundle.egress.names import LOCALHOST, NoAddressLeft
from bot_bottle.bundle.egress.wire import Ended, SocketTransport, Wire
from bot_bottle.door.inside import IP_PKTINFO
from bot_bottle.errors import described
from bot_bottle.policy.egress import canonical_host, names_allowed

_AT_ONCE = 64
_TCP_QUERIES = 256


def answer_query(context: Context, query: bytes) -> bytes | None:
    """The answer to one message; None for what deserves none."""
    try:
        question = read_question(query)
    except Malformed as error:
        return None if error.code is None else answer(query, error.code)
    text = question.name.decode("ascii", "replace")
    host = canonical_host(text)
    if question.network != CLASS_IN:
        _refused(context, "dns_class", text)
        return answer(query, REFUSED, question)
    carries = "" if host is None else _carries(context, host, text)
    if carries:
        _refused(context, carries, text)
        return answer(query, NAME_ERROR, question)
    try:
        address = None if host is None else _address(context, host)
    except NoAddressLeft:
        _refused(context, "names_exhausted", text)
        return answer(query, REFUSED, question)
    if address is None:
        _refused(context, "host_not_allowed" if host else "not_a_host_name", text)
        return answer(query, NAME_ERROR, question)
    return answer(query, NO_ERROR, question, address if question.kind == TYPE_A else None)


def _address(context: Context, host: str) -> bytes | None:
    if host == "localhost" or host.endswith(".localhost"):
        return LOCALHOST
    return context.names.address_for(host)


def _carries(context: Context, host: str, text: str) -> str:
    """Why nobody may ask for a name below a wildcard, as it could carry something out; empty for no reason."""
    policy = context.policy
    exact = host in policy.ask or any(route.host == host for route in policy.routes)
    if exact or not names_allowed(context.policy, host):
        return ""
    return context.look.at_name(text)


def _refused(context: Context, reason: str, host: str) -> None:
    shown = context.look.shown(host)
    context.record.event("dns.refused", {"via": "dns", "host": shown, "reason": reason})


def serve_datagrams(context: Context, sock: socket.socket) -> None:
    """Answers the queries that wait on `sock`, each from the address that it was sent to."""
    for _ in range(_AT_ONCE):
        try:
            query, ancillary, flags, peer = sock.recvmsg(MAX_QUERY, 64)
            reply = None if flags & socket.MSG_TRUNC else answer_query(context, query)
            if reply is not None:
                sock.sendmsg([reply], [_source(ancillary)], 0, peer)
        except BlockingIOError:
            return
        except OSError:  # this one peer's trouble: gone, or its buffer is full
            continue
        except Exception as error:  # noqa: BLE001 - one query's trouble is no other's; it gets no answer
            context.failed("dns-udp", INTERNAL, None, detail=described(error))


def _source(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, bytes]:
    """The control message that sends from the address that was asked: every address is local, the kernel would pick one."""
    asked = next(
        (data[8:12] for level, kind, data in ancillary if (level, kind) == (0, IP_PKTINFO)), bytes(4)
    )
    return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("I4s4s", 0, asked, bytes(4))


async def serve_stream(context: Context, sock: socket.socket) -> None:
    """Answers the queries of one TCP connection, a bounded number of them."""
    wire = Wire(SocketTransport(sock, context.selector), idle=context.limits.first_bytes_seconds)
    try:
        for _ in range(_TCP_QUERIES):
            size = int.from_bytes(await _exactly(wire, 2), "big")
            if not size or size > MAX_QUERY:
                break
            reply = answer_query(context, await _exactly(wire, size))
            if reply is None:
                break
            await wire.write(len(reply).to_bytes(2, "big") + reply)
    except (Ended, OSError, TimeoutError):
        pass
    finally:
        wire.close()


async def _exactly(wire: Wire, count: int) -> bytes:
    async with asyncio.timeout(10.0):
        while len(wire.buffer) < count:
            if not await wire.more(10.0):
                raise Ended(clean=True)
    data, wire.buffer = wire.buffer[:count], wire.buffer[count:]
    return data
