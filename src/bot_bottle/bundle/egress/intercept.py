"""Accepting a TLS connection of the agent's in the place of the host that it names, for routes that need it opened.

The hello was judged before; here it is answered with a leaf of the bottle's own authority, and what is said inside is served
and judged request by request like plain HTTP, for that one host and port.
"""

import socket
import ssl
from collections.abc import Awaitable, Callable

from bot_bottle.bundle.egress.authority import Authority, NotCovered
from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.hello import INTERNAL_ERROR, NO_APPLICATION_PROTOCOL, Hello
from bot_bottle.bundle.egress.http import HttpConnection
from bot_bottle.bundle.egress.target import Authority as HostAndPort
from bot_bottle.bundle.egress.target import Entry
from bot_bottle.bundle.egress.tls import TlsTransport
from bot_bottle.bundle.egress.wire import Wire, say_last
from bot_bottle.policy.egress import Wanted

ServeTls = Callable[[Context, str, Wanted, TlsTransport], Awaitable[None]]
_HTTP_1 = b"http/1.1"


class Interceptor:
    """Opens one bottle's TLS. `serve_h2` takes clients that speak nothing but HTTP/2; without it they are refused."""

    def __init__(self, authority: Authority, *, serve_h2: ServeTls | None = None) -> None:
        self.authority = authority
        self._serve_h2 = serve_h2

    async def serve(
        self, context: Context, via: str, wanted: Wanted, wire: Wire, sock: socket.socket, hello: Hello
    ) -> None:
        """Serves the connection to its end; the bytes of its `hello` are in the buffer of `wire`."""
        only_h2 = bool(hello.protocols) and _HTTP_1 not in hello.protocols
        if only_h2 and (self._serve_h2 is None or b"h2" not in hello.protocols):
            offered = b" ".join(hello.protocols).decode("latin-1")
            context.refused(via, "application_protocol", wanted, detail=offered)
            await say_last(wire, NO_APPLICATION_PROTOCOL)
            return
        try:
            tls = self.authority.context(wanted.host)
        except NotCovered:
            context.failed(via, "no_authority", wanted)
            await say_last(wire, INTERNAL_ERROR)
            return
        wire.release()
        transport = TlsTransport(sock, context.selector, tls, first=wire.buffer)
        if not await _accepted(context, via, wanted, transport):
            return
        if only_h2 and self._serve_h2 is not None:
            await self._serve_h2(context, via, wanted, transport)
            return
        inner = Wire(transport, idle=context.limits.idle_seconds)
        entry = Entry(via, fixed=HostAndPort(wanted.host, wanted.port), protocol="https")
        await HttpConnection(context, sock, entry, inner).run()


async def _accepted(context: Context, via: str, wanted: Wanted, transport: TlsTransport) -> bool:
    context.live.waits()
    try:
        await transport.handshake(context.limits.first_bytes_seconds)
    except ssl.SSLError as error:  # most often: the agent's program does not know the bottle's authority
        context.failed(via, "agent_tls_failed", wanted, detail=error.reason or "")
    except TimeoutError:
        context.failed(via, "agent_tls_timeout", wanted)
    except OSError:
        context.failed(via, "agent_tls_failed", wanted, detail="the connection ended")
    else:
        return True
    transport.close()
    return False
