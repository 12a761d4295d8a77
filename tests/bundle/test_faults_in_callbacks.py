"""A fault in a callback, above which no task stands: it ends its own connection, is told of, and harms no other.

One function of the real process fails once, or always, with words that nobody may read.
"""

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.door.model import STANDARD, listeners_for
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.conftest import Certificate
from tests.bundle.h2peers import Client, Serving
from tests.bundle.harness import Bundle, Holder, Server, read_response, served, until
from tests.bundle.opened import opened, with_tls
from tests.bundle.test_dns import addresses, query

EGRESS, RECORD, ORDERS = "bot_bottle.bundle.egress.", "bot_bottle.bundle.record", "bot_bottle.bundle.orders"
WORDS = "words-of-the-fault"
FAULT = """
def break_it():
    import importlib
    holder = importlib.import_module({module!r})
    *path, name = {path!r}.split(".")
    for part in path:
        holder = getattr(holder, part)
    real = getattr(holder, name)
    times = [0]
    def broken(*args, **options):
        times[0] += bool({when})
        if {when} and times[0] > {after} and times[0] - {after} <= {most}:
            raise RuntimeError({words!r})
        return real(*args, **options)
    setattr(holder, name, broken)
break_it()
"""
QUICK = BundleLimits(first_bytes_seconds=1.0, keep_alive_seconds=1.0, idle_seconds=1.0)
PATIENT = BundleLimits(first_bytes_seconds=60.0, keep_alive_seconds=60.0, idle_seconds=60.0)
MUCH = b"more than all buffers on the way hold"
REQUEST = b"GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n"


class Fault(NamedTuple):
    """`after` so many calls that go well, those of what is open before; only calls of which `when` is true are counted."""

    module: str
    path: str
    after: int = 0
    most: int = 1
    when: str = "True"

    def hook(self) -> str:
        module = self.module if "." in self.module else EGRESS + self.module
        return FAULT.format(**self._asdict() | {"words": WORDS, "module": module})


class Echo:
    """What came, and how many are served."""

    def __init__(self) -> None:
        self.got, self.busy = b"", 0
        self.server = Server(self._serve)

    def _serve(self, sock: socket.socket) -> None:
        self.busy += 1
        try:
            while data := sock.recv(65536):
                self.got = (self.got + data)[-1000:]
                sock.sendall(bytes(32 << 20) if data == MUCH else data)
        finally:
            self.busy -= 1


def answer(sock: socket.socket) -> None:
    while sock.recv(65536):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    echo: Echo

    def address(self, name: str) -> str:
        with self.holder.new_socket(socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", 53))
            sock.send(query(name))
            return addresses(sock.recv(1000))[0]

    def tcp(self, *, window: int = 0) -> socket.socket:
        """`window`: the bytes that may wait for whoever reads; 0 for what the kernel gives."""
        at = self.address("db.test"), 5432
        if not window:
            return self.holder.connect(*at)
        sock = self.holder.new_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.connect(at)
        return sock

    def http(self) -> socket.socket:
        return self.holder.connect("127.0.0.1", 3128)

    def works(self) -> None:
        """New ones of each kind are served."""
        with self.tcp() as sock:
            said(sock, b"new")
        with self.http() as sock:
            asked(sock)

    def told(self) -> dict[str, object]:
        """The fault's event, in nothing of which its words are."""
        event = self.bundle.hear(lambda message: message.get("data", {}).get("reason") == "internal")["data"]
        assert str(event["detail"]).startswith("RuntimeError in "), event
        assert WORDS not in json.dumps(self.bundle.messages)
        assert not self.bundle.is_gone()
        return event


def said(sock: socket.socket, words: bytes) -> None:
    sock.sendall(words)
    got = b""
    while len(got) < len(words):
        part = sock.recv(100)
        assert part, got
        got += part
    assert got == words


def asked(sock: socket.socket) -> None:
    sock.sendall(REQUEST)
    assert read_response(sock)[1] == b"ok"


def has_ended(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@contextlib.contextmanager
def at(fault: Fault, limits: BundleLimits = PATIENT, *, further: Fault | None = None) -> Iterator[Place]:
    echo, web = Echo(), Server(answer)
    hook = fault.hook() + (further.hook() if further else "")
    policy = EgressPolicy(
        routes=(Route("db.test", 5432, "tcp", upstream=echo.server.upstream()), web.http("ok.test"))
    )
    with served(policy, listeners=listeners_for(policy), limits=limits, hook=hook) as (
        holder,
        bundle,
    ):
        yield Place(holder, bundle, echo)
    echo.server.close()
    web.close()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("pump", "Pump._serve", after=2),
        Fault("pump", "Pump._read", after=2),
        Fault("pump", "Pump._finish"),
    ],
    ids=lambda fault: fault.path,
)
def test_a_tunnel_that_fails_ends_and_the_others_go_on(fault: Fault) -> None:
    with at(fault) as place, place.tcp() as other, place.tcp() as own:
        said(other, b"here")
        own.sendall(b"lost")
        if fault.path == "Pump._finish":
            own.shutdown(socket.SHUT_WR)
        assert has_ended(own)
        assert place.told()["host"] == "db.test"
        said(other, b"still here")
        place.works()


def test_a_tunnel_that_fails_with_bytes_under_way_ends_and_the_others_go_on() -> None:
    """Where they could not be handed on at once, as the agent reads more slowly than they come."""
    with at(Fault("pump", "Pump._drain")) as place, place.tcp() as other, place.tcp(window=1) as own:
        said(other, b"here")
        own.sendall(MUCH)
        assert has_ended(own)
        place.told()
        said(other, b"still here")
        place.works()


def test_a_connection_that_fails_to_be_woken_ends_and_the_others_go_on() -> None:
    with at(Fault("ready", "Ready._happened", when="args[1] & 1")) as place, place.http() as own:
        own.sendall(REQUEST[:9])
        with place.tcp() as other:
            said(other, b"here")  # behind those bytes: they were read, and more are waited for
            with contextlib.suppress(OSError):  # it may have ended by then
                own.sendall(REQUEST[9:10])
            assert has_ended(own)
            place.told()
            said(other, b"still here")
            place.works()


def test_a_connection_whose_timer_fails_ends_and_the_others_go_on() -> None:
    with at(Fault("wire", "_Alarm._ring"), QUICK) as place, place.http() as own:
        assert has_ended(own)
        place.told()
        place.works()


def test_tunnels_are_looked_at_again_after_a_look_that_failed() -> None:
    with at(Fault("pump", "Pump._end_idle"), QUICK) as place, place.tcp() as own:
        said(own, b"here")
        place.told()
        assert has_ended(own)
        place.works()


def test_an_idle_tunnel_that_fails_to_be_ended_ends() -> None:
    with at(Fault("pump", "Pump._finish"), QUICK) as place, place.tcp() as own:
        said(own, b"here")
        assert has_ended(own)
        place.told()
        place.works()


@pytest.mark.parametrize("path", ["Egress._ended", "Egress._begin", "Egress._serve_one", "Egress._handle"])
def test_whoever_comes_behind_one_that_could_not_be_served_is(path: str) -> None:
    with at(Fault("server", path)) as place:
        with contextlib.suppress(ConnectionResetError), place.http() as own:
            if path == "Egress._ended":
                asked(own)
            else:
                assert has_ended(own)
        place.told()
        place.works()


TAKES = "getattr(args[2], '__name__', '') == '_accept'"
AT_FIRST = len([one for one in STANDARD if one.kind != "dns-udp"]) + 1
"""How many listeners are watched for connections before any has come: those of every bottle, and one for TCP."""


@pytest.mark.parametrize(
    "fault",
    [
        Fault("server", "Egress._resume", after=1),
        Fault("asyncio.selector_events", "BaseSelectorEventLoop.add_reader", after=AT_FIRST, when=TAKES),
    ],
    ids=lambda fault: fault.path,
)
def test_where_there_was_room_for_no_other_it_is_tried_again_to_take_one(fault: Fault) -> None:
    with at(fault, PATIENT._replace(connections=2)) as place:
        with place.tcp() as one, place.tcp() as two:
            said(one, b"here")
            said(two, b"here")
            with place.http() as waits:
                waits.sendall(REQUEST)
                one.close()
                place.told()
                two.close()
                assert read_response(waits)[1] == b"ok"
        place.works()


def test_a_connection_that_can_t_be_ended_at_once_is_left_in_order() -> None:
    """What would end it is what is broken."""
    with at(Fault("pump", "Pump._read", after=2), further=Fault("pump", "Pump.stop")) as place:
        with place.tcp() as other, place.tcp() as own:
            said(other, b"here")
            own.sendall(b"lost")
            assert has_ended(own)
            assert place.told()["host"] == "db.test"
            said(other, b"still here")
        place.works()


def test_datagrams_that_fail_are_answered_when_they_are_tried_again() -> None:
    with at(Fault("server", "serve_datagrams")) as place:
        assert place.address("db.test")
        place.told()
        place.works()


def test_what_was_folded_is_reported_though_that_failed_once() -> None:
    refused = REQUEST.replace(b"ok.test", b"no.test")
    with at(Fault(RECORD, "Record.flush")) as place, place.http() as sock:
        for _ in range(3):
            sock.sendall(refused)
            read_response(sock)
        place.told()
        sock.sendall(refused)
        assert read_response(sock)[0].startswith(b"HTTP/1.1 403 "), "it is nobody's timer"
        assert place.bundle.hear(lambda message: message.get("data", {}).get("count"))


@pytest.mark.parametrize(
    "path", ["pump Pump._serve", "pump Pump._read", "server Egress._begin", "server Egress._handle"]
)
def test_what_always_fails_lets_nothing_through_and_names_are_answered_still(path: str) -> None:
    with at(Fault(*path.split(), most=1 << 30)) as place:
        for _ in range(3):
            with contextlib.suppress(OSError), place.tcp() as sock:
                sock.sendall(b"lost")
                assert has_ended(sock)
        place.told()
        until(lambda: not place.echo.busy)
        assert place.echo.got == b""


def test_where_waking_always_fails_whoever_waits_ends() -> None:
    with at(Fault("ready", "Ready._happened", most=1 << 30)) as place:
        for _ in range(3):
            with contextlib.suppress(ConnectionResetError), place.http() as sock:  # as early as that
                assert has_ended(sock)
        place.told()
        with place.tcp() as sock:
            said(sock, b"not by that")


def test_a_fault_in_a_streams_timer_ends_its_connection_and_no_other(
    certificate: Certificate, tmp_path: Path
) -> None:
    def silent(sock: ssl.SSLSocket) -> None:
        Serving(sock, lambda *_: None).run()

    server = Server(with_tls(certificate, silent, "h2"))
    policy = EgressPolicy(routes=(Route("ok.test", 443, upstream=server.upstream(), paths=("/**",)),))
    hook = Fault("asyncio.timeouts", "Timeout._on_timeout").hook()
    limits = PATIENT._replace(idle_seconds=1.0)
    with opened(policy, certificate, tmp_path, limits=limits, hook=hook) as bottle:
        with bottle.connect("ok.test", "h2") as sock:
            client = Client(sock)
            waits = client.answer(client.start())
            assert waits.reset is None, "whose frames may be broken is not told of one stream"
            assert client.ended
        assert bottle.bundle.event("egress.failed", reason="internal")["host"] == "ok.test"
        with bottle.connect("ok.test", "h2") as sock:
            client = Client(sock)
            assert client.answer(client.start())
    server.close()


def test_an_order_that_fails_loses_none_of_those_that_came_with_it() -> None:
    with served(EgressPolicy(), hook=Fault(ORDERS, "Orders._figures").hook()) as (_, bundle):
        bundle.line.sendall(b'{"stats": true}\n{"stats": true}\n')
        told = str(bundle.hear(lambda message: "error" in message)["error"])
        assert told.startswith("RuntimeError in ")
        assert WORDS not in told
        assert bundle.hear(lambda message: "stats" in message)


def test_told_to_stop_it_ends_though_its_last_events_fail() -> None:
    with served(EgressPolicy(), hook=Fault(RECORD, "Record.flush").hook()) as (_, bundle):
        bundle.tell({"stop": True})
        until(bundle.is_gone)
