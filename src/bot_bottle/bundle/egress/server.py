"""The egress proxy of one bottle: accepts on the door's listeners and hands every connection to what serves its kind."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor

from bot_bottle.bundle.egress.asking import Asking
from bot_bottle.bundle.egress.context import Context, Tls
from bot_bottle.bundle.egress.credentials import Credentials
from bot_bottle.bundle.egress.dial import Dialer, OpenTls, make_lively
from bot_bottle.bundle.egress.engine import EngineDialer
from bot_bottle.bundle.egress.faults import INTERNAL
from bot_bottle.bundle.egress.grants import Grants, Tell
from bot_bottle.bundle.egress.http import HttpConnection
from bot_bottle.bundle.egress.live import CROWDED_OUT, Live
from bot_bottle.bundle.egress.names import Names
from bot_bottle.bundle.egress.pump import Pump
from bot_bottle.bundle.egress.resolver import serve_datagrams, serve_stream
from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.bundle.egress.target import Entry
from bot_bottle.bundle.egress.tcp import serve_tcp
from bot_bottle.bundle.egress.tunnel import serve_tls
from bot_bottle.bundle.model import BundleConfig
from bot_bottle.bundle.record import Record
from bot_bottle.door.model import Listener
from bot_bottle.errors import described

_AT_ONCE = 64
_REST_SECONDS = 20.0
_PATIENCE = 1.0
"""Seconds that a connection may say nothing while there is room for no other."""
Place = tuple[str, int, bool]


def place(listener: Listener) -> Place:
    """What tells one socket from another: address, port, and whether it takes datagrams."""
    return listener.address, listener.port, listener.kind == "dns-udp"


def make_context(
    config: BundleConfig,
    record: Record,
    executor: Executor,
    tls: Tls,
    selector: DirectSelector,
    *,
    tell: Tell,
) -> Context:
    """What the connections of `config`'s bottle share, on the running loop, whose selector is `selector`."""
    loop = asyncio.get_running_loop()
    live, grants = Live(), Grants(tell, spent=config.spent, clock=loop.time)
    live.once_over = grants.over
    return Context(
        policy=config.policy,
        credentials=Credentials(config.credentials),
        limits=config.limits,
        bottle_file=config.bottle_file,
        record=record,
        live=live,
        grants=grants,
        asking=Asking(tell, limits=config.limits, able=config.supervised),
        names=Names(config.policy, limit=config.limits.names, first=config.first_name),
        dialer=make_dialer(config, executor, tls.to_proxy),
        pump=Pump(loop, selector, idle=config.limits.idle_seconds),
        selector=selector,
        tls=tls,
    )


def make_dialer(config: BundleConfig, executor: Executor, open_tls: OpenTls | None) -> Dialer:
    """Straight to the upstreams, or through the engine that the policy asks for."""
    if not config.engine_port:
        return Dialer(config.limits, executor, proxy=config.proxy, open_tls=open_tls)
    return EngineDialer(config.limits, executor, port=config.engine_port)


class Egress:
    """Serves the listeners until the process ends; calls `rest` some time after the last connection has ended."""

    def __init__(self, context: Context, *, rest: Callable[[], None] = lambda: None) -> None:
        self._context = context
        self._rest = rest
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[Place, tuple[Listener, socket.socket]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = True
        self._making_room: asyncio.TimerHandle | None = None

    def missing(self, listeners: Sequence[Listener]) -> list[Listener]:
        """Those of `listeners` for which no socket is open here, in order."""
        return [listener for listener in listeners if place(listener) not in self._sockets]

    def serve(self, listeners: Sequence[Listener], further: Sequence[socket.socket]) -> None:
        """Accepts on exactly these listeners from now on; `further` are the sockets that were missing, in their order.

        One whose port no listener has any more is closed: who connects to it is refused at once.
        """
        fresh = {
            place(listener): sock for listener, sock in zip(self.missing(listeners), further, strict=True)
        }
        open_now = {at: sock for at, (_, sock) in self._sockets.items()} | fresh
        for _, sock in self._sockets.values():
            self._loop.remove_reader(sock.fileno())
        self._sockets = {place(listener): (listener, open_now.pop(place(listener))) for listener in listeners}
        for sock in open_now.values():
            sock.close()
        for listener, sock in self._sockets.values():
            if listener.kind != "dns-udp":
                make_lively(sock)
            else:
                self._loop.add_reader(sock.fileno(), serve_datagrams, self._context, sock)
        if self._accepting:
            self._resume()

    def _accept(self, listener: Listener, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if len(self._tasks) >= self._context.limits.connections:
                self._pause()
                self._make_room()
                return
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                return
            except OSError:  # that one vanished, or no descriptor is free: wait for one to end
                if self._tasks:
                    self._pause()
                return
            try:
                self._begin(listener, connection)
            except Exception as error:  # noqa: BLE001 - whoever comes behind it is served
                connection.close()
                self._context.failed(listener.kind, INTERNAL, None, detail=described(error))

    def _begin(self, listener: Listener, sock: socket.socket) -> None:
        sock.setblocking(False)
        task = self._loop.create_task(self._serve_one(listener, sock))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _pause(self) -> None:
        """Leaves further connections in the backlog until one of those here has ended."""
        if self._accepting:
            self._accepting = False
            for _, sock in self._streams():
                self._loop.remove_reader(sock.fileno())

    def _make_room(self) -> None:
        """Ends one that the agent leaves waiting, as soon as there is one: an agent that uses up all that it has may go on."""
        self._making_room = None
        if not self._accepting and (seconds := self._context.live.end_longest_waiting(_PATIENCE)):
            self._making_room = self._loop.call_later(seconds, self._make_room)

    def _resume(self) -> None:
        for listener, sock in self._streams():
            self._loop.add_reader(sock.fileno(), self._accept, listener, sock)
        self._accepting = True  # only now: what fails here is tried again when the next connection has ended

    def _streams(self) -> list[tuple[Listener, socket.socket]]:
        return [pair for pair in self._sockets.values() if pair[0].kind != "dns-udp"]

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not self._tasks and self._resting is None:
            self._resting = self._loop.call_later(_REST_SECONDS, self._rest_if_quiet)
        if not self._accepting:
            if self._making_room is not None:
                self._making_room.cancel()
                self._making_room = None
            self._resume()

    def _rest_if_quiet(self) -> None:
        self._resting = None
        if not self._tasks:
            self._rest()

    async def _serve_one(self, listener: Listener, sock: socket.socket) -> None:
        try:
            with self._context.live.connection(sock) as connection:
                try:
                    await self._handle(listener, sock)
                finally:
                    if connection.ended_by == CROWDED_OUT:
                        self._context.refused(listener.kind, CROWDED_OUT, None)
        except Exception as error:  # noqa: BLE001 - one connection's trouble is no other's; it ends, and lets nothing out
            self._context.failed(listener.kind, INTERNAL, None, detail=described(error))
        finally:
            self._context.selector.drop(sock.fileno())
            sock.close()

    def _handle(self, listener: Listener, sock: socket.socket) -> Coroutine[None, None, None]:
        context = self._context
        if listener.kind == "proxy":
            return HttpConnection(context, sock, Entry("proxy")).run()
        if listener.kind == "dns-tcp":
            return serve_stream(context, sock)
        address = sock.getsockname()[0]
        if listener.kind == "tcp" or self._is_tcp(address, listener.port):
            return serve_tcp(context, sock, listener.port)
        if listener.kind == "http":
            entry = Entry("http", port=listener.port, fits=lambda host: context.names.fits(address, host))
            return HttpConnection(context, sock, entry).run()
        return serve_tls(context, sock, listener.port)

    def _is_tcp(self, address: str, port: int) -> bool:
        """Whether a tcp route names the host that `address` stands for: such a port may be another host's HTTP or TLS."""
        host = self._context.names.name_at(address)
        return host is not None and self._context.speaks_tcp(host=host, port=port)
