"""With a second engine behind the door: what leaves has passed both, and the engine itself is never the agent's to speak to."""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.engine import EngineDialer
from bot_bottle.bundle.egress.hooks import Head
from bot_bottle.bundle.model import BundleLimits, Proxy
from bot_bottle.engines.pipelock.process import Pipelock, Settings
from bot_bottle.policy.model import EgressPolicy, Route, Upstream
from bundle.conftest import Certificate
from bundle.harness import Bundle, Holder, Server, read_head, read_response, until
from support.pipelock import KINDS, provide, skip_unless_there
from support.place import make_place

HOST = "localhost"
"""The one name that every machine resolves; pipelock and the bundle are told in these tests that its address is a public one."""
HOOK = """
from bot_bottle.bundle.egress import dial
dial.address_is_public = lambda address: True
dial._is_own = lambda address: False
"""
KEY = b"AKIA" + b"IOSFODNN7EXAMPLE"


class Chain:
    """The bottle's network, the bundle, and pipelock behind it. `policy` is the bundle's, `engine` pipelock's."""

    def __init__(
        self, program: str, folder: Path, policy: EgressPolicy, engine: EgressPolicy, **more: Any
    ) -> None:
        settings = Settings(program, str(folder / "config"), 1_879_048_100, 1_879_048_100, trusted=(HOST,))
        self.seen: list[Any] = []
        self.engine = Pipelock(settings, engine)
        self.engine.start()
        self.engine.wait_ready()
        self.holder = Holder()
        self.bundle = Bundle(policy, self.holder, hook=HOOK, engine_port=self.engine.port, **more)

    def ask(self, request: str) -> tuple[bytes, bytes]:
        with self.holder.connect("127.0.0.1", 3128) as sock:
            sock.sendall(request.encode())
            return read_response(sock)

    def logged(self, event: str, **fields: str) -> Any:
        """A line of pipelock's log about what came through it."""

        def found() -> Any:
            self.seen.extend(self.engine.read() or ())
            return [
                line for line in self.seen if line.event == event and fields.items() <= line.fields.items()
            ]

        return until(found)[0]

    def close(self) -> None:
        self.bundle.close()
        self.holder.close()
        self.engine.stop()


@pytest.fixture(params=KINDS)
def chained(request: pytest.FixtureRequest) -> Iterator[Callable[..., Chain]]:
    skip_unless_there(request.param)
    place = make_place(os.geteuid())
    program = str(provide(request.param, place.root) / "pipelock")
    made: list[Chain] = []

    def chain(*routes: Route, engine: tuple[Route, ...] | None = None, **more: Any) -> Chain:
        allowed = EgressPolicy(routes=routes, engine="pipelock")
        second = allowed if engine is None else EgressPolicy(routes=engine, engine="pipelock")
        made.append(Chain(program, place.root, allowed, second, **more))
        return made[-1]

    yield chain
    for one in made:
        one.close()
    place.remove()


@pytest.fixture
def server() -> Iterator[Server]:
    def handle(sock: Any) -> None:
        head, _ = read_head(sock)
        body = head
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    made = Server(handle)
    yield made
    made.close()


def test_a_plain_request_goes_through_pipelock_and_arrives(chained, server) -> None:
    chain = chained(Route(host=HOST, port=server.port, protocol="http"))
    url = f"http://{HOST}:{server.port}/a?b=c"
    head, body = chain.ask(
        f"GET {url} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\nX-Pipelock-Agent: root\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 200")
    assert body.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"x-pipelock" not in body.lower()
    assert chain.logged("forward_http").text("url").startswith(f"http://{HOST}:{server.port}/a")


def test_a_secret_in_a_plain_request_is_stopped_by_pipelock(chained, server) -> None:
    chain = chained(Route(host=HOST, port=server.port, protocol="http"))
    head, _ = chain.ask(
        f"GET http://{HOST}:{server.port}/ HTTP/1.1\r\nHost: {HOST}:{server.port}\r\nX-Key: {KEY.decode()}\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 403")
    assert server.accepted == 0


def tls_server(certificate: Certificate) -> Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    def handle(sock: Any) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            while data := secured.recv(65536):
                secured.sendall(data)

    return Server(handle)


def test_tls_is_tunnelled_through_pipelock_in_both_ways_of_dialling(chained, certificate) -> None:
    server = tls_server(certificate)
    try:
        chain = chained(Route(host=HOST, port=server.port))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = chain.holder.connect("127.0.0.1", 3128)
        sock.sendall(f"CONNECT {HOST}:{server.port} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode())
        assert read_head(sock)[0].startswith(b"HTTP/1.1 200")
        with context.wrap_socket(sock, server_hostname=HOST) as secured:
            secured.sendall(b"there and back")
            assert secured.recv(100) == b"there and back"
        assert chain.logged("tunnel_open").text("target") == f"{HOST}:{server.port}"
        assert chain.logged("tunnel_close").number("total_bytes") > 0
    finally:
        server.close()


def test_rules_about_requests_are_kept_inside_tls_by_our_proxy_and_the_tunnel_is_pipelocks(
    chained, certificate
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.certificate, certificate.key)

    def handle(sock: Any) -> None:
        with tls.wrap_socket(sock, server_side=True) as secured:
            head, _ = read_head(secured)
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)

    server = Server(handle)
    try:
        chain = chained(
            Route(host=HOST, port=server.port, paths=("/open/**",)),
            env={"SSL_CERT_FILE": certificate.certificate},
        )
        authority = chain.bundle.hear(lambda message: "authority" in message)["authority"]
        context = ssl.create_default_context(cadata=authority)
        for path, status in (("/open/a", b"200"), ("/shut", b"403")):
            sock = chain.holder.connect("127.0.0.1", 3128)
            sock.sendall(
                f"CONNECT {HOST}:{server.port} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode()
            )
            assert read_head(sock)[0].startswith(b"HTTP/1.1 200")
            with context.wrap_socket(sock, server_hostname=HOST) as secured:
                secured.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode())
                head, body = read_response(secured)
                assert head.startswith(b"HTTP/1.1 " + status)
                assert body.startswith(f"GET {path} HTTP/1.1".encode()) == (status == b"200")
        assert chain.logged("tunnel_open").text("target") == f"{HOST}:{server.port}"
    finally:
        server.close()


def test_what_our_policy_refuses_never_reaches_pipelock(chained, server) -> None:
    chain = chained(
        Route(host=HOST, port=server.port, protocol="http", paths=("/open/**",)),
        engine=(Route(host=HOST, port=server.port), Route(host="other.test", port=80)),
    )
    for url in (f"http://{HOST}:{server.port}/shut", f"http://{HOST}:1/open/", "http://other.test/"):
        authority = url.split("/")[2]
        head, body = chain.ask(f"GET {url} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403")
        assert b'"error": "refused"' in body
    assert not [line for line in chain.engine.read() or () if line.event in ("blocked", "forward_http")]
    assert server.accepted == 0


def test_what_only_our_policy_allows_pipelock_refuses(chained, server) -> None:
    chain = chained(Route(host=HOST, port=server.port), engine=(Route(host="other.test", port=443),))
    head, body = chain.ask(f"CONNECT {HOST}:{server.port} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 ")
    assert b'"reason": "engine_refused"' in body
    chain.logged("blocked")
    assert server.accepted == 0


def test_pipelocks_own_pages_are_out_of_the_agents_reach(chained, server) -> None:
    chain = chained(Route(host=HOST, port=server.port, protocol="http"))
    port = chain.engine.port
    for page in ("/health", "/metrics", "/stats", "/fetch?url=http://other.test/", "/ws"):
        head, body = chain.ask(
            f"GET http://{HOST}:{server.port}{page} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n"
        )
        assert body.startswith(f"GET {page} HTTP/1.1".encode()), head  # the upstream's, not pipelock's
        for authority in (f"127.0.0.1:{port}", f"{HOST}:{port}"):
            head, _ = chain.ask(f"GET http://{authority}{page} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 403")
    with pytest.raises(ConnectionRefusedError):
        chain.holder.connect("127.0.0.1", port)  # the bottle's loopback is its own


def test_a_dead_engine_is_no_way_out_and_a_living_one_is_again(chained, server) -> None:
    chain = chained(Route(host=HOST, port=server.port, protocol="http"))
    request = f"GET http://{HOST}:{server.port}/ HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n"
    chain.engine.stop()
    head, body = chain.ask(request)
    assert head.startswith(b"HTTP/1.1 502")
    assert b'"engine_down"' in body
    assert server.accepted == 0
    chain.bundle.event("egress.failed", reason="engine_down")
    chain.engine.start()
    chain.engine.wait_ready()
    assert chain.ask(request)[0].startswith(b"HTTP/1.1 200")


def test_a_bundle_that_was_told_of_the_end_dials_nobody_on_that_port(chained, server) -> None:
    chain = chained(Route(host=HOST, port=server.port, protocol="http"))
    request = f"GET http://{HOST}:{server.port}/ HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n"
    chain.bundle.line.sendall(b'{"engine": false}\n')
    until(lambda: chain.ask(request)[0].startswith(b"HTTP/1.1 502"))
    chain.bundle.line.sendall(b'{"engine": true}\n')
    until(lambda: chain.ask(request)[0].startswith(b"HTTP/1.1 200"))


def test_a_route_with_an_upstream_goes_straight_there(chained, server) -> None:
    chain = chained(server.http("near.test"))
    head, _ = chain.ask("GET http://near.test/ HTTP/1.1\r\nHost: near.test\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert not [line for line in chain.engine.read() or () if line.event != "tunnel_close"]


def test_a_protocol_that_the_engine_does_not_carry_is_not_dialled_past_it() -> None:
    dialer = EngineDialer(BundleLimits(), None, port=1)  # type: ignore[arg-type]
    with pytest.raises(DialFailed) as failed:
        asyncio.run(dialer.dial(Route(host="db.test", port=5432, protocol="tcp"), "db.test", 5432))
    assert failed.value.reason == "engine_cannot"
    assert failed.value.refused


def test_a_request_is_changed_only_where_pipelock_is_to_read_it() -> None:
    dialer = EngineDialer(BundleLimits(), None, port=1)  # type: ignore[arg-type]
    head = Head(b"/a", [(b"x-pipelock-agent", b"root"), (b"accept", b"*/*")])
    plain = Route(host="a.test", port=80, protocol="http")
    assert dialer.proxy_for(plain, "a.test", 80) == Proxy("127.0.0.1", 1)
    assert dialer.forward(head, plain).headers == [(b"accept", b"*/*")]
    for route in (Route(host="a.test", port=443), plain._replace(upstream=Upstream("127.0.0.1", 8080))):
        assert dialer.proxy_for(route, "a.test", 443) is None
        assert dialer.forward(head, route) == head
