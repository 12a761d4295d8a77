"""HTTP as the agent speaks it to the server: uvicorn on the one socket that was handed over, with bounds on time and number.

A connection that sends its request slowly, or does not read its answer, is ended; so is one too many. When nothing has been asked
and nobody has been connected for a while, serving ends by itself.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

MOST_CONNECTIONS = 128
LARGEST_HEAD = 16 * 1024
_KEEP_ALIVE = 5

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Patience(NamedTuple):
    """Seconds: for a request to arrive, for a client to read on, and for nobody to come before it ends."""

    request: float = 10.0
    reading: float = 30.0
    idle: float = 60.0


def posts_only(app: App) -> App:
    """`app` for POST alone: without sessions there is nothing to listen to by GET, and nothing to DELETE."""

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "POST":
            await send({"type": "http.response.start", "status": 405, "headers": [(b"allow", b"POST")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return gate


class _Limit:
    """Ends a connection when that much time has passed since `count`, unless `forget` comes first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def count(self, transport: asyncio.Transport) -> None:
        """Begins to count, if it does not yet."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, transport.abort)

    def forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Connection(H11Protocol):
    """One client's connection, as uvicorn has it, and never for longer than it is of use."""

    patience = Patience()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        self._arriving = _Limit(self.patience.request)
        self._unread = _Limit(self.patience.reading)
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._arriving.count(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._arriving.forget()
        self._unread.forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._arriving.forget()
        else:  # a request that has begun; every byte of it has to come within the same time
            self._arriving.count(self.transport)

    def on_response_complete(self) -> None:
        self._arriving.forget()
        super().on_response_complete()
        if self.transport.is_closing():
            self._unread.count(self.transport)

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread.count(self.transport)

    def resume_writing(self) -> None:
        self._unread.forget()
        super().resume_writing()


class Front(Server):
    """Serves `app` until nobody has come for a while."""

    def __init__(self, app: App, patience: Patience) -> None:
        self._patience = patience
        self._begun: Callable[[], object]
        super().__init__(
            Config(
                posts_only(app),
                http=type("Connection", (Connection,), {"patience": patience}),
                ws="none",
                lifespan="on",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                h11_max_incomplete_event_size=LARGEST_HEAD,
                timeout_graceful_shutdown=None,
            )
        )

    async def run_on(self, listener: socket.socket, *, begun: Callable[[], object]) -> None:
        """Serves on `listener` and returns when nobody has been connected for as long as `patience` says.

        `begun` is called once connections are taken.
        """
        logging.disable(logging.CRITICAL)
        self._begun = begun
        await self._serve([listener])

    async def main_loop(self) -> None:
        self._begun()
        loop = asyncio.get_running_loop()
        pause = min(self._patience.idle / 4, 5.0)
        left_at = loop.time()
        while loop.time() - left_at < self._patience.idle:
            await asyncio.sleep(pause)
            if self.server_state.connections:
                left_at = loop.time()
