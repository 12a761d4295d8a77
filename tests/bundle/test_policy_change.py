"""Another policy in a bundle that serves: in force at once or not at all, confirmed only when what it forbids has ended."""

import contextlib
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from bot_bottle.door.model import listeners_for
from bot_bottle.policy.model import EgressPolicy, Route, Upstream
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_head, read_response, served, until
from tests.bundle.hellos import client_hello

GET = "GET http://{}/ HTTP/1.1\r\nHost: {}\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer(connection: socket.socket) -> None:
    """Answers each request; one for `/slow` with a head and a first piece only."""
    while True:
        head, _ = read_head(connection)
        if b" /slow " in head:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst")
        else:
            connection.sendall(OK)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


@pytest.fixture
def web() -> Iterator[Server]:
    server = Server(answer)
    yield server
    server.close()


@pytest.fixture
def tls() -> Iterator[Server]:
    server = Server(echo)
    yield server
    server.close()


def order(bundle: Bundle, policy: EgressPolicy | dict[str, Any], **more: Any) -> dict[str, Any]:
    """The bundle's answer to an order for `policy`."""
    bundle.messages.clear()
    document = policy.document() if isinstance(policy, EgressPolicy) else policy
    bundle.line.sendall(json.dumps({"policy": document, **more}).encode() + b"\n")
    return bundle.hear(lambda message: "policy" in message or "policy_refused" in message)


def put(bundle: Bundle, policy: EgressPolicy, **more: Any) -> None:
    assert order(bundle, policy, **more).get("policy") == policy.fingerprint()


def status(holder: Holder, host: str) -> int:
    with holder.connect("127.0.0.1", 3128) as sock:
        sock.sendall(GET.format(host, host).encode())
        return int(read_head(sock)[0].split()[1])


def is_reset(sock: socket.socket) -> bool:
    try:
        return read_all(sock) == b""
    except ConnectionResetError:
        return True


def tunnel(holder: Holder, host: str) -> socket.socket:
    """A tunnel to `host` that echoes, its hello sent and echoed."""
    sock = holder.connect("127.0.0.1", 3128)
    sock.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
    assert b" 200 " in read_head(sock)[0]
    hello = client_hello(host)
    sock.sendall(hello)
    left = len(hello)
    while left:
        left -= len(sock.recv(left))
    return sock


def test_it_is_in_force_when_it_is_confirmed(web: Server) -> None:
    with served(EgressPolicy(routes=(web.http("one.test"),))) as (holder, bundle):
        assert (status(holder, "one.test"), status(holder, "two.test")) == (200, 403)
        put(bundle, EgressPolicy(routes=(web.http("two.test"),)))
        assert (status(holder, "one.test"), status(holder, "two.test")) == (403, 200)


def test_tunnels_that_it_forbids_end_and_others_go_on(tls: Server) -> None:
    one, two = tls.https("one.test"), tls.https("two.test")
    with served(EgressPolicy(routes=(one, two))) as (holder, bundle):
        with tunnel(holder, "one.test") as ends, tunnel(holder, "two.test") as stays:
            put(bundle, EgressPolicy(routes=(two,)))
            assert is_reset(ends)
            stays.sendall(b"still here")
            assert stays.recv(100) == b"still here"
            data = bundle.event("egress.closed", host="one.test")
            assert data["reason"] == "policy_changed"
            assert data["up"] == data["down"] == len(client_hello("one.test"))


def test_an_idle_connection_that_it_forbids_ends_and_another_goes_on(web: Server) -> None:
    one, two = web.http("one.test"), web.http("two.test")
    with served(EgressPolicy(routes=(one, two))) as (holder, bundle):
        socks = []
        for host in ("one.test", "two.test"):
            sock = holder.connect("127.0.0.1", 3128)
            sock.sendall(GET.format(host, host).encode())
            assert read_response(sock)[1] == b"ok"
            socks.append(sock)
        put(bundle, EgressPolicy(routes=(two,)))
        assert is_reset(socks[0])
        socks[1].sendall(GET.format("two.test", "two.test").encode())
        assert read_response(socks[1])[1] == b"ok"
        assert web.accepted == 2
        for sock in socks:
            sock.close()


def test_when_it_is_confirmed_everything_that_it_forbids_has_ended(web: Server) -> None:
    with served(EgressPolicy(routes=(web.http("one.test"),))) as (holder, bundle):
        socks = []
        for _ in range(200):
            sock = holder.connect("127.0.0.1", 3128)
            sock.sendall(GET.format("one.test", "one.test").encode())
            assert read_response(sock)[1] == b"ok"
            sock.setblocking(False)
            socks.append(sock)
        put(bundle, EgressPolicy())
        ended = 0
        for sock in reversed(socks):
            with contextlib.suppress(ConnectionResetError, BlockingIOError):
                sock.recv(1)
                continue
            with contextlib.suppress(BlockingIOError):
                ended += sock.recv(1) == b""  # a reset is told once, and is the end from then on
            sock.close()
        assert ended == 200


def test_a_response_under_way_is_broken_off_and_not_ended(web: Server) -> None:
    with served(EgressPolicy(routes=(web.http("one.test"),))) as (holder, bundle):
        with holder.connect("127.0.0.1", 3128) as sock:
            sock.sendall(b"GET http://one.test/slow HTTP/1.1\r\nHost: one.test\r\n\r\n")
            _, rest = read_head(sock)
            while rest != b"first":
                rest += sock.recv(100)
            put(bundle, EgressPolicy())
            with pytest.raises(ConnectionResetError):
                read_all(sock)
        assert bundle.event("egress.closed")["reason"] == "policy_changed"


def test_a_connection_whose_upstream_moves_ends(tls: Server, web: Server) -> None:
    with served(EgressPolicy(routes=(tls.https("one.test"),))) as (holder, bundle):
        with tunnel(holder, "one.test") as sock:
            put(bundle, EgressPolicy(routes=(web.https("one.test"),)))
            assert is_reset(sock)


def test_a_tunnel_that_has_to_be_opened_now_ends(tls: Server) -> None:
    route, opened = tls.https("one.test"), tls.https("two.test")._replace(paths=("/x",))
    with served(EgressPolicy(routes=(route, opened))) as (holder, bundle):
        with tunnel(holder, "one.test") as sock:
            put(bundle, EgressPolicy(routes=(route._replace(methods=("GET",)), opened)))
            assert is_reset(sock)
            assert bundle.event("egress.closed", host="one.test")["reason"] == "policy_changed"


def test_what_a_bundle_has_no_means_for_changes_nothing_and_is_said(tls: Server) -> None:
    route = tls.https("one.test")
    with served(EgressPolicy(routes=(route,))) as (holder, bundle):
        with tunnel(holder, "one.test") as sock:
            refused = order(bundle, EgressPolicy(routes=(route._replace(methods=("GET",)),)))
            assert "started without" in refused["policy_refused"]
            sock.sendall(b"on")
            assert sock.recv(10) == b"on"


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[Server]:
    """The web server behind TLS, as `api.test`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as wrapped:
            answer(wrapped)

    server = Server(serve)
    yield server
    server.close()


def opened(holder: Holder, host: str) -> ssl.SSLSocket:
    """A connection to `host` that the bundle opens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sock = holder.connect("192.0.2.1", 443)
    return context.wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=False)


def test_requests_inside_tls_end_by_the_rule_that_let_them_through(
    secure: Server, certificate: Certificate
) -> None:
    upstream = Upstream("127.0.0.1", secure.port, tls=True, server_name="api.test")
    route = Route("api.test", 443, upstream=upstream, paths=("/slow", "/quick"))
    with served(EgressPolicy(routes=(route,)), env={"SSL_CERT_FILE": certificate.certificate}) as (
        holder,
        bundle,
    ):
        with opened(holder, "api.test") as slow, opened(holder, "api.test") as idle:
            idle.sendall(b"GET /quick HTTP/1.1\r\nHost: api.test\r\n\r\n")
            assert read_response(idle)[1] == b"ok"
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: api.test\r\n\r\n")
            _, rest = read_head(slow)
            while rest != b"first":
                rest += slow.recv(100)
            put(bundle, EgressPolicy(routes=(route._replace(paths=("/other",)),)))
            with pytest.raises(ssl.SSLError):
                slow.recv(1)
            # The idle one is at a host that is still allowed: it stays, and its next request is judged by the new rules.
            idle.sendall(b"GET /quick HTTP/1.1\r\nHost: api.test\r\n\r\n")
            assert b" 403 " in read_response(idle)[0]
            idle.sendall(b"GET /other HTTP/1.1\r\nHost: api.test\r\n\r\n")
            assert read_response(idle)[1] == b"ok"
        put(bundle, EgressPolicy())
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            opened(holder, "api.test")


def test_a_connection_that_is_being_dialled_ends(web: Server) -> None:
    """Nothing answers at the upstream: the agent waits while the policy changes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        upstream = Upstream("127.0.0.1", full.getsockname()[1])
        route = Route("one.test", 80, "http", upstream)
        with served(EgressPolicy(routes=(route,))) as (holder, bundle):
            with holder.connect("127.0.0.1", 3128) as sock:
                sock.sendall(GET.format("one.test", "one.test").encode())
                bundle.event("egress.allowed", host="one.test")
                put(bundle, EgressPolicy())
                assert is_reset(sock)
        for filler in fillers:
            filler.close()


def resolve(holder: Holder, name: str) -> str | None:
    """The address that the bottle's DNS gives `name`."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    with holder.new_socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 53))
        sock.send(b"ab\1\0\0\1\0\0\0\0\0\0" + question)
        reply = sock.recv(512)
    return socket.inet_ntoa(reply[-4:]) if reply[7] else None


def test_names_follow_and_no_address_ever_changes_its_name(web: Server) -> None:
    one, two, three = (web.http(f"{name}.test") for name in ("one", "two", "three"))
    with served(EgressPolicy(routes=(one, two))) as (holder, bundle):
        before = {name: resolve(holder, name) for name in ("one.test", "two.test")}
        put(bundle, EgressPolicy(routes=(two, three)))
        assert resolve(holder, "one.test") is None
        assert resolve(holder, "two.test") == before["two.test"]
        assert resolve(holder, "three.test") not in (None, *before.values())
        put(bundle, EgressPolicy(routes=(one,)))
        assert resolve(holder, "one.test") == before["one.test"]


def test_further_ports_open_and_others_close(web: Server) -> None:
    first, second = web.http("one.test", 8001), web.http("one.test", 8002)
    policy, further = EgressPolicy(routes=(first,)), EgressPolicy(routes=(second,))
    with served(policy, listeners=listeners_for(policy)) as (holder, bundle):
        [listener] = set(listeners_for(further)) - set(listeners_for(policy))
        holder.pass_listeners((listener,), bundle.door)
        put(bundle, further, further=1)
        with pytest.raises(ConnectionRefusedError):
            holder.connect("127.0.0.1", 8001)
        with holder.connect("127.0.0.1", 8002) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: one.test:8002\r\n\r\n")
            assert read_response(sock)[1] == b"ok"


def test_a_port_can_change_what_is_spoken_on_it(web: Server, tls: Server) -> None:
    policy = EgressPolicy(routes=(web.http("one.test", 8001),))
    with served(policy, listeners=listeners_for(policy)) as (holder, bundle):
        put(bundle, EgressPolicy(routes=(tls.https("one.test", 8001),)))
        with holder.connect("127.0.0.1", 8001) as sock:
            hello = client_hello("one.test")
            sock.sendall(hello)
            assert sock.recv(len(hello)) == hello


GOOD = Route("two.test", 443)
BAD: dict[str, dict[str, Any]] = {
    "a host that is none": EgressPolicy(routes=(GOOD._replace(host="Two.TEST."),)).document(),
    "an address": EgressPolicy(routes=(GOOD._replace(host="192.0.2.1"),)).document(),
    "a port that is none": EgressPolicy(routes=(GOOD._replace(port=0),)).document(),
    "another protocol": EgressPolicy(routes=(GOOD._replace(protocol="gopher"),)).document(),  # type: ignore[arg-type]
    "another mode": EgressPolicy(mode="off").document(),  # type: ignore[arg-type]
    "a path that is no pattern": EgressPolicy(routes=(GOOD._replace(paths=("../x",)),)).document(),
    "a credential that is not here": EgressPolicy(routes=(GOOD._replace(credential="key"),)).document(),
    "a port without its listener": EgressPolicy(routes=(GOOD._replace(port=9999),)).document(),
    "nothing": {},
    "half of it": {"routes": [{"host": "two.test"}]},
    "another shape": {**EgressPolicy().document(), "routes": 5},
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_one_that_is_wrong_changes_nothing_and_is_refused(what: str, web: Server) -> None:
    with served(EgressPolicy(routes=(web.http("one.test"),))) as (holder, bundle):
        with holder.connect("127.0.0.1", 3128) as sock:
            sock.sendall(GET.format("one.test", "one.test").encode())
            read_response(sock)
            assert order(bundle, BAD[what]).get("policy_refused")
            sock.sendall(GET.format("one.test", "one.test").encode())
            assert read_response(sock)[1] == b"ok"
        assert status(holder, "two.test") == 403
        put(bundle, EgressPolicy())
        assert status(holder, "one.test") == 403


def test_listeners_that_do_not_fit_are_closed(web: Server) -> None:
    with served(EgressPolicy(routes=(web.http("one.test"),))) as (holder, bundle):
        [listener] = set(listeners_for(EgressPolicy(routes=(web.http("x.test", 8001),)))) - set(
            listeners_for(EgressPolicy())
        )
        holder.pass_listeners((listener,), bundle.door)
        assert "listeners" in order(bundle, EgressPolicy(), further=1)["policy_refused"]
        until(lambda: refuses(holder, 8001))
        assert "listeners" in order(bundle, EgressPolicy(), further=1)["policy_refused"]


def refuses(holder: Holder, port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        holder.connect("127.0.0.1", port).close()
        return False
    return True


def test_a_stopped_bundle_confirms_nothing(web: Server) -> None:
    with served(EgressPolicy(routes=(web.http("one.test"),))) as (_, bundle):
        os.kill(bundle.pid, signal.SIGSTOP)
        bundle.messages.clear()
        bundle.line.sendall(json.dumps({"policy": EgressPolicy().document()}).encode() + b"\n")
        bundle.line.settimeout(0.2)
        with pytest.raises(TimeoutError):
            bundle.line.recv(1)
        os.kill(bundle.pid, signal.SIGCONT)


def test_it_tells_its_figures(web: Server, tls: Server) -> None:
    policy = EgressPolicy(routes=(web.http("one.test"), tls.https("two.test")))
    with served(policy) as (holder, bundle):
        assert (status(holder, "one.test"), status(holder, "evil.test")) == (200, 403)
        with tunnel(holder, "two.test") as sock:
            sock.sendall(b"x" * 1000)
            assert len(sock.recv(2000)) > 0
            bundle.line.sendall(b'{"stats": true}\n')
            said = bundle.hear(lambda message: "stats" in message)["stats"]
        assert said["policy"] == policy.fingerprint()
        assert ["egress.refused", "host_not_allowed", 1] in said["decisions"]
        assert ["egress.allowed", "allowed", 2] in said["decisions"]
        [flow] = said["flows"]
        assert flow[:4] == ["two.test", 443, "https", 1]
        assert flow[4] == 1000 + len(client_hello("two.test"))
        assert said["up"] >= flow[4]


@pytest.mark.parametrize("path", ["/metrics", "/health"])
def test_the_door_has_no_figures(path: str, web: Server) -> None:
    with served(EgressPolicy(routes=(web.http("one.test"),))) as (holder, _):
        for port, target in ((3128, path), (3128, f"http://127.0.0.1{path}"), (80, path)):
            for host in ("127.0.0.1", "localhost", "bot-bottle"):
                with holder.connect("127.0.0.1", port) as sock:
                    sock.sendall(
                        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
                    )
                    head, rest = read_head(sock)
                    assert int(head.split()[1]) in (400, 403, 421)
                    assert b"bot_bottle_" not in rest + read_all(sock)
