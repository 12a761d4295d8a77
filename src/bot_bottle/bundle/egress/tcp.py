"""A tcp route's connection: the address that the agent dialled says which name it meant, and nothing of what it carries is read.

The name is then dialled by the host's own look-up, so an address that the agent made up leads nowhere.
"""

import socket
from functools import partial

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.tunnel import carry
from bot_bottle.bundle.egress.wire import SocketTransport, Wire
from bot_bottle.policy.egress import Wanted

_VIA = "tcp"


async def serve_tcp(context: Context, sock: socket.socket, port: int) -> None:
    """Serves one connection that the agent meant to make to `port` of the name whose address it dialled."""
    wire = Wire(SocketTransport(sock, context.selector), idle=context.limits.idle_seconds)
    address = sock.getsockname()[0]
    host = context.names.name_at(address)
    if host is None:
        context.refused(_VIA, "no_name", Wanted(address, port, "tcp"))
        wire.abort()
        return
    judge = partial(context.judge, host=host, port=port, protocol="tcp")
    decision = await context.admitted(_VIA, wire.left, judge)
    if not decision.allowed or decision.route is None:
        context.refused(_VIA, decision.reason, decision.wanted)
        wire.abort()
        return
    context.allowed(_VIA, decision.wanted)
    try:
        upstream = await context.dialer.dial(decision.route, decision.wanted.host, port)
    except DialFailed as error:
        note = context.refused if error.refused else context.failed
        note(_VIA, error.reason, decision.wanted)
        wire.abort()
        return
    await carry(context, _VIA, decision.wanted, wire, sock, upstream)
