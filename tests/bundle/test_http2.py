"""HTTP/2 with clients that speak nothing else: real ones pass, each stream is judged, and whoever floods is shown out."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy, Upstream
from support.servers import free_port
from tests.bundle.conftest import Certificate
from tests.bundle.h2peers import Asked, Client, Serving
from tests.bundle.harness import HERE, SOURCE, Bundle, Server, in_header, until
from tests.bundle.opened import Opened, opened, with_tls

SECRET = "s3cret-Value-0123456789-of-the-key"
PLACEHOLDER = "placeholder-9876543210-for-key"
LIMITS = BundleLimits(first_bytes_seconds=2.0, idle_seconds=2.0, dial_seconds=2.0, keep_alive_seconds=3.0)
MOST_CONNECTIONS = 64
CALM_DOWN, PROTOCOL_ERROR, CANCEL, REFUSED = 0xB, 0x1, 0x8, 0x7


class Recorder:
    """An upstream that remembers each request that reached it, and answers with its body, unless it is told otherwise."""

    def __init__(self, certificate: Certificate) -> None:
        self.asked: list[Asked] = []
        self.connections: list[Serving] = []
        self.reply: Callable[[Serving, int, Asked], None] = self.echo
        self.begin: Callable[[Serving, int, Asked], None] | None = None
        self.server = Server(with_tls(certificate, self._serve, "h2"))

    def _serve(self, sock: ssl.SSLSocket) -> None:
        serving = Serving(sock, self._reply, self.begin)
        self.connections.append(serving)
        serving.run()

    def _reply(self, serving: Serving, number: int, asked: Asked) -> None:
        self.asked.append(asked)
        self.reply(serving, number, asked)

    @staticmethod
    def echo(serving: Serving, number: int, asked: Asked) -> None:
        serving.say(number, asked.body or b"none", (b"x-a", b"b"), trailers=[(b"x-end", b"yes")])

    def fields(self) -> dict[bytes, bytes]:
        return dict(self.asked[-1].headers)


class Place(NamedTuple):
    bottle: Opened
    upstream: Recorder

    def client(self, host: str = "ok.test", **more: Any) -> Client:
        return Client(self.bottle.connect(host, "h2"), **more)


@pytest.fixture(scope="module")
def place(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    upstream, old = (
        Recorder(certificate),
        Server(with_tls(certificate, lambda sock: sock.recv(1000) and None)),
    )
    other = Server(with_tls(certificate, lambda sock: sock.recv(1000) and None, "http/1.1"))
    to = upstream.server.upstream()
    routes = (
        Route("ok.test", 443, upstream=to, methods=("GET", "POST"), paths=("/a/**", "/big"), scan=False),
        Route("api.test", 443, upstream=to, credential="key", scan=False),
        Route("a.wild.test", 443, upstream=to),
        Route("other.test", 443, upstream=old.upstream(), methods=("GET",), scan=False),
        Route("b.wild.test", 443, upstream=other.upstream(), methods=("GET",), scan=False),
    )
    policy = EgressPolicy(routes=routes, secrets=SecretsPolicy(limit=64 * 1024))
    key = in_header("X-Api-Key", SECRET, placeholder=PLACEHOLDER)
    folder = tmp_path_factory.mktemp("trusted")
    with opened(policy, certificate, folder, limits=LIMITS, credentials={"key": key}) as bottle:
        yield Place(bottle, upstream)
    for server in (upstream.server, old, other):
        server.close()


@pytest.fixture(autouse=True)
def afresh(request: pytest.FixtureRequest) -> None:
    if "place" in request.fixturenames:
        upstream = request.getfixturevalue("place").upstream
        upstream.asked.clear()
        upstream.reply, upstream.begin = upstream.echo, None


# Real programs


class Real(NamedTuple):
    """Bottles with nghttpd and a gRPC service behind them; what the service prints comes line by line."""

    bottle: Opened
    service: "subprocess.Popen[str]"

    def ask(self, host: str, *calls: str) -> list[Any]:
        """What a gRPC client in the bottle says of each call."""
        argv = [sys.executable, str(HERE / "grpc_peer.py"), "ask", self.bottle.trusted, host, *calls]
        asked = self.bottle.holder.run(argv, env={"GRPC_DNS_RESOLVER": "native"})
        assert asked.returncode == 0, asked
        return [json.loads(line) for line in asked.stdout.splitlines()]


@pytest.fixture(scope="module")
def real(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("www")
    (folder / "hello").write_bytes(b"hello\n")
    (folder / "large").write_bytes(os.urandom(4 << 20))
    port = free_port()
    program = shutil.which("nghttpd", path="/usr/sbin:/usr/bin")
    assert program, "nghttp2-server is not installed"
    argv = [
        program,
        "-d",
        folder,
        "--trailer",
        "x-end: yes",
        "-a",
        "127.0.0.1",
        port,
        certificate.key,
        certificate.certificate,
    ]
    files = subprocess.Popen(list(map(str, argv)), stdout=subprocess.DEVNULL)
    service = subprocess.Popen(
        [sys.executable, str(HERE / "grpc_peer.py"), "serve", certificate.certificate, certificate.key],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert service.stdout
    to_service = Upstream("127.0.0.1", int(service.stdout.readline()))
    until(lambda: answers(port))
    routes = (
        Route("ok.test", 443, upstream=Upstream("127.0.0.1", port), methods=("GET",), scan=False),
        Route("other.test", 443, upstream=to_service, paths=("/test.Service/**",), scan=False),
        Route("api.test", 443, upstream=to_service, credential="key", scan=False),
        Route("a.wild.test", 443, upstream=to_service),
        Route("b.wild.test", 443, upstream=to_service, paths=("/test.Service/Unary",)),
    )
    key = in_header("X-Api-Key", SECRET, placeholder=PLACEHOLDER)
    policy = EgressPolicy(routes=routes, secrets=SecretsPolicy(limit=256 * 1024))
    with opened(policy, certificate, tmp_path_factory.mktemp("trusted"), credentials={"key": key}) as bottle:
        yield Real(bottle, service)
    files.terminate()
    files.wait(10)
    service.communicate(timeout=20)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_nghttp_gets_files_and_trailers_from_nghttpd(real: Real) -> None:
    asked = real.bottle.holder.run(["nghttp", "-v", "--no-verify-peer", "-n", "https://ok.test/hello"])
    assert b":status: 200" in asked.stdout
    assert b"x-end: yes" in asked.stdout
    asked = real.bottle.holder.run(["nghttp", "--no-verify-peer", "-m", "4", "https://ok.test/large"])
    assert len(asked.stdout) == 4 * (4 << 20)
    real.bottle.bundle.event("egress.allowed", via="tls", host="ok.test", method="GET", path="/hello")
    real.bottle.bundle.event("egress.closed", via="tls", host="ok.test", reason="done")


def test_many_streams_of_many_connections_all_come_through(real: Real) -> None:
    argv = ["h2load", "--npn-list=h2", "-n", "600", "-c", "6", "-m", "40", "https://ok.test/hello"]
    asked = real.bottle.holder.run(argv)
    assert b"600 succeeded, 0 failed" in asked.stdout, asked


def test_a_client_that_offers_both_gets_http_1_1(real: Real) -> None:
    with real.bottle.connect("ok.test", "h2", "http/1.1") as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
    with real.bottle.connect("ok.test", "h2") as sock:
        assert sock.selected_alpn_protocol() == "h2"
    with pytest.raises(ssl.SSLError):
        real.bottle.connect("ok.test", "h3", "spdy/3")


def test_grpc_of_every_kind_comes_through(real: Real) -> None:
    said = real.ask(
        "other.test", "Unary hello", "Count 500", "Echo one by one", "Unary-gzip " + "g" * 5000, "Fail x"
    )
    assert said[0] == {"answer": "hello", "size": 5, "trailers": {"x-end": "of unary"}}
    assert said[1] == [str(number) for number in range(500)]
    assert said[2] == ["one", "by", "one"]
    assert said[3]["size"] == 5000
    assert said[4] == {"code": "FAILED_PRECONDITION", "details": "not like this: ä"}
    (large,) = real.ask("other.test", "Unary-large 3000000")
    assert large["size"] == 3_000_000


def test_grpc_is_looked_at_message_by_message_and_streams_all_the_same(real: Real) -> None:
    said = real.ask(
        "a.wild.test", "Unary hello", "Echo one by one", "Unary-gzip " + "g" * 5000, "Unary-large 262144"
    )
    assert said[0]["answer"] == "hello"
    assert said[1] == ["one", "by", "one"]
    assert (said[2]["size"], said[3]["size"]) == (5000, 262144)


@pytest.mark.parametrize(
    "call",
    [f"Unary {SECRET}", f"Unary-gzip {SECRET}", f"Unary {PLACEHOLDER}"],
    ids=["plain", "gzip", "placeholder"],
)
def test_a_secret_in_a_grpc_message_goes_nowhere_and_the_client_reads_why(real: Real, call: str) -> None:
    (said,) = real.ask("a.wild.test", call)
    assert said["code"] == "PERMISSION_DENIED"
    assert "placeholder_misused" in said["details"] or "secret_found" in said["details"]


def test_a_secret_in_a_later_message_ends_the_stream_there(real: Real) -> None:
    (said,) = real.ask("a.wild.test", f"Echo one two {SECRET} four")
    assert said["said"] == ["one", "two"]
    assert said["code"] == "PERMISSION_DENIED"


def test_a_grpc_message_larger_than_what_is_searched_is_refused(real: Real) -> None:
    (said,) = real.ask("a.wild.test", "Unary-large 262145")
    assert said["code"] == "PERMISSION_DENIED"
    assert "body_too_large" in said["details"]


def test_a_grpc_call_that_is_not_allowed_is_denied_by_its_status(real: Real) -> None:
    (said, again) = real.ask("b.wild.test", "Count 5", "Unary x")
    assert said["code"] == "PERMISSION_DENIED"
    assert "path_not_allowed" in said["details"]
    assert again["answer"] == "x"


def test_grpc_gets_the_credential_in_the_place_of_the_placeholder_and_never_sees_it(real: Real) -> None:
    said, named = real.ask("api.test", "Unary-key metadata", f"Unary {SECRET[:-3]}")
    metadata = dict(json.loads(said["answer"]))
    assert metadata["x-api-key"] == "*" * len(SECRET)
    assert named["answer"]


def test_a_call_that_the_client_gives_up_is_given_up_at_the_upstream(real: Real) -> None:
    assert real.ask("other.test", "Wait x") == ["waiting"]
    assert real.service.stdout
    assert real.service.stdout.readline() == "cancelled\n"


# Each stream is judged


def test_each_stream_is_held_to_the_rules(place: Place) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        paths = ("/a/1", "/b", "/a/%2e%2e/b", "/a//x", "/a/2?q=1", "/a/3")
        said = [client.ask(path=path).status for path in paths]
        said.append(client.ask(method="DELETE").status)
        said.append(client.ask(("x-original-url", "/b")).status)
    assert said == [200, 403, 403, 403, 200, 200, 403, 403]
    reached = [dict(asked.headers)[b":path"] for asked in place.upstream.asked]
    assert reached == [b"/a/1", b"/a/2?q=1", b"/a/3"]
    place.bottle.bundle.event("egress.refused", host="ok.test", path="/b", reason="path_not_allowed")


def test_a_refusal_says_what_would_allow_it(place: Place) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        said = Client(sock).ask(path="/b")
    assert said.headers[b"content-type"] == b"application/json"
    assert json.loads(said.body)["ask"]["with"] == {"urls": ["https://ok.test/b"], "methods": ["GET"]}


def test_bodies_trailers_and_fields_pass_both_ways(place: Place) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        said = Client(sock).ask(("x-mine", "1"), ("te", "trailers"), method="POST", body=b"hello")
    assert (said.status, said.body, said.trailers) == (200, b"hello", {b"x-end": b"yes"})
    fields = place.upstream.fields()
    assert (fields[b"x-mine"], fields[b"te"], fields[b":authority"]) == (b"1", b"trailers", b"ok.test")


@pytest.mark.parametrize(
    "authority",
    [
        "other.test",
        "api.test",
        "ok.test:80",
        "ok.test:8443",
        "me@ok.test",
        "ok.test.evil.test",
        "127.0.0.1",
        "",
    ],
)
def test_a_stream_for_another_host_is_misdirected(place: Place, authority: str) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        said = client.ask(authority=authority)
    assert said.status == 421 or client.goaway == PROTOCOL_ERROR
    assert place.upstream.asked == []


@pytest.mark.parametrize("authority", ["OK.test", "ok.test:443", "ok.test."])
def test_another_spelling_of_the_host_goes_on_as_the_one_that_is_verified(
    place: Place, authority: str
) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        assert Client(sock).ask(authority=authority).status == 200
    assert place.upstream.fields()[b":authority"] == b"ok.test"


MALFORMED: dict[str, tuple[dict[str, Any], tuple[tuple[str, str], ...]]] = {
    "no authority": ({"authority": None}, ()),
    "no authority, but a host": ({"authority": None}, (("host", "ok.test"),)),
    "another host": ({}, (("host", "other.test"),)),
    "no path": ({"path": None}, ()),
    "an empty path": ({"path": ""}, ()),
    "a path that is a URL": ({"path": "https://ok.test/a"}, ()),
    "a path with a space": ({"path": "/a HTTP/1.1"}, ()),
    "a path with lines": ({"path": "/a\r\nX: y"}, ()),
    "a fragment": ({"path": "/a#b"}, ()),
    "no method": ({"method": None}, ()),
    "a method with a space": ({"method": "GET /b"}, ()),
    "CONNECT": ({"method": "CONNECT"}, ()),
    "CONNECT as it is": ({"method": "CONNECT", "scheme": None, "path": None}, ()),
    "CONNECT for something": ({"method": "CONNECT", "protocol": "websocket"}, ()),
    "another scheme": ({"scheme": "http"}, ()),
    "an unknown pseudo-header": ({"proto": "x"}, ()),
    "a response's pseudo-header": ({"status": "200"}, ()),
    "a pseudo-header twice": ({}, ((":path", "/b"),)),
    "a pseudo-header behind a field": ({}, (("x", "y"), (":path", "/b"))),
    "Connection": ({}, (("connection", "close"),)),
    "Transfer-Encoding": ({}, (("transfer-encoding", "chunked"),)),
    "Upgrade": ({}, (("upgrade", "websocket"),)),
    "another TE": ({}, (("te", "gzip"),)),
    "an upper-case name": ({}, (("X-A", "b"),)),
    "a name with a space": ({}, (("x a", "b"),)),
    "a name with a colon": ({}, (("x:a", "b"),)),
    "a name with lines": ({}, (("x\r\ny", "b"),)),
    "an empty name": ({}, (("", "b"),)),
    "a value with lines": ({}, (("x", "a\r\nhost: evil.test"),)),
    "a value with a line feed": ({}, (("x", "a\nb"),)),
    "a value with a NUL": ({}, (("x", "a\0b"),)),
    "a value with a control character": ({}, (("x", "a\x01b"),)),
    "two lengths": ({}, (("content-length", "0"), ("content-length", "0"))),
    "a length that is none": ({}, (("content-length", "+0"),)),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_head_reaches_nobody(place: Place, name: str) -> None:
    changed, fields = MALFORMED[name]
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        said = client.ask(*fields, **changed)
        assert said.status in (400, 421) or client.goaway is not None or said.reset is not None
        assert said.status != 200
    assert place.upstream.asked == []


def test_a_body_of_another_length_than_was_said_does_not_look_whole(place: Place) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        said = client.ask(("content-length", "3"), method="POST", body=b"hello")
        assert said.status != 200
    assert place.upstream.asked == []


@pytest.mark.parametrize("way", ["tls", "plain", "plain, by Upgrade"])
def test_http_2_comes_in_by_alpn_and_not_otherwise(place: Place, way: str) -> None:
    if way == "tls":
        with place.bottle.connect("ok.test") as sock:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 400 ")
        return
    flag = "--http2-prior-knowledge" if way == "plain" else "--http2"
    asked = place.bottle.holder.run(["curl", "-sS", "-w", "%{http_version}", flag, "http://ok.test/"])
    assert (b"port_not_allowed" in asked.stdout and asked.stdout.endswith(b"1.1")) or asked.returncode


@pytest.mark.parametrize("host", ["other.test", "b.wild.test"])
def test_an_upstream_that_does_not_speak_it_is_named_as_the_trouble(place: Place, host: str) -> None:
    with place.bottle.connect(host, "h2") as sock:
        client = Client(sock)
        said = client.ask(authority=host)
        assert (said.status, json.loads(said.body)["reason"]) == (502, "no_h2")
        said = client.ask(("content-type", "application/grpc"), authority=host)
        assert (said.status, said.headers[b"grpc-status"]) == (200, b"14")


# What must not leave, and what must not come back


@pytest.mark.parametrize("where", ["path", "field", "body", "length", "split body"])
def test_no_stream_takes_a_secret_along(place: Place, where: str) -> None:
    with place.bottle.connect("a.wild.test", "h2") as sock:
        client = Client(sock)
        more: dict[str, Any] = {"authority": "a.wild.test", "method": "POST"}
        fields = []
        if where == "path":
            more["path"] = f"/{SECRET}"
        elif where == "field":
            fields = [("x", SECRET)]
        elif where == "length":
            fields = [("content-length", str(len(SECRET)))]
        if where != "split body":
            said = client.ask(
                *fields, body=SECRET.encode() if where in ("body", "length") else b"fine", **more
            )
        else:
            number = client.start(end=False, **more)
            for char in SECRET.encode():
                client.h2.send_data(number, bytes((char,)))
                client.flush()
            client.h2.end_stream(number)
            client.flush()
            said = client.answer(number)
        assert (said.status, json.loads(said.body)["reason"]) == (403, "secret_found")
        assert client.ask(authority="a.wild.test", method="POST", body=b"fine").body == b"fine"
    assert [asked.body for asked in place.upstream.asked] == [b"fine"]


def test_a_message_that_can_not_be_unpacked_can_not_be_searched(place: Place) -> None:
    grpc = [("content-type", "application/grpc"), ("grpc-encoding", "zstd")]
    with place.bottle.connect("a.wild.test", "h2") as sock:
        client = Client(sock)
        for flag, answer in ((b"\1", b"7"), (b"\2", b"13")):
            body = flag + (5).to_bytes(4, "big") + b"hello"
            said = client.ask(*grpc, authority="a.wild.test", method="POST", body=body)
            assert said.headers.get(b"grpc-status") == answer
    assert place.upstream.asked == []


def test_a_body_larger_than_what_is_searched_is_refused_at_once_or_as_soon_as_it_shows(place: Place) -> None:
    with place.bottle.connect("a.wild.test", "h2") as sock:
        client = Client(sock)
        number = client.start(("content-length", "70000"), authority="a.wild.test", method="POST", end=False)
        assert json.loads(client.answer(number).body)["reason"] == "body_too_large"
        number = client.start(authority="a.wild.test", method="POST", end=False)
        for _ in range(5):
            client.h2.send_data(number, bytes(14_000))
        client.flush()
        assert json.loads(client.answer(number).body)["reason"] == "body_too_large"
    assert place.upstream.asked == []


def test_the_credential_goes_in_and_is_starred_in_head_body_and_trailers(place: Place) -> None:
    def reply(serving: Serving, number: int, asked: Asked) -> None:
        key = dict(asked.headers)[b"x-api-key"]
        serving.h2.send_headers(number, [(b":status", b"200"), (b"x-echo", key)])
        for char in key:
            serving.h2.send_data(number, bytes((char,)))
        serving.h2.send_headers(number, [(b"x-end", b"it is " + key)], end_stream=True)

    place.upstream.reply = reply
    with place.bottle.connect("api.test", "h2") as sock:
        said = Client(sock).ask(("x-api-key", PLACEHOLDER), authority="api.test")
    stars = b"*" * len(SECRET)
    assert (said.headers[b"x-echo"], said.body, said.trailers[b"x-end"]) == (stars, stars, b"it is " + stars)
    assert place.upstream.fields()[b"x-api-key"] == SECRET.encode()


@pytest.mark.parametrize("field", [(b"content-encoding", b"gzip"), (b"grpc-encoding", b"gzip")])
def test_a_response_in_which_no_credential_could_be_seen_does_not_come_back(place: Place, field: Any) -> None:
    place.upstream.reply = lambda serving, number, _: serving.say(number, b"x", field)
    with place.bottle.connect("api.test", "h2") as sock:
        said = Client(sock).ask(authority="api.test")
    assert json.loads(said.body)["reason"] == "response_encoded"


# The upstream


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x", b"y")], [(b":status", b"abc")], [(b":status", b"200"), (b":path", b"/")], [(b":status", b"99")],
        [(b":status", b"200"), (b"connection", b"close")], [(b":status", b"200"), (b"x", b"a\r\nb")],
        [(b":status", b"101")], [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"1")],
    ],
)  # fmt: skip
def test_a_malformed_response_does_not_come_through(place: Place, fields: Any) -> None:
    place.upstream.reply = lambda serving, number, _: serving.h2.send_headers(number, fields, end_stream=True)
    with place.bottle.connect("ok.test", "h2") as sock:
        said = Client(sock).ask()
    assert (said.status, json.loads(said.body)["error"]) == (502, "failed")


def test_interim_responses_are_dropped_and_too_many_end_it(place: Place) -> None:
    def reply(count: int) -> Callable[[Serving, int, Asked], None]:
        def say(serving: Serving, number: int, asked: Asked) -> None:
            for _ in range(count):
                serving.h2.send_headers(number, [(b":status", b"103")])
            serving.say(number, b"done")

        return say

    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        place.upstream.reply = reply(3)
        assert client.ask().body == b"done"
        place.upstream.reply = reply(40)
        assert client.ask().status == 502


def test_an_upstream_that_goes_away_finishes_what_it_has_and_gets_nothing_new(place: Place) -> None:
    def reply(serving: Serving, number: int, asked: Asked) -> None:
        serving.go_away(number)
        serving.say(number, b"still")

    place.upstream.reply = reply
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        before = len(place.upstream.connections)
        assert client.ask().body == b"still"
        assert client.ask().body == b"still"
    assert len(place.upstream.connections) - before == 2


def test_an_upstream_that_breaks_off_does_not_look_whole(place: Place) -> None:
    def reply(serving: Serving, number: int, asked: Asked) -> None:
        serving.h2.send_headers(number, [(b":status", b"200")])
        serving.h2.send_data(number, b"half")
        serving.flush()
        serving.sock.close()

    place.upstream.reply = reply
    with place.bottle.connect("ok.test", "h2") as sock:
        said = Client(sock).ask()
    assert said.reset is not None


def test_an_upstream_that_says_nothing_is_not_waited_for_forever(place: Place) -> None:
    place.upstream.reply = lambda *_: None
    with place.bottle.connect("ok.test", "h2") as sock:
        said = Client(sock).ask()
    assert said.status == 504 or said.reset is not None
    place.bottle.bundle.event("egress.failed", host="ok.test", reason="idle")


def test_an_early_answer_ends_the_upload(place: Place) -> None:
    place.upstream.begin = lambda serving, number, _: serving.say(number, b"enough")
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        number = client.start(("content-type", "application/grpc"), method="POST", end=False)
        said = client.answer(number)
    assert said.body == b"enough"
    until(lambda: place.upstream.connections[-1].resets)


# Streaming, and another policy


@pytest.mark.parametrize("host", ["ok.test", "api.test"], ids=["as it is", "through a filter"])
def test_server_sent_events_come_one_by_one(place: Place, host: str) -> None:
    heard = threading.Semaphore(0)

    def reply(serving: Serving, number: int, asked: Asked) -> None:
        serving.h2.send_headers(number, [(b":status", b"200"), (b"content-type", b"text/event-stream")])
        for count in range(5):
            serving.h2.send_data(number, b"data: %d\n\n" % count)
            serving.flush()
            assert heard.acquire(timeout=10)  # the next is not there before the last was heard
        serving.h2.end_stream(number)

    place.upstream.reply = reply
    with place.bottle.connect(host, "h2") as sock:
        client = Client(sock)
        number = client.start(authority=host)
        for count in range(5):
            until(lambda: client.open[number]["body"].endswith(b"data: %d\n\n" % count) or not client.take())  # noqa: B023
            heard.release()
        assert client.answer(number).body == b"".join(b"data: %d\n\n" % count for count in range(5))


@pytest.mark.parametrize("host", ["ok.test", "api.test"], ids=["as it is", "through a filter"])
def test_a_large_response_does_not_have_to_fit_into_memory(place: Place, host: str) -> None:
    size, piece = 48 << 20, bytes(16384)

    def reply(serving: Serving, number: int, asked: Asked) -> None:
        serving.h2.send_headers(number, [(b":status", b"200")])
        left = size
        while left:
            if serving.h2.local_flow_control_window(number) >= len(piece):
                serving.h2.send_data(number, piece)
                left -= len(piece)
                serving.flush()
            else:
                serving.h2.receive_data(serving.sock.recv(65536))
        serving.h2.end_stream(number)

    place.upstream.reply = reply
    got, most = 0, 0
    with place.bottle.connect(host, "h2") as sock:
        client = Client(sock)
        number = client.start(authority=host)
        before = resident(place.bottle.bundle)
        while not client.open[number]["over"]:
            assert client.take()
            got += len(client.open[number]["body"])
            client.open[number]["body"] = b""
            most = max(most, resident(place.bottle.bundle))
    assert got == size
    assert most - before < 8 << 20


def test_a_policy_that_forbids_a_stream_ends_it_and_leaves_the_others(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    upstream = Recorder(certificate)

    def reply(serving: Serving, number: int, asked: Asked) -> None:
        serving.h2.send_headers(number, [(b":status", b"200")])
        serving.h2.send_data(number, b"first")
        if len(upstream.asked) == 3:
            serving.h2.end_stream(1)

    upstream.reply = reply
    both = Route("ok.test", 443, upstream=upstream.server.upstream(), paths=("/a", "/b"))
    with opened(EgressPolicy((both,)), certificate, tmp_path_factory.mktemp("trusted")) as bottle:
        with bottle.connect("ok.test", "h2") as sock:
            client = Client(sock)
            stays, goes = client.start(path="/a"), client.start(path="/b")
            until(lambda: all(client.open[number]["body"] for number in (stays, goes)) or not client.take())
            bottle.bundle.tell({"policy": EgressPolicy((both._replace(paths=("/a",)),)).document()})
            assert client.answer(goes).reset == CANCEL
            client.start(path="/a")
            assert client.answer(stays).body == b"first"
            assert client.ask(path="/b").status == 403
    upstream.server.close()


# Flow control and floods


def resident(bundle: Bundle) -> int:
    with open(f"/proc/{bundle.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("window", [None, 1 << 30], ids=["of usual windows", "of windows without end"])
def test_a_large_response_to_a_slow_reader_waits_at_the_upstream(place: Place, window: int | None) -> None:
    size, sent, stuck = 64 << 20, [0], threading.Event()

    def reply(serving: Serving, number: int, asked: Asked) -> None:
        serving.h2.send_headers(number, [(b":status", b"200")])
        threading.Thread(target=pour, args=(serving, number), daemon=True).start()

    def pour(serving: Serving, number: int) -> None:
        waited = 0
        with contextlib.suppress(Exception):
            while sent[0] < size and waited < 300:
                room = min(serving.h2.local_flow_control_window(number), 16384)
                waited = 0 if room else waited + threading.Event().wait(0.002) + 1
                if room:
                    serving.h2.send_data(number, bytes(room))
                    serving.flush()
                    sent[0] += room
        stuck.set()

    place.upstream.reply = reply
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock, window=window)
        if window:
            client.h2.increment_flow_control_window(window)
        before = resident(place.bottle.bundle)
        client.start()  # and does not read
        until(lambda: place.upstream.asked)
        assert stuck.wait(20)
        assert sent[0] < 16 << 20  # most of it in the kernel's buffers, which grow
        assert resident(place.bottle.bundle) - before < 3 << 20


def test_a_large_upload_to_a_slow_upstream_waits_at_the_agent(place: Place) -> None:
    place.upstream.begin = lambda serving, *_: threading.Event().wait(5) and None
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        before = resident(place.bottle.bundle)
        numbers = [client.start(method="POST", end=False) for _ in range(50)]
        sock.settimeout(0.5)
        sent = 0
        with contextlib.suppress(OSError, ssl.SSLError):
            while sent < 64 << 20:
                for number in numbers:
                    room = min(client.h2.local_flow_control_window(number), 16384)
                    if room:
                        client.h2.send_data(number, bytes(room))
                        sent += room
                client.flush()
                if not any(client.h2.local_flow_control_window(number) for number in numbers):
                    client.take() or pytest.fail("the end")
        assert sent < 4 << 20
        assert resident(place.bottle.bundle) - before < 8 << 20


def test_a_stream_whose_window_stays_shut_ends_and_pings_do_not_save_it(place: Place) -> None:
    place.upstream.reply = lambda serving, number, _: serving.say(number, bytes(30_000))
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock, window=0)
        number = client.start()
        ended = threading.Event()

        def ping() -> None:
            while not ended.wait(0.3):
                with contextlib.suppress(Exception):
                    client.h2.ping(b"12345678")
                    client.flush()

        threading.Thread(target=ping, daemon=True).start()
        said = client.answer(number)
        ended.set()
    assert said.reset is not None or client.ended
    place.bottle.bundle.event("egress.failed", host="ok.test", reason="idle")


def raw_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def small_requests(client: Client) -> None:
    for _ in range(2000):
        number = client.start()
        client.h2.reset_stream(number, 8)
        client.flush()


def reset_by_us(client: Client) -> None:
    """A stream that the other side is made to reset: work for nothing, too."""
    for _ in range(2000):
        number = client.start()
        client.sock.sendall(raw_frame(8, 0, number, bytes(4)))


def continuations(client: Client) -> None:
    client.sock.sendall(raw_frame(1, 0, 1, b"\x82"))
    for _ in range(2000):
        client.sock.sendall(raw_frame(9, 0, 1, b""))


def large_continuations(client: Client) -> None:
    client.sock.sendall(raw_frame(1, 0, 1, b"\x82"))
    for _ in range(2000):
        client.sock.sendall(raw_frame(9, 0, 1, b"\x00\x01a\x7f\xf0\x7f" + b"b" * 16000))


def header_bomb(client: Client) -> None:
    big = client.h2.encoder.encode([(b":method", b"GET"), (b"x", b"y" * 3000)])
    client.sock.sendall(raw_frame(1, 0x4, 1, big + b"\xbe" * 12_000))


def data_padding(client: Client) -> None:
    number = client.start(method="POST", end=False)
    for _ in range(3000):
        client.sock.sendall(raw_frame(0, 0, number))


FLOODS: dict[str, tuple[Callable[[Client], None], set[int]]] = {
    "rapid reset": (small_requests, {CALM_DOWN}),
    "resets that we are made to do": (reset_by_us, {CALM_DOWN, PROTOCOL_ERROR}),
    "pings": (lambda client: client.sock.sendall(raw_frame(6, 0, 0, bytes(8)) * 3000), {CALM_DOWN}),
    "settings": (lambda client: client.sock.sendall(raw_frame(4, 0, 0) * 3000), {CALM_DOWN}),
    "priorities": (lambda client: client.sock.sendall(raw_frame(2, 0, 1, bytes(3) + b"\3\1") * 3000), {CALM_DOWN}),
    "window updates": (lambda client: client.sock.sendall(raw_frame(8, 0, 0, b"\0\0\0\1") * 3000), {CALM_DOWN}),
    "unknown frames": (lambda client: client.sock.sendall(raw_frame(0x42, 0, 0, b"x") * 3000), {CALM_DOWN}),
    "empty data": (data_padding, {CALM_DOWN}),
    "continuations": (continuations, {CALM_DOWN, PROTOCOL_ERROR}),
    "large continuations": (large_continuations, {CALM_DOWN, PROTOCOL_ERROR}),
    "a head that unpacks to too much": (header_bomb, {CALM_DOWN, PROTOCOL_ERROR}),
    "a frame that is too large": (
        lambda client: client.sock.sendall(raw_frame(0, 0, 1, bytes(16385))), {PROTOCOL_ERROR},
    ),
    "more streams than there may be": (lambda client: [client.start(end=False) for _ in range(101)] and None, {PROTOCOL_ERROR}),
    "a window that overflows": (lambda client: client.sock.sendall(raw_frame(8, 0, 0, b"\x7f\xff\xff\xff")), {PROTOCOL_ERROR}),
    "no preface": (lambda client: client.sock.sendall(b"GET / HTTP/1.1\r\n\r\n"), {PROTOCOL_ERROR}),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_who_floods_is_shown_out_and_nobody_else_feels_it(place: Place, name: str) -> None:
    flood, codes = FLOODS[name]
    with place.bottle.connect("ok.test", "h2") as other, place.bottle.connect("ok.test", "h2") as sock:
        bystander = Client(other)
        before = resident(place.bottle.bundle)
        client = Client(sock)
        with contextlib.suppress(OSError):
            flood(client)
        with contextlib.suppress(Exception):
            client.until_the_end()
        assert client.goaway in codes or (client.goaway is None and client.ended)
        assert bystander.ask().status == 200
        assert resident(place.bottle.bundle) - before < 8 << 20


def test_a_hundred_streams_at_once_are_no_flood(place: Place) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        numbers = [client.start() for _ in range(100)]
        assert {client.answer(number).status for number in numbers} == {200}


def test_who_only_pings_is_shown_out(place: Place) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        ended = threading.Event()

        def ping() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.3):
                    sock.sendall(raw_frame(6, 0, 0, bytes(8)))

        threading.Thread(target=ping, daemon=True).start()
        assert client.until_the_end() == 0
        ended.set()


@pytest.mark.parametrize("what", ["nothing", "a preface", "half a head"])
def test_who_says_nothing_is_shown_out(place: Place, what: str) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        if what == "a preface":
            Client(sock)
        elif what == "half a head":
            client = Client(sock)
            client.sock.sendall(raw_frame(1, 0, 1, b"\x82"))
        while sock.recv(1000):
            pass


def test_a_connection_without_streams_ends_after_a_while(place: Place) -> None:
    with place.bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        assert client.ask().status == 200
        assert client.until_the_end() == 0


def test_a_connection_that_has_ended_makes_room_for_another(place: Place) -> None:
    for _ in range(MOST_CONNECTIONS + 5):
        with place.bottle.connect("ok.test", "h2") as sock:
            assert Client(sock).ask().status == 200


def test_no_more_than_so_many_connections_are_served_at_once(place: Place) -> None:
    served = 0
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS + 6):
            with contextlib.suppress(OSError):
                client = Client(stack.enter_context(place.bottle.connect("ok.test", "h2")))
                client.start(("content-type", "application/grpc"), method="POST", end=False)
                served += client.take()
    assert MOST_CONNECTIONS // 2 < served <= MOST_CONNECTIONS
    place.bottle.bundle.event("egress.refused", reason="too_many_connections")
