"""Connections that say nothing, speak a byte at a time or hardly read: they cost little, and others are served as before."""

import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from bot_bottle.bundle.egress.pump import BUFFER
from bot_bottle.bundle.egress.wire import CHUNK
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.door.model import listeners_for
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.conftest import Certificate
from tests.bundle.harness import (
    Bundle,
    Holder,
    Server,
    in_header,
    read_head,
    read_response,
    served,
)
from tests.bundle.hellos import client_hello
from tests.bundle.origins import over_tls, server_context
from tests.bundle.test_dns import addresses, query
from tests.bundle.test_intercept import memory

PROXY, HTTPS, DNS = ("127.0.0.1", 3128), ("192.0.2.9", 443), ("127.0.0.1", 53)
PATIENT = BundleLimits(first_bytes_seconds=600.0, keep_alive_seconds=600.0)
MANY = 500
ROUNDS, BYTES = 4, 32
MIB = 1024
SMALL, LARGE, HUGE = b"ok", 1 << 20, 32 << 20
REQUEST = b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n"


def respond(sock: socket.socket) -> None:
    """A small answer, a megabyte, or more than all buffers on the way take."""
    while True:
        head = read_head(sock)[0]
        size = LARGE if head.startswith(b"GET /large ") else HUGE if head.startswith(b"GET /huge ") else 0
        body = bytes(1 << 18) if size else SMALL
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size or len(body)))
        for _ in range(max(1, size // len(body))):
            sock.sendall(body)


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    trust: ssl.SSLContext

    def http(self) -> socket.socket:
        return self.holder.connect(*PROXY)

    def tls(self) -> socket.socket:
        return self.holder.connect(*HTTPS)

    def opened(self) -> socket.socket:
        return self.trust.wrap_socket(self.tls(), server_hostname="api.test")

    def dns(self) -> socket.socket:
        return self.holder.connect(*DNS)

    def database(self) -> socket.socket:
        """A tunnel of a route for TCP, by the address that its name was given."""
        return self.holder.connect(self.address("db.test"), 5432)

    def address(self, name: str) -> str:
        with self.holder.new_socket(socket.SOCK_DGRAM) as asked:
            asked.connect(DNS)
            asked.send(query(name))
            return addresses(asked.recv(1000))[0]

    def narrow(self, kind: str) -> socket.socket:
        """One that takes as little at a time as the kernel allows, so that what it does not read stays where it came from."""
        at = {"http": PROXY, "opened": HTTPS}.get(kind) or (self.address("db.test"), 5432)
        sock = self.holder.new_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.connect(at)
        return self.trust.wrap_socket(sock, server_hostname="api.test") if kind == "opened" else sock

    def serves_others(self) -> None:
        """Plain, intercepted, and over TCP by the address that DNS gave a name: right answers."""
        with self.http() as sock:
            sock.sendall(REQUEST % (b"http://ok.test/", b"ok.test"))
            assert read_response(sock)[1] == SMALL
        with self.opened() as sock:
            sock.sendall(REQUEST % (b"/", b"api.test"))
            assert read_response(sock)[1] == SMALL
        with self.database() as sock:
            sock.sendall(REQUEST % (b"/", b"db.test"))
            assert read_response(sock)[1] == SMALL


@contextlib.contextmanager
def at(certificate: Certificate, limits: BundleLimits) -> Iterator[Place]:
    plain = Server(respond)
    secret = Server(over_tls(server_context(certificate.certificate, certificate.key), respond))
    routes = (
        plain.http("ok.test"),
        Route("api.test", 443, upstream=secret.upstream(), credential="key"),
        Route("db.test", 5432, "tcp", upstream=plain.upstream()),
        Route("*.many.test", 443, upstream=secret.upstream()),
    )
    policy = EgressPolicy(routes=routes)
    with served(
        policy,
        listeners=listeners_for(policy),
        limits=limits,
        credentials={"key": in_header("X-Key", "s3cret-value")},
        env={"SSL_CERT_FILE": certificate.certificate},
    ) as (holder, bundle):
        told = bundle.hear(lambda message: "authority" in message)["authority"]
        yield Place(holder, bundle, ssl.create_default_context(cadata=told))
    plain.close()
    secret.close()


@pytest.fixture(scope="module")
def place(certificate: Certificate) -> Iterator[Place]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with at(certificate, PATIENT) as made:
        made.serves_others()
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


HELLO = client_hello("api.test")
INNER = REQUEST % (b"/", b"api.test")
PLAIN = REQUEST % (b"http://ok.test/", b"ok.test")
ASKED = len(query("ok.test")).to_bytes(2, "big") + query("ok.test")


@pytest.mark.parametrize(
    ("kind", "says", "each_kib"),
    [
        ("http", PLAIN, 16),
        ("tls", HELLO, 16),
        ("opened", INNER, 80),
        ("dns", ASKED, 16),
        ("database", PLAIN, 16),
    ],
    ids=["a plain request", "a hello", "a request inside TLS", "a query", "a tunnel"],
)
def test_five_hundred_that_say_nothing_and_as_many_that_say_little(
    place: Place, kind: str, says: bytes, each_kib: int
) -> None:
    before = memory(place.bundle.pid, "VmRSS")
    with contextlib.ExitStack() as stack:
        connect: Callable[[], socket.socket] = getattr(place, kind)
        silent = [stack.enter_context(connect()) for _ in range(MANY)]
        slow = [stack.enter_context(connect()) for _ in range(MANY)]
        for at in range(ROUNDS):
            for sock in slow:
                sock.sendall(says[at : at + 1])
            place.serves_others()
        assert (memory(place.bundle.pid, "VmHWM") - before) < 2 * MANY * each_kib + 8 * MIB
        for sock in (
            silent[0],
            slow[0],
        ):  # and they are still there: nobody was crowded out, as there is room
            sock.setblocking(False)
            with pytest.raises((BlockingIOError, ssl.SSLWantReadError)):
                sock.recv(1)
    place.serves_others()


@pytest.mark.parametrize(
    ("kind", "path", "host", "piece"),
    [
        ("http", b"http://ok.test/large", b"ok.test", CHUNK),
        ("opened", b"/large", b"api.test", CHUNK),
        ("database", b"/large", b"db.test", BUFFER),
    ],
)
def test_five_hundred_that_hardly_read(place: Place, kind: str, path: bytes, host: bytes, piece: int) -> None:
    """A megabyte for each, of which no more is held than one `piece` that was read and not taken, and what a connection costs."""
    before = memory(place.bundle.pid, "VmRSS")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(place.narrow(kind)) for _ in range(MANY)]
        for sock in slow:
            sock.sendall(REQUEST % (path, host))
        for at in range(BYTES):
            for sock in slow:
                assert len(sock.recv(1)) == 1
            if at % ROUNDS == 0:
                place.serves_others()
        grown = memory(place.bundle.pid, "VmHWM") - before
        assert grown < MANY * (piece // 1024 + 64), grown // MIB
    place.serves_others()


@pytest.mark.parametrize("name", ["ok.test", "n{}.no.test", "n{}.many.test"])
def test_five_hundred_that_ask_for_names_and_never_read_an_answer(place: Place, name: str) -> None:
    before = memory(place.bundle.pid, "VmRSS")
    with contextlib.ExitStack() as stack:
        askers = [stack.enter_context(place.holder.new_socket(socket.SOCK_DGRAM)) for _ in range(MANY)]
        for sock in askers:
            sock.connect(DNS)
        for at in range(BYTES):
            for number, sock in enumerate(askers):
                sock.send(query(name.format(at * MANY + number)))
            if at % ROUNDS == 0:
                place.serves_others()
        grown = memory(place.bundle.pid, "VmRSS") - before
        assert grown < 16 * MIB, grown // MIB
    place.serves_others()


# When there is room for no other


FEW = 24


@pytest.fixture(scope="module")
def small(certificate: Certificate) -> Iterator[Place]:
    with at(certificate, PATIENT._replace(connections=FEW)) as made:
        yield made


def after_connect(place: Place) -> socket.socket:
    """A tunnel that was opened, and in which no hello comes."""
    sock = place.http()
    sock.sendall(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n")
    assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
    return sock


def after_hello(place: Place) -> socket.socket:
    """TLS that was accepted, and in which the client says nothing more."""
    outgoing = ssl.MemoryBIO()
    tls = place.trust.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="api.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    sock = place.tls()
    sock.sendall(outgoing.read())
    assert sock.recv(1) == b"\x16"
    return sock


def between_requests(place: Place) -> socket.socket:
    sock = place.http()
    sock.sendall(PLAIN)
    assert read_response(sock)[1] == SMALL
    return sock


def has_ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize(
    "idle", [Place.http, Place.tls, after_connect, after_hello, Place.opened, between_requests]
)
def test_whoever_asks_for_nothing_makes_room_for_who_does(
    small: Place, idle: Callable[[Place], socket.socket]
) -> None:
    with contextlib.ExitStack() as stack:
        filling = [stack.enter_context(idle(small)) for _ in range(FEW)]
        small.serves_others()
        gone = sum(has_ended(sock) for sock in filling)
        assert 0 < gone < FEW
    small.bundle.event("egress.refused", reason="crowded_out")


@pytest.mark.parametrize(("path", "size"), [(b"large", LARGE), (b"huge", HUGE)])
def test_an_answer_under_way_arrives_whole(small: Place, path: bytes, size: int) -> None:
    """Whether the bundle still carries it, or has handed all of it to the kernel and could take the connection for idle."""
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(small.http()) for _ in range(4)]
        for sock in busy:
            sock.sendall(REQUEST % (b"http://ok.test/" + path, b"ok.test"))
            read_head(sock)
        for _ in range(FEW - len(busy)):
            stack.enter_context(small.http())
        small.serves_others()
        for sock in busy:
            left = size
            while left > 1 << 17:
                left -= len(sock.recv(1 << 16))


def test_a_crowd_that_comes_back_at_once_keeps_nobody_out(small: Place) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            for _ in range(2 * FEW):
                stack.enter_context(small.http())
            small.serves_others()


def test_when_all_are_at_work_others_wait(small: Place) -> None:
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(small.http()) for _ in range(FEW)]
        for sock in busy:
            sock.sendall(REQUEST % (b"http://ok.test/huge", b"ok.test"))
            read_head(sock)
        late = stack.enter_context(small.http())
        late.sendall(PLAIN)
        late.settimeout(2.0)
        with pytest.raises(TimeoutError):
            late.recv(1)
        late.settimeout(20.0)
        busy[0].close()
        assert read_response(late)[1] == SMALL
