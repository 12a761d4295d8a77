"""TLS through the door: by SNI on transparent connections, and inside CONNECT; and TLS of the bundle's own."""

import contextlib
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from bot_bottle.bundle.egress.hello import ACCESS_DENIED, DECODE_ERROR, UNRECOGNIZED_NAME, read_hello
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Holder, Server, in_header, read_all, read_head, read_response, served
from tests.bundle.hellos import client_hello

PROXY = ("127.0.0.1", 3128)


def over_tls(
    certificate: Certificate, handle: Callable[[ssl.SSLSocket], None]
) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as wrapped:
            handle(wrapped)

    return serve


def say_hello(sock: ssl.SSLSocket) -> None:
    head, _ = read_head(sock)
    line = head.split(b"\r\n")[0]
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(line), line))


@pytest.fixture(scope="module")
def bottle(certificate: Certificate) -> Iterator[tuple[Holder, Bundle, Server]]:
    server = Server(over_tls(certificate, say_hello))
    with served(EgressPolicy(routes=(server.https("ok.test"), server.https("other.test")))) as (
        holder,
        bundle,
    ):
        yield holder, bundle, server
    server.close()


def trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate.certificate)


def test_a_client_without_proxy_variables_gets_through_by_its_sni(
    bottle: tuple[Holder, Bundle, Server], certificate: Certificate
) -> None:
    holder, bundle, _ = bottle
    asked = holder.run(["curl", "-sS", "--cacert", certificate.certificate, "https://ok.test/a"])
    assert asked.stdout == b"GET /a HTTP/1.1", asked
    bundle.event("egress.allowed", via="tls", host="ok.test", port=443)
    closed = bundle.event("egress.closed", via="tls", host="ok.test")
    assert closed["up"] > 300 and closed["down"] > 1000 and closed["reason"] in ("done", "reset")  # noqa: PT018


def test_a_client_with_proxy_variables_gets_through_connect(
    bottle: tuple[Holder, Bundle, Server], certificate: Certificate
) -> None:
    holder, bundle, _ = bottle
    asked = holder.run(
        ["curl", "-sS", "--cacert", certificate.certificate, "https://ok.test/b"],
        env={"https_proxy": "http://127.0.0.1:3128"},
    )
    assert asked.stdout == b"GET /b HTTP/1.1", asked
    bundle.event("egress.allowed", via="connect", host="ok.test", port=443)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_gets_through_without_proxy_variables(
    bottle: tuple[Holder, Bundle, Server], certificate: Certificate
) -> None:
    holder, _, _ = bottle
    code = "fetch('https://ok.test/n').then(async r => console.log(await r.text()))"
    asked = holder.run(["node", "-e", code], env={"NODE_EXTRA_CA_CERTS": certificate.certificate})
    assert asked.stdout == b"GET /n HTTP/1.1\n", asked


def refused(holder: Holder, address: str, first: bytes) -> bytes:
    with holder.connect(address, 443) as sock:
        sock.sendall(first)
        return read_all(sock)


@pytest.mark.parametrize(
    ("hello", "answer", "reason"),
    [
        (client_hello("evil.test"), ACCESS_DENIED, "host_not_allowed"),
        (client_hello("ok.test", encrypted=True), ACCESS_DENIED, "encrypted_hello"),
        (client_hello(None), UNRECOGNIZED_NAME, "no_server_name"),
        (client_hello("192.0.2.1"), ACCESS_DENIED, "address_literal"),
        (client_hello("ok.test\0.evil.test"), ACCESS_DENIED, "not_a_host_name"),
        (b"SSH-2.0-OpenSSH_9\r\n", DECODE_ERROR, "not_tls"),
        (b"GET / HTTP/1.1\r\n", DECODE_ERROR, "not_tls"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_gets_an_alert_at_once(
    bottle: tuple[Holder, Bundle, Server], hello: bytes, answer: bytes, reason: str
) -> None:
    holder, bundle, server = bottle
    before = server.accepted
    assert refused(holder, "192.0.2.9", hello) == answer
    bundle.event("egress.refused", via="tls", reason=reason)
    assert server.accepted == before


def resolve(holder: Holder, host: str) -> str:
    code = f"import socket; print(socket.gethostbyname({host!r}))"
    return holder.run(["python3", "-c", code]).stdout.decode().strip()


def test_the_address_of_one_name_takes_no_other_names_hello(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, bundle, _ = bottle
    assert refused(holder, resolve(holder, "ok.test"), client_hello("other.test")) == ACCESS_DENIED
    bundle.event("egress.refused", via="tls", host="other.test", reason="name_mismatch")
    assert refused(holder, "198.19.7.7", client_hello("ok.test")) == ACCESS_DENIED


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (client_hello("other.test"), "name_mismatch"),
        (client_hello(None), "no_server_name"),
        (client_hello("ok.test", encrypted=True), "encrypted_hello"),
        (b"SSH-2.0-OpenSSH_9\r\n", "not_tls"),
    ],
)
def test_inside_connect_the_hello_names_the_same_host(
    certificate: Certificate, hello: bytes, reason: str
) -> None:
    seen: list[bytes] = []
    server = Server(lambda sock: seen.append(read_all(sock)))
    with served(EgressPolicy(routes=(server.https("ok.test"), server.https("other.test")))) as (
        holder,
        bundle,
    ):
        with holder.connect(*PROXY) as sock:
            sock.sendall(b"CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n\r\n")
            assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
            sock.sendall(hello)
            assert read_all(sock) in (ACCESS_DENIED, DECODE_ERROR)
        bundle.event("egress.refused", via="connect", reason=reason)
    server.close()
    assert not any(seen)


def test_a_hello_in_single_bytes_and_many_records_is_read(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, bundle, _ = bottle
    with holder.connect("192.0.2.9", 443) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in client_hello("evil2.test", fragment=7):
            sock.sendall(bytes((byte,)))
        assert read_all(sock) == ACCESS_DENIED
    bundle.event("egress.refused", via="tls", host="evil2.test")


def hello_of(argv: list[str], port: int, listener: socket.socket) -> bytes:
    import subprocess

    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while read_hello(data) is None:
                data += connection.recv(65536)
        client.wait(20)
    return data


@pytest.mark.parametrize("client", ["curl", "node", "python3", "openssl"])
def test_this_client_sends_no_encrypted_hello_so_refusing_those_harms_it_not(client: str) -> None:
    if shutil.which(client) is None:
        pytest.skip(f"{client} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        argv = {
            "curl": ["curl", "-s", f"https://localhost:{port}/"],
            "node": ["node", "-e", f"fetch('https://localhost:{port}/').catch(() => 0)"],
            "python3": [
                "python3",
                "-c",
                f"import urllib.request as u; u.urlopen('https://localhost:{port}/')",
            ],
            "openssl": ["openssl", "s_client", "-connect", f"localhost:{port}", "-servername", "localhost"],
        }[client]
        hello = read_hello(hello_of(argv, port, listener))
    assert hello is not None
    assert hello.server_name == "localhost"
    assert not hello.encrypted


# TLS that the bundle itself speaks


@pytest.fixture(scope="module")
def seen() -> list[bytes]:
    """The heads that reached the upstream of `api`."""
    return []


@pytest.fixture(scope="module")
def api(certificate: Certificate, seen: list[bytes]) -> Iterator[tuple[Holder, Bundle]]:
    def handle(sock: ssl.SSLSocket) -> None:
        head, _ = read_head(sock)
        seen.append(head)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))

    server = Server(over_tls(certificate, handle))

    def route(host: str, server_name: str, credential: str | None = None) -> Route:
        upstream = server.upstream(tls=True, server_name=server_name)
        return Route(host=host, port=80, protocol="http", upstream=upstream, credential=credential)

    policy = EgressPolicy(
        routes=(
            route("api.test", "api.test", "key"),
            route("wrong.test", "wrong.test"),
            route("none.test", "api.test", "gone"),
        )
    )
    with served(
        policy,
        credentials={"key": in_header("X-Api-Key", "s3cret-value")},
        env={"SSL_CERT_FILE": certificate.certificate},
    ) as both:
        yield both
    server.close()


def test_the_credential_is_put_in_outside_and_replaces_the_agents_own(
    api: tuple[Holder, Bundle], seen: list[bytes]
) -> None:
    holder, bundle = api
    with holder.connect(*PROXY) as sock:
        sock.sendall(
            b"GET http://api.test/v1 HTTP/1.1\r\nHost: api.test\r\nX-API-KEY: mine\r\nX-Other: 1\r\n\r\n"
        )
        read_response(sock)
    lines = seen[-1].split(b"\r\n")
    assert b"X-Api-Key: s3cret-value" in lines
    assert b"x-other: 1" in lines
    assert b"mine" not in seen[-1]
    bundle.event("egress.allowed", host="api.test")
    assert "s3cret" not in str(bundle.messages)


def test_a_certificate_for_another_name_gets_nothing(api: tuple[Holder, Bundle]) -> None:
    holder, bundle = api
    with holder.connect(*PROXY) as sock:
        sock.sendall(b"GET http://wrong.test/v1 HTTP/1.1\r\nHost: wrong.test\r\n\r\n")
        head, body = read_response(sock)
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"certificate_not_valid" in body
    bundle.event("egress.failed", host="wrong.test", reason="certificate_not_valid")


def test_without_its_credential_a_route_is_closed(api: tuple[Holder, Bundle]) -> None:
    holder, _ = api
    with holder.connect(*PROXY) as sock:
        sock.sendall(b"GET http://none.test/v1 HTTP/1.1\r\nHost: none.test\r\n\r\n")
        assert b"no_credential" in read_response(sock)[1]
