"""Credentials through a real bundle: to their own route over verified TLS, renewed while it runs, and nowhere else."""

import base64
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot_bottle.bundle.model import Injection
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.secret import Secret
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Holder, Server, in_header, read_head, read_response, served
from tests.bundle.test_tls import over_tls

PROXY = ("127.0.0.1", 3128)
PAIR = base64.b64encode(b"me:s3cret-pair").decode()
CREDENTIALS = {
    "header": in_header("x-api-key", "s3cret-header", placeholder="placeholder-header-1"),
    "basic": Injection("header", "authorization", Secret(f"Basic {PAIR}"), Secret("s3cret-pair")),
    "query": Injection("query", "key", Secret("s3cret-query"), Secret("s3cret-query")),
    "login": in_header("x-login", "s3cret-login", placeholder="placeholder-login-1", renewable=True),
}


class Upstream:
    """Answers every request with what it was, and on which of its connections."""

    def __init__(self, certificate: Certificate) -> None:
        self.connections = 0
        self.status = 200
        self.more = ""
        self.seen: list[tuple[int, bytes]] = []
        self.server = Server(over_tls(certificate, self.serve))

    def serve(self, sock: ssl.SSLSocket) -> None:
        self.connections += 1
        mine = self.connections
        while True:
            head, _ = read_head(sock)
            self.seen.append((mine, head))
            line = f"HTTP/1.1 {self.status} Here\r\n{self.more}Content-Length: {len(head)}\r\n\r\n"
            sock.sendall(line.encode() + head)

    def route(self, host: str, credential: str | None = None, *paths: str) -> Route:
        upstream = self.server.upstream(tls=True, server_name="api.test")
        return Route(
            host=host, port=80, protocol="http", upstream=upstream, credential=credential, paths=paths
        )


@pytest.fixture
def bottle(certificate: Certificate) -> Iterator[tuple[Holder, Bundle, Upstream, "Bare"]]:
    upstream = Upstream(certificate)
    bare = Bare()
    policy = EgressPolicy(
        routes=(
            upstream.route("api.test", "header", "/header/**"),
            upstream.route("api.test", "basic", "/basic/**"),
            upstream.route("api.test", "query", "/query/**"),
            upstream.route("api.test", None, "/none/**"),
            upstream.route("login.test", "login"),
            upstream.route("other.test"),
            Route(host="bare.test", port=80, protocol="http", upstream=bare.upstream(), credential="header"),
            Route(
                host="api.test", port=443, upstream=upstream.server.upstream(), credential="header",
                paths=("/header/**",),
            ),
        )
    )  # fmt: skip
    with served(policy, credentials=CREDENTIALS, env={"SSL_CERT_FILE": certificate.certificate}) as both:
        yield *both, upstream, bare
    upstream.server.close()
    bare.close()


class Bare(Server):
    """The same without TLS, one request a connection."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        super().__init__(self.serve)

    def serve(self, sock: socket.socket) -> None:
        head, _ = read_head(sock)
        self.seen.append(head)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


def ask(sock: ssl.SSLSocket, host: str, path: str, *fields: str) -> tuple[bytes, bytes]:
    lines = [f"GET http://{host}{path} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    sock.sendall("\r\n".join(lines).encode())
    return read_response(sock)


Bottle = tuple[Holder, Bundle, Upstream, Bare]


def test_each_kind_goes_out_in_its_way_once_and_instead_of_the_agents_own(bottle: Bottle) -> None:
    holder, bundle, upstream, _ = bottle
    mine = ("Authorization: Bearer mine", "X-Api-Key: mine", "Cookie: mine")
    with holder.connect(*PROXY) as sock:
        ask(sock, "api.test", "/header/x?key=mine", *mine)
        ask(sock, "api.test", "/basic/x", *mine)
        ask(sock, "api.test", "/query/x?key=mine&q=1&Key=mine", *mine)
    by_header, by_basic, by_query = (head for _, head in upstream.seen)
    assert by_header.lower().count(b"x-api-key: s3cret-header\r\n") == 1
    assert by_basic.count(f"authorization: Basic {PAIR}\r\n".encode()) == 1
    assert by_query.startswith(b"GET /query/x?q=1&key=s3cret-query HTTP/1.1\r\n")
    for body in (by_basic, by_query):
        assert b"mine" not in body
    assert b"Bearer mine" not in by_header
    said = json.dumps(bundle.messages)
    assert "s3cret" not in said
    assert PAIR not in said
    assert "mine" not in said, "a query is no part of an event"


def test_nothing_goes_to_another_route_another_host_or_without_tls(bottle: Bottle) -> None:
    holder, _, upstream, bare = bottle
    with holder.connect(*PROXY) as sock:
        for host, path in (("api.test", "/none/x"), ("other.test", "/header/x"), ("bare.test", "/header/x")):
            ask(sock, host, path)
    seen = [head for _, head in upstream.seen] + bare.seen
    assert len(seen) == 3
    assert not [head for head in seen if b"s3cret" in head or b"****" in head]


def test_a_spelling_of_the_path_does_not_reach_a_route_with_a_credential(bottle: Bottle) -> None:
    holder, _, upstream, _ = bottle
    for path in ("/none/../header/x", "/none/%2e%2e/header/x", "/none/..%2fheader/x"):
        with holder.connect(*PROXY) as sock:
            ask(sock, "api.test", path)
    assert not [head for _, head in upstream.seen if b"s3cret" in head and b"none" in head.splitlines()[0]]


def test_a_redirect_does_not_carry_it(bottle: Bottle) -> None:
    holder, _, upstream, _ = bottle
    upstream.status, upstream.more = 302, "Location: http://other.test/header/x\r\n"
    done = holder.run(
        ["curl", "-sS", "-L", "--max-redirs", "1", "-x", "http://127.0.0.1:3128", "http://api.test/header/x"]
    )
    hosts = [(head.split(b"\r\nhost: ")[1].split(b"\r\n")[0], b"s3cret" in head) for _, head in upstream.seen]
    assert len(hosts) == 2, done.stderr
    assert [secret for _, secret in hosts] == [True, False]


def test_routes_with_different_credentials_share_no_connection(bottle: Bottle) -> None:
    holder, _, upstream, _ = bottle
    with holder.connect(*PROXY) as sock:
        for path in ("/header/1", "/header/2", "/basic/1", "/none/1", "/query/1", "/header/3"):
            ask(sock, "api.test", path)
    by_connection: dict[int, set[bytes]] = {}
    for connection, head in upstream.seen:
        by_connection.setdefault(connection, set()).add(head.split(b"/")[1])
    assert all(len(kinds) == 1 for kinds in by_connection.values()), by_connection
    assert len(upstream.seen) == 6


def test_a_renewed_credential_is_used_from_its_acknowledgement_on(bottle: Bottle) -> None:
    holder, bundle, upstream, _ = bottle
    with holder.connect(*PROXY) as sock:
        held = "X-Login: placeholder-login-1"
        ask(sock, "login.test", "/", held)
        assert b"x-login: s3cret-login\r\n" in upstream.seen[-1][1]
        renewed = CREDENTIALS["login"]._replace(
            value=Secret("s3cret-renewed"), secret=Secret("s3cret-renewed")
        )
        now = {**CREDENTIALS, "login": renewed}
        bundle.tell({"credentials": {name: item.document() for name, item in now.items()}})
        bundle.hear(lambda message: message.get("credentials") is True)
        body = ask(sock, "login.test", "/", held)[1]
        assert b"x-login: s3cret-renewed\r\n" in upstream.seen[-1][1]
        assert b"s3cret-login" not in upstream.seen[-1][1]
        assert b"x-login: " + b"*" * len("s3cret-renewed") in body
        assert b" 403 " in ask(sock, "other.test", "/", held)[0]
        bundle.tell({"credentials": {"login": ["header"]}})
        bundle.hear(lambda message: "error" in message)
        ask(sock, "login.test", "/")
        assert b"x-login: s3cret-renewed\r\n" in upstream.seen[-1][1]
    assert upstream.connections == 1


def test_a_login_that_is_not_taken_is_reported_once_and_a_key_never(bottle: Bottle) -> None:
    holder, bundle, upstream, _ = bottle
    upstream.status = 401
    with holder.connect(*PROXY) as sock:
        for host, path in (("api.test", "/header/x"), *[("login.test", "/")] * 5):
            head, _ = ask(sock, host, path)
            assert b" 401 " in head
    bundle.hear(lambda message: "credential_refused" in message)
    bundle.event("egress.closed", host="login.test")
    refused = [message for message in bundle.messages if "credential_refused" in message]
    assert refused == [{"credential_refused": "login"}]


def test_inside_opened_tls_it_is_put_in_as_well(bottle: Bottle, tmp_path: Path) -> None:
    holder, bundle, upstream, _ = bottle
    authority = tmp_path / "authority.pem"
    authority.write_text(bundle.hear(lambda message: "authority" in message)["authority"])
    done = holder.run(
        ["curl", "-sS", "--cacert", str(authority), "-x", "http://127.0.0.1:3128", "-H", "X-Api-Key: mine",
         "https://api.test/header/x"]
    )  # fmt: skip
    ((_, head),) = upstream.seen
    assert head.lower().count(b"x-api-key: s3cret-header\r\n") == 1, done.stderr
    assert b"mine" not in head


def test_the_bundle_shows_it_nowhere_in_proc(bottle: Bottle) -> None:
    _, bundle, _, _ = bottle
    for name in ("cmdline", "environ", "status", "comm"):
        assert b"s3cret" not in Path(f"/proc/{bundle.pid}/{name}").read_bytes()
