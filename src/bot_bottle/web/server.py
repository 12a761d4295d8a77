"""The page's server: its sockets on loopback, its name, its life."""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

import uvicorn

from bot_bottle.errors import HostError
from bot_bottle.host import crash
from bot_bottle.web.access import LINK_SECONDS, Access
from bot_bottle.web.app import Page, make_app
from bot_bottle.web.connection import allowed_users, connection_class
from bot_bottle.web.desk import OnThread, OpenDesk
from bot_bottle.web.live import Live

CONNECTIONS = 64
_TRIES = 20


class Service:
    """The page of the operator's desk. The port is taken when it is made; `run` serves it until `stop`.

    Its name is new each time and known to nobody else, `NAME.localhost`, which browsers take for loopback: so the page's origin
    has no past (no cookie, no stored page of whoever had the port before), and nobody else's server is sent its cookie.
    """

    def __init__(self, open_desk: OpenDesk, *, port: int = 0, announce: Callable[[str], None]) -> None:
        self.access = Access()
        self._announce = announce
        self._sockets = _loopback(port)
        self.port: int = self._sockets[0].getsockname()[1]
        self.name = f"inbox-{secrets.token_hex(8)}.localhost"
        self._desk = OnThread(open_desk)
        self._deciding = OnThread(open_desk)
        self._live: Live | None = None
        self._server: _Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.started = threading.Event()

    def __enter__(self) -> "Service":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._sockets:
            each.close()
        self._desk.close()
        self._deciding.close()

    def link(self, *, host: str = "") -> str:
        """A new one-time link. The key stands behind the `#`: it is in no request's head and no server's log."""
        return f"http://{host or self.name}:{self.port}/#key={self.access.new_link()}"

    def run(self, *, browse: bool = False) -> None:
        """Serves until `stop`, Ctrl-C or SIGTERM."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quiet(self._announce))
            if browse:
                from bot_bottle.host.browser import opened

                stack.enter_context(opened(self.link(), self._announce))
            asyncio.run(self._serve())

    def stop(self) -> None:
        """Ends `run`, from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._end)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._live = Live(self._desk, self.access)
        page = Page(
            self._desk, self._deciding, self.access, self._live, f"bot-bottle-{self.port}", self._void
        )
        hosts = frozenset(f"{name}:{self.port}" for name in (self.name, "127.0.0.1", "localhost"))
        config = uvicorn.Config(
            make_app(page, hosts=hosts), http=connection_class(allowed_users(), self._announce),
            ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False, server_header=False,
            limit_concurrency=CONNECTIONS, h11_max_incomplete_event_size=16 * 1024, timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = _Server(config)
        with self._listening_to_the_operator():
            self._say_link()
            self.started.set()
            await self._server.serve(self._sockets)
            await self._live.close()

    def _say_link(self) -> None:
        minutes = round(LINK_SECONDS / 60)
        self._announce(f"The inbox, for one browser, good once and for {minutes} minutes:\n  {self.link()}")

    def _void(self) -> None:
        self._announce("Somebody tried many wrong keys, so no link is good any more. Enter gives a new one.")

    def _end(self) -> None:
        if self._server is not None and self._live is not None:
            self._server.should_exit = True
            self._closing = asyncio.ensure_future(self._live.close())

    @contextlib.contextmanager
    def _listening_to_the_operator(self) -> Iterator[None]:
        """Signals end it; Enter at the terminal gives a new link."""
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end)
        if interactive := _at_the_terminal():
            self._announce("Enter gives a link for a further browser; Ctrl-C ends the page.")
            loop.add_reader(sys.stdin.fileno(), self._on_enter, loop)
        try:
            yield
        finally:
            if interactive:
                loop.remove_reader(sys.stdin.fileno())

    def _on_enter(self, loop: asyncio.AbstractEventLoop) -> None:
        if os.read(sys.stdin.fileno(), 4096):
            self._say_link()
        else:
            loop.remove_reader(sys.stdin.fileno())


class _Server(uvicorn.Server):
    """Leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _loopback(port: int) -> list[socket.socket]:
    """Listening sockets on both loopback addresses, with one port: `localhost` may mean either, and neither may be another's.

    Raises HostError.
    """
    for _ in range(1 if port else _TRIES):
        first = _listen(socket.AF_INET, "127.0.0.1", port)
        taken: int = first.getsockname()[1]
        try:
            return [first, _listen(socket.AF_INET6, "::1", taken)]
        except HostError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_IPV6:
                return [first]
            first.close()
            if port:
                raise
    raise HostError("No port is free for the inbox", resolution="Name one with --port.")


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise HostError("The inbox can't be served", details=str(error)) from error
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(CONNECTIONS)
    except OSError as error:
        made.close()
        raise HostError(
            f"The inbox can't be served on {address}, port {port}",
            details=str(error),
            resolution="Name another port with --port, or none: then a free one is taken.",
        ) from error
    return made


def _at_the_terminal() -> bool:
    """Whether a person at the terminal can press Enter, and it would be ours to read."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def _quiet(announce: Callable[[str], None]) -> Iterator[None]:
    """What the server would log is not written to the terminal; an error that nobody foresaw is kept, and said once."""
    handler = _Unforeseen(announce)
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    before = [(logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.handlers = False, [handler]
    try:
        yield
    finally:
        for logger, (propagate, handlers) in zip(loggers, before, strict=True):
            logger.propagate, logger.handlers = propagate, handlers


class _Unforeseen(logging.Handler):
    def __init__(self, announce: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._announce = announce
        self._said = False

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info or self._said:
            return
        self._said = True
        error = record.exc_info[1]
        try:
            raise error if error is not None else RuntimeError(record.getMessage())
        except BaseException:  # noqa: BLE001  the traceback is what is kept
            self._announce(f"An error that nobody foresaw; see {crash.save(['inbox', '--web'])}")
