"""Plain HTTP in motion: bodies stream both ways, and whatever one side does wrong harms only its own connection."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route, Upstream
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_head, read_response, served

PROXY = ("127.0.0.1", 3128)
LIMITS = BundleLimits(first_bytes_seconds=2.0, idle_seconds=5.0, dial_seconds=2.0)


class Scripted:
    """An upstream whose next connections are served by `serve`."""

    def __init__(self) -> None:
        self.serve: Callable[[socket.socket], None] = lambda sock: None
        self.server = Server(lambda sock: self.serve(sock))


@pytest.fixture(scope="module")
def bottle() -> Iterator[tuple[Holder, Bundle, Scripted]]:
    scripted = Scripted()
    nobody = socket.create_server(("127.0.0.1", 0))
    dead = Route(
        host="dead.test",
        port=80,
        protocol="http",
        upstream=Upstream(host="127.0.0.1", port=nobody.getsockname()[1]),
    )
    nobody.close()
    private = Route(host="localhost", port=80, protocol="http")
    policy = EgressPolicy(routes=(scripted.server.http("ok.test"), dead, private))
    with served(policy, limits=LIMITS) as (holder, bundle):
        yield holder, bundle, scripted
    scripted.server.close()


def request(method: str = "GET", *fields: str, version: str = "1.1", host: str = "ok.test") -> bytes:
    lines = [f"{method} http://{host}/ HTTP/{version}", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def test_events_of_a_stream_pass_as_they_come(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, _, scripted = bottle
    go_on = threading.Semaphore(0)

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            sock.sendall(b"9\r\ndata: %d\n\n\r\n" % number)
            go_on.acquire(timeout=10)
        sock.sendall(b"0\r\n\r\n")

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        sock.sendall(request())
        head, data = read_head(sock)
        assert b"content-type: text/event-stream" in head
        for number in range(3):
            while b"data: %d\n\n" % number not in data:
                data += sock.recv(1000)
            assert b"data: %d" % (number + 1) not in data
            go_on.release()
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(1000)


def test_a_large_body_goes_up_while_the_answer_comes_down(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, _, scripted = bottle
    size = 8 << 20

    def serve(sock: socket.socket) -> None:
        _, rest = read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        left = size - len(rest)
        sock.sendall(rest)
        while left:
            part = sock.recv(65536)
            left -= len(part)
            sock.sendall(part)

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        threading.Thread(
            target=sock.sendall, args=(request("POST", f"Content-Length: {size}") + bytes(size),), daemon=True
        ).start()
        head, body = read_response(sock)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) == size


def test_one_upstream_connection_serves_several_requests(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, _, scripted = bottle

    def serve(sock: socket.socket) -> None:
        while True:
            read_head(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    scripted.serve = serve
    before = scripted.server.accepted
    with holder.connect(*PROXY) as sock:
        for _ in range(5):
            sock.sendall(request())
            assert read_response(sock)[1] == b"ok"
    assert scripted.server.accepted == before + 1


def test_a_kept_upstream_connection_that_has_closed_is_made_anew(
    bottle: tuple[Holder, Bundle, Scripted],
) -> None:
    holder, _, scripted = bottle

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        for _ in range(5):
            sock.sendall(request())
            assert read_response(sock)[1] == b"ok"


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1)])
def test_what_may_have_been_done_is_done_again_only_when_that_is_the_same(
    bottle: tuple[Holder, Bundle, Scripted], method: str, times: int
) -> None:
    """The upstream takes the second request of a connection, and ends without an answer."""
    holder, _, scripted = bottle
    taken: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        for number in range(2):
            head, _ = read_head(sock)
            taken.append(head.partition(b" ")[0])
            if number == 0:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        sock.sendall(request())
        read_response(sock)
        sock.sendall(request(method))
        head, _ = read_response(sock)
    assert taken[1:] == [method.encode()] * times
    assert head.startswith(b"HTTP/1.1 200 " if times == 2 else b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("method", "answer", "ends"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"content-length: 500\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"content-length: 9\r\n\r\n"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"content-length: 0\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_response_without_a_body_leaves_the_connection_usable(
    bottle: tuple[Holder, Bundle, Scripted], method: str, answer: bytes, ends: bytes
) -> None:
    holder, _, scripted = bottle

    def serve(sock: socket.socket) -> None:
        while True:
            read_head(sock)
            sock.sendall(answer)

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        for _ in range(2):
            sock.sendall(request(method))
            head, rest = read_head(sock)
            assert head.endswith(ends)
            assert rest == b""


def test_a_response_that_ends_with_its_connection_is_framed(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, _, scripted = bottle

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        sock.sendall(request())
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(1000)
        assert b"5\r\nhello\r\n" in data
    with holder.connect(*PROXY) as sock:
        sock.sendall(request(version="1.0"))
        assert read_all(sock).endswith(b"connection: close\r\n\r\nhello")


def test_a_body_that_waits_for_the_go_ahead_gets_it(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, _, scripted = bottle
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        head, body = read_head(sock)
        while len(body) < 5:
            body += sock.recv(10)
        seen.append(head + body)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        sock.sendall(request("POST", "Expect: 100-continue", "Content-Length: 5"))
        assert read_head(sock) == (b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        sock.sendall(b"hello")
        assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
    assert seen[0].endswith(b"hello")
    assert b"expect" not in seen[0]
    with holder.connect(*PROXY) as sock:
        sock.sendall(request("POST", "Expect: 100-continue", "Content-Length: 5", host="evil.test"))
        assert read_head(sock)[0].startswith(b"HTTP/1.1 403 ")


def test_a_response_that_breaks_off_is_seen_to_be_broken(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, _, scripted = bottle

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        sock.sendall(request())
        with pytest.raises(ConnectionResetError):
            read_all(sock)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", b"upstream_failed"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"upstream_malformed"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"upstream_malformed"),
        (b"nonsense\r\n\r\n", b"upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100000, b"upstream_malformed"),
    ],
)
def test_an_upstream_that_answers_badly_is_reported(
    bottle: tuple[Holder, Bundle, Scripted], answer: bytes, reason: bytes
) -> None:
    holder, bundle, scripted = bottle

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)

    scripted.serve = serve
    with holder.connect(*PROXY) as sock:
        sock.sendall(request())
        head, body = read_response(sock)
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b'"error": "failed"' in body
    assert reason in body
    bundle.event("egress.failed", host="ok.test", reason=reason.decode())


def test_an_upstream_that_is_not_there_is_reported(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, bundle, _ = bottle
    with holder.connect(*PROXY) as sock:
        sock.sendall(request(host="dead.test"))
        head, body = read_response(sock)
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"connect_failed" in body
    bundle.event("egress.failed", host="dead.test", reason="connect_failed")


def test_a_name_that_resolves_to_the_host_is_refused_after_resolving(
    bottle: tuple[Holder, Bundle, Scripted],
) -> None:
    holder, bundle, _ = bottle
    with holder.connect(*PROXY) as sock:
        sock.sendall(request(host="localhost"))
        head, body = read_response(sock)
    assert head.startswith(b"HTTP/1.1 403 ")
    assert b"address_not_public" in body
    bundle.event("egress.refused", host="localhost", reason="address_not_public")


def test_slow_and_silent_clients_are_let_go_and_harm_no_one(bottle: tuple[Holder, Bundle, Scripted]) -> None:
    holder, _, scripted = bottle

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    scripted.serve = serve
    slow = [holder.connect(*PROXY) for _ in range(20)]
    for sock in slow:
        sock.sendall(b"GET http://ok.te")
    with holder.connect(*PROXY) as sock:
        sock.sendall(request())
        assert read_response(sock)[1] == b"ok"
    for sock in slow:
        assert sock.recv(100) == b""
        sock.close()
    with holder.connect("192.0.2.1", 443) as sock:
        sock.sendall(b"\x16\3\1")
        assert sock.recv(100) == b""


def test_beyond_the_limit_connections_wait_instead_of_failing() -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    server = Server(serve)
    policy = EgressPolicy(routes=(server.http("ok.test"),))
    with served(policy, limits=BundleLimits(connections=4)) as (holder, _):
        idle = [holder.connect(*PROXY) for _ in range(4)]
        with holder.connect(*PROXY) as waiting:
            waiting.sendall(request())
            idle.pop().close()
            assert read_response(waiting)[1] == b"ok"
        for sock in idle:
            sock.close()
    server.close()
