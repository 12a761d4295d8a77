"""Behind a company's proxy: everything goes through it that should, and whatever it does is a clear failure."""

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.bundle.model import BundleLimits, Proxy, UpstreamProxy
from bot_bottle.host.proxies import basic
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.secret import Secret
from support.authorities import Authority
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_head, read_response, served, until
from tests.bundle.proxies import Forwarder, tinyproxy

DOOR = {"https_proxy": "http://127.0.0.1:3128", "http_proxy": "http://127.0.0.1:3128"}
QUICK = BundleLimits(proxy_seconds=0.5, dial_seconds=0.5, idle_seconds=20)
PASSWORD = "pa55-word_odd"


def all_by(proxy: Proxy, *direct: str) -> UpstreamProxy:
    return UpstreamProxy(proxy, proxy, proxy, direct)


def over_tls(certificate: Path, handle: Callable[[Any], None]) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as wrapped:
            handle(wrapped)

    return serve


def answer(sock: Any) -> None:
    """Says the request's first line back, again and again."""
    while True:
        head, _ = read_head(sock)
        line = head.split(b"\r\n")[0]
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(line), line))


class World:
    """What is outside: a TLS server for `ok.test` and a plain one, and the authority that signed for them."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("Company")
        self.ca = folder / "ca.pem"
        self.ca.write_text(self.authority.pem)
        self.folder = folder
        self.tls = Server(over_tls(self.authority.leaf(folder, "ok.test"), answer))
        self.plain = Server(answer)

    def policy(self, **more: Any) -> EgressPolicy:
        return EgressPolicy(
            routes=(
                Route("ok.test", self.tls.port, "https", **more),
                Route("ok.test", self.plain.port, "http"),
                Route("gitlab.corp", self.tls.port, "https"),
                Route("intranet", self.plain.port, "http"),
                Route("echo.test", 7, "tcp"),
            )
        )

    def get(self, holder: Holder, *, host: str = "ok.test", tls: bool = True, cacert: str = "") -> Any:
        url = f"https://{host}:{self.tls.port}/a" if tls else f"http://{host}:{self.plain.port}/a"
        return holder.run(["curl", "-sS", "-m", "15", "--cacert", cacert or str(self.ca), url], env=DOOR)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.tls.close()
    made.plain.close()


@pytest.fixture(scope="module")
def company(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real proxy that asks for a login."""
    with tinyproxy(tmp_path_factory.mktemp("proxy"), "ok.test", login=f"me {PASSWORD}") as port:
        yield port


LOGIN = basic(f"me:{PASSWORD}".encode())


@pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])
def test_a_real_proxy_with_a_login_is_gone_through(world: World, company: int, tls: bool) -> None:
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", company, False, LOGIN))) as (holder, bundle):
        asked = world.get(holder, tls=tls)
        assert asked.stdout == b"GET /a HTTP/1.1", asked
        bundle.event("egress.allowed", host="ok.test")
        assert LOGIN.reveal() not in str(bundle.messages)


@pytest.mark.parametrize(
    ("login", "tls"),
    [(None, True), (basic(b"me:wrong"), True), (None, False)],
    ids=["none", "wrong", "none, http"],
)
def test_a_real_proxy_that_takes_no_such_login_is_a_clear_failure(
    world: World, company: int, login: Secret | None, tls: bool
) -> None:
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", company, False, login))) as (holder, bundle):
        asked = world.get(holder, tls=tls)
        bundle.event("egress.failed", host="ok.test", reason="proxy_authentication")
        assert b"502" in asked.stderr if tls else b"proxy_authentication" in asked.stdout
        assert b"inyproxy" not in asked.stdout


def test_tls_that_is_opened_goes_through_a_proxy_and_trusts_the_companys_authority(
    world: World, company: int
) -> None:
    policy = world.policy(paths=("/a",))
    with served(
        policy, proxy=all_by(Proxy("127.0.0.1", company, False, LOGIN)), authorities=world.authority.pem
    ) as (holder, bundle):
        own = world.folder / "bottle.pem"
        own.write_text(bundle.hear(lambda message: "authority" in message)["authority"])
        asked = world.get(holder, cacert=str(own))
        assert asked.stdout == b"GET /a HTTP/1.1", asked
    with served(policy, proxy=all_by(Proxy("127.0.0.1", company, False, LOGIN))) as (holder, bundle):
        own.write_text(bundle.hear(lambda message: "authority" in message)["authority"])
        assert b"certificate_not_valid" in world.get(holder, cacert=str(own)).stdout


def test_names_are_the_proxys_to_resolve_and_the_request_says_no_more_than_it_has_to(world: World) -> None:
    forwarder = Forwarder(world.tls.port)
    server = Server(forwarder)
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", server.port, False, LOGIN))) as (holder, _):
        assert world.get(holder).stdout == b"GET /a HTTP/1.1"
        assert world.get(holder, tls=False).stdout == b"plain"
    server.close()
    connect, plain = (head.decode().split("\r\n") for head in forwarder.heads)
    place = f"ok.test:{world.tls.port}"
    assert connect == [
        f"CONNECT {place} HTTP/1.1",
        f"Host: {place}",
        f"Proxy-Authorization: {LOGIN.reveal()}",
        "",
        "",
    ]
    assert plain[0] == f"GET http://ok.test:{world.plain.port}/a HTTP/1.1"
    assert f"proxy-authorization: {LOGIN.reveal()}" in plain


@pytest.mark.parametrize(
    ("said", "reason", "status"),
    [
        (b"HTTP/1.1 407 Login\r\n\r\n", "proxy_authentication", b"502"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\nsecret", "proxy_refused", b"502"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", "proxy_failed", b"502"),
        (b"HTTP/1.1 504 Late\r\n\r\n", "proxy_failed", b"504"),
        (b"HTTP/1.1 302 Elsewhere\r\nLocation: http://evil.test/\r\n\r\n", "proxy_malformed", b"502"),
        (b"HTTP/1.1 101 Switch\r\n\r\n", "proxy_malformed", b"502"),
        (b"SSH-2.0-proxy\r\n\r\n", "proxy_malformed", b"502"),
        (b"HTTP/1.1 200 OK\nX: y\n\n\r\n\r\n", "proxy_malformed", b"502"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9000, "proxy_malformed", b"502"),
        (b"HTTP/1.1 200 OK\r\n", "proxy_failed", b"502"),
        (b"", "proxy_failed", b"502"),
    ],
)  # fmt: skip
def test_whatever_a_proxy_says_is_a_clear_failure(
    world: World, said: bytes, reason: str, status: bytes
) -> None:
    def say(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(said)

    server = Server(say)
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", server.port)), limits=QUICK) as (
        holder,
        bundle,
    ):
        asked = world.get(holder)
        bundle.event("egress.failed", via="connect", host="ok.test", reason=reason)
        assert status in asked.stderr
        assert b"secret" not in asked.stdout
    server.close()


def test_a_proxy_that_hangs_holds_up_nobody_for_long(world: World) -> None:
    server = Server(lambda sock: read_all(sock) and None)
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", server.port)), limits=QUICK) as (
        holder,
        bundle,
    ):
        asked = world.get(holder)
        bundle.event("egress.failed", reason="proxy_timeout")
        assert b"504" in asked.stderr
    server.close()


def test_a_proxy_that_is_not_there_is_said(world: World) -> None:
    server = Server(answer)
    server.close()
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", server.port)), limits=QUICK) as (
        holder,
        bundle,
    ):
        world.get(holder)
        bundle.event("egress.failed", reason="proxy_unreachable")
        assert b"proxy_unreachable" in world.get(holder, tls=False).stdout


@pytest.mark.parametrize(("host", "tls"), [("gitlab.corp", True), ("intranet", False)])
def test_a_name_that_is_private_by_its_spelling_is_refused_before_the_proxy_hears_of_it(
    world: World, host: str, tls: bool
) -> None:
    server = Server(answer)
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", server.port))) as (holder, bundle):
        world.get(holder, host=host, tls=tls)
        bundle.event("egress.refused", host=host, reason="name_not_public")
        assert server.accepted == 0
    server.close()


def test_exceptions_and_routes_with_an_upstream_go_directly_with_our_own_checks(world: World) -> None:
    server = Server(answer)
    upstream = Route("up.test", world.tls.port, "https", upstream=world.tls.upstream())
    policy = EgressPolicy(routes=(*world.policy().routes, upstream))
    with served(policy, proxy=all_by(Proxy("127.0.0.1", server.port), ".ok.test", "localtest.me")) as (
        holder,
        bundle,
    ):
        world.get(holder)
        failed = bundle.event("egress.failed", host="ok.test")
        assert failed["reason"] in ("not_resolved", "resolve_timeout")
        asked = holder.run(["curl", "-sSk", f"https://up.test:{world.tls.port}/a"], env=DOOR)
        assert asked.stdout == b"GET /a HTTP/1.1", asked
        assert server.accepted == 0
    server.close()


def test_bytes_that_come_with_the_proxys_answer_are_the_upstreams(world: World) -> None:
    """A server that speaks first: its words may come in one piece with the proxy's."""

    def say(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-first\r\n")
        sock.sendall(read_head(sock)[0])

    server = Server(say)
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", server.port))) as (holder, _):
        with holder.connect("127.0.0.1", 3128) as sock:
            sock.sendall(b"CONNECT echo.test:7 HTTP/1.1\r\nHost: echo.test:7\r\n\r\n")
            _, rest = read_head(sock)
            sock.sendall(b"hello\r\n\r\n")
            assert rest + read_all(sock) == b"SSH-2.0-first\r\nhello\r\n\r\n"
    server.close()


# A proxy that wants TLS itself


@contextlib.contextmanager
def tls_proxy(world: World, host: str = "localhost") -> Iterator[tuple[Forwarder, Server]]:
    forwarder = Forwarder(world.tls.port)
    server = Server(over_tls(world.authority.leaf(world.folder, host), forwarder))
    try:
        yield forwarder, server
    finally:
        server.close()


def descriptors(bundle: Bundle) -> int:
    return len(os.listdir(f"/proc/{bundle.pid}/fd"))


def test_a_proxy_that_wants_tls_is_spoken_to_in_tls(world: World) -> None:
    with tls_proxy(world) as (forwarder, server):
        proxy = Proxy("localhost", server.port, True, LOGIN)
        with served(world.policy(), proxy=all_by(proxy), authorities=world.authority.pem) as (holder, bundle):
            before = descriptors(bundle)
            assert world.get(holder).stdout == b"GET /a HTTP/1.1"
            assert world.get(holder, tls=False).stdout == b"plain"
            until(lambda: descriptors(bundle) <= before)
    assert len(forwarder.heads) == 2


def test_much_goes_both_ways_through_tls_to_a_proxy_and_nothing_is_left_open(world: World) -> None:
    """Through a tcp route, so that the end of one direction is seen as well."""
    size = 4 << 20
    counted: list[int] = []

    def count(sock: socket.socket) -> None:
        counted.append(len(read_all(sock)))
        sock.sendall(bytes(size))

    echo = Server(count)
    with tls_proxy(world) as (forwarder, server):
        forwarder.port = echo.port
        proxy = Proxy("localhost", server.port, True)
        with served(world.policy(), proxy=all_by(proxy), authorities=world.authority.pem) as (holder, bundle):
            before = descriptors(bundle)
            with holder.connect("127.0.0.1", 3128) as sock:
                sock.sendall(b"CONNECT echo.test:7 HTTP/1.1\r\nHost: echo.test:7\r\n\r\n")
                read_head(sock)
                sock.sendall(bytes(size))
                sock.shutdown(socket.SHUT_WR)
                until(lambda: counted)
                assert counted == [size]
            until(lambda: descriptors(bundle) <= before)
    echo.close()


def test_an_agent_that_leaves_is_noticed_though_the_upstream_goes_on(world: World) -> None:
    gone = threading.Event()

    def stay(sock: socket.socket) -> None:
        sock.sendall(b"here")
        gone.wait(60)

    upstream = Server(stay)
    with tls_proxy(world) as (forwarder, server):
        forwarder.port = upstream.port
        proxy = Proxy("localhost", server.port, True)
        with served(world.policy(), proxy=all_by(proxy), authorities=world.authority.pem) as (holder, bundle):
            before = descriptors(bundle)
            with holder.connect("127.0.0.1", 3128) as sock:
                sock.sendall(b"CONNECT echo.test:7 HTTP/1.1\r\nHost: echo.test:7\r\n\r\n")
                _, rest = read_head(sock)
                assert rest or sock.recv(10)
                assert descriptors(bundle) > before
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            until(lambda: descriptors(bundle) <= before)
        gone.set()
    upstream.close()


@pytest.mark.parametrize(
    ("host", "trusted", "reason"),
    [("localhost", False, "proxy_certificate"), ("other.test", True, "proxy_certificate")],
)
def test_the_proxys_certificate_is_checked_before_it_hears_a_word(
    world: World, host: str, trusted: bool, reason: str
) -> None:
    with tls_proxy(world, host) as (forwarder, server):
        proxy = Proxy("localhost", server.port, True, LOGIN)
        authorities = world.authority.pem if trusted else ""
        with served(world.policy(), proxy=all_by(proxy), authorities=authorities) as (holder, bundle):
            world.get(holder)
            bundle.event("egress.failed", reason=reason)
    assert forwarder.heads == []


def test_a_proxy_that_speaks_no_tls_is_said(world: World) -> None:
    server = Server(lambda sock: sock.sendall(b"HTTP/1.1 400 No\r\n\r\n"))
    proxy = Proxy("localhost", server.port, True)
    with served(world.policy(), proxy=all_by(proxy)) as (holder, bundle):
        world.get(holder)
        bundle.event("egress.failed", reason="proxy_tls_failed")
    server.close()


def test_the_agent_gives_no_login_and_hears_of_none(world: World) -> None:
    """Its own Proxy-Authorization is for this hop only, and 407 is between the proxy and the bundle."""
    seen: list[bytes] = []

    def refuse(sock: socket.socket) -> None:
        head, _ = read_head(sock)
        seen.append(head)
        sock.sendall(b"HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")

    server = Server(refuse)
    with served(world.policy(), proxy=all_by(Proxy("127.0.0.1", server.port))) as (holder, bundle):
        with holder.connect("127.0.0.1", 3128) as sock:
            place = b"ok.test:%d" % world.plain.port
            sock.sendall(
                b"GET http://%b/a HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
                % (place, place)
            )
            head, _ = read_response(sock)
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"proxy-authenticate" not in head.lower()
        bundle.event("egress.failed", reason="proxy_authentication")
    server.close()
    assert b"authorization" not in seen[0].lower()
