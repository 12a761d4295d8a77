"""WebSockets through the door: real ones pass on every way in; what only looks like one, and what must not leave, does not."""

import base64
import contextlib
import hashlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket
from websockets.sync.server import ServerConnection, serve

from bot_bottle.bundle.egress.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Control,
    Piece,
    written,
)
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy, Upstream
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Server, in_header, read_head, read_response, until
from tests.bundle.opened import ANYWHERE, PROXY, Opened, opened, with_tls

SECRET = "s3cret-Value-0123456789-of-the-key"
PLACEHOLDER = "placeholder-9876543210-for-key"
LIMIT = 64 * 1024
LIMITS = BundleLimits(first_bytes_seconds=3.0, idle_seconds=2.0, dial_seconds=2.0)


class Real:
    """The `websockets` library's own server; it remembers what it was asked and told."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.asked: list[dict[str, str]] = []
        self.told: list[str | bytes] = []
        self._server = serve(
            self._handle,
            "127.0.0.1",
            0,
            ssl=context,
            select_subprotocol=lambda _, offered: "chat" if "chat" in offered else None,
            close_timeout=10,
            max_size=None,
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _handle(self, connection: ServerConnection) -> None:
        assert connection.request
        self.asked.append({name.lower(): value for name, value in connection.request.headers.raw_items()})
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                self.told.append(message)
                connection.send(SECRET if message == "say it" else message)

    def upstream(self) -> Upstream:
        return Upstream(host="127.0.0.1", port=self.port)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)


class Scripted:
    """An upstream whose next connection is served by `serve`."""

    def __init__(self, certificate: Certificate) -> None:
        self.serve: Callable[[socket.socket], None] = lambda _: None
        self.server = Server(with_tls(certificate, lambda sock: self.serve(sock)))


class Place(NamedTuple):
    bottle: Opened
    real: Real
    plain: Real
    scripted: Scripted

    def client(self, host: str, path: str = "/ws", *, proxy: bool = False, **more: Any) -> ClientConnection:
        """The `websockets` library's client, as a program in the bottle."""
        sock = self.bottle.holder.connect(*(PROXY if proxy else ANYWHERE))
        if proxy:
            sock.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
            assert b" 200 " in read_head(sock)[0]
        context = ssl.create_default_context(cafile=self.bottle.trusted)
        return connect_websocket(
            f"wss://{host}{path}", sock=sock, ssl=context, proxy=None, close_timeout=10, max_size=None, **more
        )

    def keep_what_comes(self) -> tuple[bytearray, threading.Event]:
        """The scripted upstream switches and keeps what is said to it; set when that has ended."""
        seen, done = bytearray(), threading.Event()

        def serve(sock: socket.socket) -> None:
            accept(sock)
            with contextlib.suppress(OSError):
                while data := sock.recv(1000):
                    seen.extend(data)
            done.set()

        self.scripted.serve = serve
        return seen, done


@pytest.fixture(scope="module")
def place(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    real, plain, scripted = Real(context), Real(None), Scripted(certificate)
    to, to_script = real.upstream(), scripted.server.upstream()
    routes = (
        Route("ok.test", 443, upstream=to, methods=("GET",), paths=("/ws/**",), scan=False),
        Route("api.test", 443, upstream=to, credential="key", scan=False),
        Route("a.wild.test", 443, upstream=to),
        Route("other.test", 443, upstream=to_script, methods=("GET",), scan=False),
        Route("b.wild.test", 443, upstream=to_script),
        Route("plain.test", 80, protocol="http", upstream=plain.upstream(), scan=False),
    )
    policy = EgressPolicy(routes=routes, secrets=SecretsPolicy(limit=LIMIT))
    key = in_header("X-Api-Key", SECRET, placeholder=PLACEHOLDER)
    folder = tmp_path_factory.mktemp("trusted")
    with opened(policy, certificate, folder, limits=LIMITS, credentials={"key": key}) as bottle:
        yield Place(bottle, real, plain, scripted)
    for one in (real, plain, scripted.server):
        one.close()


@pytest.fixture(autouse=True)
def afresh(request: pytest.FixtureRequest) -> None:
    if "place" in request.fixturenames:
        place = request.getfixturevalue("place")
        for real in (place.real, place.plain):
            real.asked.clear()
            real.told.clear()


# Real ones


@pytest.mark.parametrize("proxy", [False, True], ids=["transparent", "through CONNECT"])
def test_a_real_client_talks_to_a_real_server(place: Place, proxy: bool) -> None:
    with place.client("ok.test", "/ws/a?b=c", proxy=proxy, subprotocols=["other", "chat"]) as client:
        assert client.subprotocol == "chat"
        for message in ("hello", "ü" * 70_000, b"", os.urandom(3 << 20)):
            client.send(message)
            assert client.recv(timeout=20) == message
        client.send(iter(["in ", "three ", "pieces"]))
        assert client.recv(timeout=20) == "in three pieces"
        assert client.ping().wait(20)
    assert client.protocol.close_rcvd is not None
    assert client.protocol.close_rcvd.code == 1000
    via = "connect" if proxy else "tls"
    place.bottle.bundle.event("egress.allowed", via=via, host="ok.test", method="GET", path="/ws/a")
    place.bottle.bundle.event("egress.closed", via=via, host="ok.test", reason="done")


@pytest.mark.parametrize("way", ["transparent", "absolute form", "inside CONNECT"])
def test_it_passes_on_plain_http_on_every_way_in(place: Place, way: str) -> None:
    at = ("192.0.2.9", 80) if way == "transparent" else PROXY
    with place.bottle.holder.connect(*at) as sock:
        if way == "inside CONNECT":
            sock.sendall(b"CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\n")
            assert b" 200 " in read_head(sock)[0]
        target = "http://plain.test/ws" if way == "absolute form" else "/ws"
        upgrade(sock, "plain.test", target)
        assert read_head(sock)[0].startswith(b"HTTP/1.1 101 ")
        sock.sendall(message(TEXT, b"hello"))
        assert received(sock, 7) == b"\x81\x05hello"
    until(lambda: place.plain.told == ["hello"])


def test_nodes_client_gets_through(place: Place) -> None:
    program = """
    const socket = new WebSocket("wss://ok.test/ws/node");
    socket.onopen = () => socket.send("from node");
    socket.onmessage = (event) => { console.log(event.data); socket.close(1000); };
    socket.onclose = (event) => { console.log(event.code); };
    socket.onerror = (event) => { console.log(event.error); };
    """
    argv = ["node", "--experimental-websocket", "-e", program]
    asked = place.bottle.holder.run(argv, env={"NODE_EXTRA_CA_CERTS": place.bottle.trusted})
    assert asked.stdout == b"from node\n1000\n", asked


def test_nothing_is_compressed_where_somebody_has_to_read_it(place: Place) -> None:
    for host in ("api.test", "a.wild.test"):
        with place.client(host) as client:
            assert not client.protocol.extensions
    until(lambda: len(place.real.asked) == 2)
    assert not any("sec-websocket-extensions" in asked for asked in place.real.asked)


def test_messages_may_be_compressed_where_nobody_has_to(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    real = Real(context)
    policy = EgressPolicy(routes=(Route("ok.test", 443, upstream=real.upstream(), methods=("GET",)),))
    with opened(policy, certificate, tmp_path_factory.mktemp("trusted")) as bottle:
        with Place(bottle, real, real, None).client("ok.test") as client:  # type: ignore[arg-type]
            assert client.protocol.extensions
            for text in ("a" * 1_000_000, "b", os.urandom(500_000)):
                client.send(text)
                assert client.recv(timeout=20) == text
    real.close()


def test_the_credential_goes_with_the_switch_and_is_starred_in_what_comes_back(place: Place) -> None:
    with place.client("api.test", additional_headers={"X-Api-Key": PLACEHOLDER}) as client:
        client.send("say it")
        assert client.recv(timeout=20) == "*" * len(SECRET)
        client.send("x" * 200_000 + "and nothing else")
        assert client.recv(timeout=20) == "x" * 200_000 + "and nothing else"
    assert place.real.asked[0]["x-api-key"] == SECRET


# What is judged, and what only looks like a switch


def test_the_request_is_judged_like_any_other(place: Place) -> None:
    with pytest.raises(InvalidStatus) as refused:
        place.client("ok.test", "/admin")
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["reason"] == "path_not_allowed"
    assert place.real.asked == []


def test_the_agents_key_does_not_go_to_the_upstream(place: Place) -> None:
    with place.client("ok.test", "/ws/a") as client:
        assert client.request
        agents = client.request.headers["Sec-WebSocket-Key"]
    until(lambda: place.real.asked)
    assert place.real.asked[0]["sec-websocket-key"] != agents


ASKED_BADLY = {
    "no key": (b"GET", {"Sec-WebSocket-Key": None}, 400),
    "two keys": (b"GET", {"X": "y\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}, 400),
    "a short key": (b"GET", {"Sec-WebSocket-Key": "AAAA"}, 400),
    "a key that is none": (b"GET", {"Sec-WebSocket-Key": "A" * 22 + "=="}, 101),
    "a key with more bits": (b"GET", {"Sec-WebSocket-Key": "A" * 21 + "B=="}, 400),
    "another method": (b"POST", {}, 400),
    "a body": (b"GET", {"Content-Length": "5"}, 400),
    "an old version": (b"GET", {"Sec-WebSocket-Version": "8"}, 426),
    "two versions": (b"GET", {"Sec-WebSocket-Version": "13, 8"}, 426),
    "another protocol": (b"GET", {"Upgrade": "tls/1.0"}, 501),
    "one of two protocols": (b"GET", {"Upgrade": "websocket, tls/1.0"}, 501),
    "a malformed subprotocol": (b"GET", {"Sec-WebSocket-Protocol": "a b"}, 400),
}


@pytest.mark.parametrize("name", ASKED_BADLY)
def test_only_a_well_formed_wish_to_switch_reaches_the_upstream(place: Place, name: str) -> None:
    method, changed, status = ASKED_BADLY[name]
    seen = []

    def answer(sock: socket.socket) -> None:
        seen.append(accept(sock))

    place.scripted.serve = answer
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/", method, **changed)
        assert int(read_head(sock)[0].split()[1]) == status
    assert bool(seen) == (status == 101)


def answered(*lines: str, key: str = "right") -> Callable[[socket.socket], None]:
    """A server that answers a switch with `lines`; `KEY` in them stands for the right answer to the request."""

    def serve(sock: socket.socket) -> None:
        head, _ = read_head(sock)
        right = accept_value(key_in(head))
        sock.sendall("\r\n".join([*lines, "", ""]).replace("KEY", right).encode())
        with contextlib.suppress(OSError):
            sock.recv(1)

    return serve


SWITCH = ("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket")
NOT_SWITCHED = {
    "no answer to the key": SWITCH,
    "an answer to another key": (*SWITCH, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "two answers": (*SWITCH, "Sec-WebSocket-Accept: KEY", "Sec-WebSocket-Accept: KEY"),
    "another protocol": (SWITCH[0], SWITCH[1], "Upgrade: tls/1.0", "Sec-WebSocket-Accept: KEY"),
    "no protocol": (*SWITCH[:2], "Sec-WebSocket-Accept: KEY"),
    "no connection": (SWITCH[0], SWITCH[2], "Sec-WebSocket-Accept: KEY"),
    "a body": (*SWITCH, "Sec-WebSocket-Accept: KEY", "Content-Length: 5"),
    "an extension nobody asked for": (*SWITCH, "Sec-WebSocket-Accept: KEY", "Sec-WebSocket-Extensions: x-mux"),
    "compression nobody asked for": (
        *SWITCH, "Sec-WebSocket-Accept: KEY", "Sec-WebSocket-Extensions: permessage-deflate",
    ),
    "a subprotocol nobody asked for": (*SWITCH, "Sec-WebSocket-Accept: KEY", "Sec-WebSocket-Protocol: chat"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_SWITCHED)
def test_an_upstream_that_has_not_switched_gets_nothing_more(place: Place, name: str) -> None:
    place.scripted.serve = answered(*NOT_SWITCHED[name])
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/")
        head, body = read_response(sock)
        assert head.startswith(b"HTTP/1.1 502 ")
        assert json.loads(body)["reason"] == "upstream_malformed"


def test_a_switch_that_nobody_asked_for_is_none(place: Place) -> None:
    place.scripted.serve = answered(*SWITCH, "Sec-WebSocket-Accept: KEY")
    with place.bottle.connect("other.test") as sock:
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: other.test\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert read_response(sock)[0].startswith(b"HTTP/1.1 502 ")


def test_an_answer_other_than_the_switch_comes_as_it_is_and_the_connection_goes_on(place: Place) -> None:
    def serve(sock: socket.socket) -> None:
        for _ in range(2):
            head, _ = read_head(sock)
            body = head.split(b"\r\n")[0]
            sock.sendall(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    place.scripted.serve = serve
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/a")
        assert read_response(sock)[1] == b"GET /a HTTP/1.1"
        sock.sendall(b"GET /b HTTP/1.1\r\nHost: other.test\r\n\r\n")
        assert read_response(sock)[1] == b"GET /b HTTP/1.1"


# Frames


def test_a_request_smuggled_behind_the_switch_does_not_reach_the_upstream(place: Place) -> None:
    seen, _ = place.keep_what_comes()
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/")
        read_head(sock)
        sock.sendall(b"DELETE /everything HTTP/1.1\r\nHost: other.test\r\n\r\n")
        assert closed_with(sock) == (1002, b"bad_frame")
    assert b"DELETE" not in seen
    place.bottle.bundle.event("egress.refused", host="other.test", reason="bad_frame")


def raw(first: int, second: int, rest: bytes = b"") -> bytes:
    return bytes((first, second)) + rest


KEY = b"\1\2\3\4"
BAD_FRAMES = {
    "unmasked": raw(0x81, 5, b"hello"),
    "a reserved bit": raw(0xA1, 0x80, KEY),
    "compressed, though nobody said so": raw(0xC1, 0x80, KEY),
    "an unknown kind": raw(0x83, 0x80, KEY),
    "an unknown control frame": raw(0x8B, 0x80, KEY),
    "a long control frame": raw(0x89, 0xFE, b"\0\x7e" + KEY + bytes(126)),
    "a cut control frame": raw(0x09, 0x80, KEY),
    "a continuation of nothing": raw(0x80, 0x80, KEY),
    "a message in a message": raw(0x01, 0x80, KEY) + raw(0x81, 0x80, KEY),
    "a long length for a short one": raw(0x81, 0xFE, b"\0\5" + KEY + b"hello"),
    "a longer length for a long one": raw(0x81, 0xFF, b"\0\0\0\0\0\0\xff\xff" + KEY),
    "an impossible length": raw(0x81, 0xFF, b"\xff" * 8 + KEY),
    "a close with half a code": raw(0x88, 0x81, KEY + b"\0"),
    "a close with a code that is never sent": raw(0x88, 0x82, bytes(4) + (1005).to_bytes(2, "big")),
    "something after the close": raw(0x88, 0x80, KEY) + raw(0x81, 0x80, KEY),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_malformed_frame_goes_no_further(place: Place, name: str) -> None:
    seen, done = place.keep_what_comes()
    with place.bottle.connect("b.wild.test") as sock:
        upgrade(sock, "b.wild.test", "/")
        read_head(sock)
        sock.sendall(BAD_FRAMES[name])
        assert closed_with(sock) == (1002, b"bad_frame")
    assert done.wait(10)
    assert seen[0] & 0x0F == CLOSE and len(seen) == 2 + 4 + 2  # noqa: PT018 - ours, and nothing else


def test_a_malformed_frame_of_the_upstreams_ends_it_as_well(place: Place) -> None:
    def serve(sock: socket.socket) -> None:
        accept(sock)
        sock.sendall(raw(0x81, 0x85, KEY + b"hello"))
        sock.recv(100)

    place.scripted.serve = serve
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/")
        assert closed_with(sock, read_head(sock)[1]) == (1011, b"upstream_malformed")
    place.bottle.bundle.event("egress.failed", host="other.test", reason="upstream_malformed")


# What must not leave


@pytest.mark.parametrize(
    "how", ["whole", "in fragments", "byte by byte", "in base64", "binary", "in a ping", "in a close"]
)
def test_no_message_takes_a_secret_along(place: Place, how: str) -> None:
    secret = SECRET.encode()
    frames = {
        "whole": message(TEXT, b"it is " + secret),
        "in fragments": fragments(secret, 7),
        "byte by byte": fragments(secret, 1),
        "in base64": message(TEXT, base64.b64encode(b"ab" + secret)),
        "binary": message(BINARY, b"\0" + secret),
        "in a ping": written(Control(PING, secret), mask=True),
        "in a close": written(Control(CLOSE, b"\x03\xe8" + secret), mask=True),
    }[how]
    seen, done = place.keep_what_comes()
    with place.bottle.connect("b.wild.test") as sock:
        upgrade(sock, "b.wild.test", "/")
        read_head(sock)
        for at in range(0, len(frames), 5 if how == "byte by byte" else len(frames)):
            sock.sendall(frames[at : at + (5 if how == "byte by byte" else len(frames))])
        assert closed_with(sock) == (1008, b"secret_found")
    assert done.wait(10)
    assert len(seen) == 2 + 4 + 2
    place.bottle.bundle.event("egress.refused", host="b.wild.test", reason="secret_found", place="message")


def test_a_placeholder_does_not_leave_in_a_message(place: Place) -> None:
    with place.client("a.wild.test") as client:
        client.send("fine")
        assert client.recv(timeout=20) == "fine"
        client.send(PLACEHOLDER)
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(timeout=20)
    assert ended.value.rcvd is not None
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (1008, "placeholder_misused")
    assert place.real.told == ["fine"]


def test_a_message_larger_than_what_is_searched_is_refused(place: Place) -> None:
    with place.client("a.wild.test") as client:
        client.send("x" * LIMIT)
        assert client.recv(timeout=20) == "x" * LIMIT
        with contextlib.suppress(ConnectionClosed):
            client.send("x" * (LIMIT + 1))
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(timeout=20)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.reason == "body_too_large"
    assert len(place.real.told) == 1


def test_a_larger_one_passes_where_the_policy_says_so(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    real = Real(context)
    policy = EgressPolicy(
        routes=(Route("ok.test", 443, upstream=real.upstream()),),
        secrets=SecretsPolicy(oversize="pass", limit=LIMIT),
    )
    with opened(policy, certificate, tmp_path_factory.mktemp("trusted")) as bottle:
        with Place(bottle, real, real, None).client("ok.test") as client:  # type: ignore[arg-type]
            for text in ("x" * 300_000, "small", "y" * (LIMIT + 1)):
                client.send(text)
                assert client.recv(timeout=20) == text
    real.close()


# The ends


def test_a_connection_that_says_nothing_ends(place: Place) -> None:
    def serve(sock: socket.socket) -> None:
        accept(sock)
        sock.recv(100)

    place.scripted.serve = serve
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/")
        assert closed_with(sock, read_head(sock)[1]) == (1001, b"idle")
    place.bottle.bundle.event("egress.closed", host="other.test", reason="idle")


@pytest.mark.parametrize("who", ["agent", "upstream"])
def test_one_that_only_one_side_speaks_in_is_not_idle(place: Place, who: str) -> None:
    def speak(sock: socket.socket, mask: bool, until_: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while not until_.wait(0.4):
                sock.sendall(written(Piece(TEXT, b"still here", True, True), mask=mask))

    over, seen = threading.Event(), []

    def serve(sock: socket.socket) -> None:
        accept(sock)
        if who == "upstream":
            speak(sock, False, over)
        else:
            while data := sock.recv(100):
                seen.append(data)

    place.scripted.serve = serve
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/")
        rest = read_head(sock)[1]
        if who == "agent":
            threading.Thread(target=speak, args=(sock, True, over), daemon=True).start()
            until(lambda: len(seen) > 9)
        else:
            assert len(rest + received(sock, 12 * 9 - len(rest))) >= 12 * 9
        over.set()


@pytest.mark.parametrize("who", ["agent", "upstream"])
def test_a_side_that_vanishes_ends_the_other(place: Place, who: str) -> None:
    ended = threading.Event()

    def serve(sock: socket.socket) -> None:
        accept(sock)
        if who == "agent":
            with contextlib.suppress(OSError):
                while sock.recv(100):
                    pass
            ended.set()

    place.scripted.serve = serve
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/")
        rest = read_head(sock)[1]
        if who == "upstream":
            assert closed_with(sock, rest)[0] == 1001
    assert who == "upstream" or ended.wait(10)


def test_a_policy_that_forbids_it_ends_it(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    real = Real(context)
    route = Route("ok.test", 443, upstream=real.upstream(), paths=("/ws", "/other"))
    with opened(EgressPolicy((route,)), certificate, tmp_path_factory.mktemp("trusted")) as bottle:
        with Place(bottle, real, real, None).client("ok.test") as client:  # type: ignore[arg-type]
            client.send("hello")
            assert client.recv(timeout=20) == "hello"
            bottle.bundle.tell({"policy": EgressPolicy((route._replace(paths=("/other",)),)).document()})
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=20)
        bottle.bundle.event("egress.closed", host="ok.test", reason="policy_changed")
    real.close()


def test_a_large_message_does_not_have_to_fit_into_memory(place: Place) -> None:
    size, piece = 96 << 20, bytes(1 << 16)

    def serve(sock: socket.socket) -> None:
        accept(sock)
        sock.sendall(b"\x82\x7f" + size.to_bytes(8, "big"))
        for _ in range(size // len(piece)):
            sock.sendall(piece)

    place.scripted.serve = serve
    with place.bottle.connect("other.test") as sock:
        upgrade(sock, "other.test", "/")
        got = len(read_head(sock)[1])
        before = resident(place.bottle.bundle)
        most = before
        while got < size:
            data = sock.recv(1 << 18)
            assert data
            got += len(data)
            most = max(most, resident(place.bottle.bundle))
    assert most - before < 6 << 20


def resident(bundle: Bundle) -> int:
    with open(f"/proc/{bundle.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def upgrade(
    sock: socket.socket, host: str, target: str, method: bytes = b"GET", **changed: str | None
) -> None:
    fields: dict[str, str | None] = {
        "Host": host, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), **changed,
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    sock.sendall("\r\n".join([f"{method.decode()} {target} HTTP/1.1", *lines, "", ""]).encode())


def key_in(head: bytes) -> bytes:
    found = [line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")]
    return found[0] if found else b""


def accept_value(key: bytes) -> str:
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def accept(sock: socket.socket) -> bytes:
    """Switches, as a server does."""
    head, _ = read_head(sock)
    answer = "\r\n".join([*SWITCH, f"Sec-WebSocket-Accept: {accept_value(key_in(head))}", "", ""])
    sock.sendall(answer.encode())
    return head


def message(kind: int, data: bytes) -> bytes:
    return written(Piece(kind, data, True, True), mask=True)


def fragments(data: bytes, size: int) -> bytes:
    cut = [data[at : at + size] for at in range(0, len(data), size)]
    pieces = [Piece(TEXT, part, at == 0, at == len(cut) - 1) for at, part in enumerate(cut)]
    assert written(pieces[1], mask=True)[0] & 0x0F == CONTINUATION
    return b"".join(written(piece, mask=True) for piece in pieces)


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"the end, after {data!r}"
        data += part
    return data


def closed_with(sock: socket.socket, data: bytes = b"") -> tuple[int, bytes]:
    """The code and text of the Close that comes next, and that the end follows."""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(1000):
            data += part
    assert data[0] == 0x80 | CLOSE, data
    assert len(data) == 2 + data[1]
    return int.from_bytes(data[2:4], "big"), data[4:]
