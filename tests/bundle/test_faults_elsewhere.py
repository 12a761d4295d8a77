"""Whatever fails in deciding on a stream of HTTP/2, a WebSocket, a tcp route or a name: nothing of it gets anywhere.

The faults are those of `test_faults.py`'s kind, in the real process; the ways are those that it doesn't go.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bot_bottle.bundle.egress.websocket.frames import TEXT
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.door.model import listeners_for
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from tests.bundle.conftest import Certificate
from tests.bundle.h2peers import Asked, Client, Serving
from tests.bundle.harness import Server, in_header, read_all, read_head, until
from tests.bundle.opened import Opened, opened, with_tls
from tests.bundle.test_dns import addresses, query
from tests.bundle.test_faults import EGRESS, HOOK
from tests.bundle.test_websocket import accept, message, upgrade

NAMES = {"ok.test": "name", "deep.wild.test": "name below a wildcard"}
SAID = b"a message of the agent's"


class Upstreams:
    """Three servers that count whom they serve, and what each of them got."""

    def __init__(self, certificate: Certificate) -> None:
        self.busy = 0
        self.got: list[str] = []
        self.streams = Server(with_tls(certificate, self._counted(self._streams), "h2"))
        self.sockets = Server(with_tls(certificate, self._counted(self._socket)))
        self.bytes = Server(self._counted(self._bytes))

    def _counted(self, serve: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
        def counted(sock: socket.socket) -> None:
            self.busy += 1
            try:
                serve(sock)
            finally:
                self.busy -= 1

        return counted

    def _streams(self, sock: socket.socket) -> None:
        def begin(*_: object) -> None:
            self.got.append("stream")

        def reply(serving: Serving, number: int, asked: Asked) -> None:
            serving.say(number, asked.body)

        assert isinstance(sock, ssl.SSLSocket)
        Serving(sock, reply, begin).run()

    def _socket(self, sock: socket.socket) -> None:
        accept(sock)
        self.got.append("switch")
        if (frame := sock.recv(1000)) and frame[0] & 15 == TEXT:  # what ends it is said in any case
            self.got.append("message")
            sock.sendall(b"\x81\x02ok")

    def _bytes(self, sock: socket.socket) -> None:
        if sock.recv(1000):
            self.got.append("bytes")
            sock.sendall(b"ok")

    def all_got(self) -> set[str]:
        """What came, once nobody is served any more."""
        until(lambda: not self.busy)
        return set(self.got)

    def close(self) -> None:
        for one in (self.streams, self.sockets, self.bytes):
            one.close()


class Place(NamedTuple):
    bottle: Opened
    upstreams: Upstreams

    def go(self) -> set[str]:
        """Goes every way with what would be allowed, to the end, whatever is answered, and says what got anywhere."""
        self.upstreams.got.clear()
        for way in (self._stream, self._socket, self._tcp):
            with contextlib.suppress(OSError):
                way()
        found = {kind for name, kind in NAMES.items() if self._address(name)}
        return self.upstreams.all_got() | found

    def _stream(self) -> None:
        with self.bottle.connect("ok.test", "h2") as sock:
            client = Client(sock)
            client.answer(client.start(("content-type", "text/plain"), method="POST", body=SAID))

    def _socket(self) -> None:
        with self.bottle.connect("other.test") as sock:
            upgrade(sock, "other.test", "/")
            if b" 101 " in read_head(sock)[0]:
                sock.sendall(message(TEXT, SAID))
                sock.recv(1000)

    def _tcp(self) -> None:
        with self.bottle.holder.connect(self._address("db.test") or "198.18.0.1", 5432) as sock:
            sock.sendall(SAID)
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)

    def _address(self, name: str) -> str:
        """By TCP: there, no answer at all is an end."""
        with self.bottle.holder.connect("127.0.0.1", 53) as sock:
            asked = query(name)
            sock.sendall(len(asked).to_bytes(2, "big") + asked)
            sock.shutdown(socket.SHUT_WR)
            return "".join(addresses(read_all(sock)[2:]))


ALL = {"stream", "switch", "message", "bytes", *NAMES.values()}


class Fault(NamedTuple):
    """`closed` is what then gets nowhere."""

    module: str
    path: str
    closed: frozenset[str]


HTTP, SOCKET = frozenset({"stream", "switch", "message"}), frozenset({"switch", "message"})
STREAM, MESSAGE, BYTES = frozenset({"stream"}), frozenset({"message"}), frozenset({"bytes"})
WILD, NAME = frozenset({"name below a wildcard"}), frozenset(NAMES.values())
FAULTS = [
    Fault("context", "decide", HTTP | BYTES),
    Fault("context", "decide_request", HTTP),
    Fault("context", "let_through", HTTP | BYTES),
    Fault("context", "Record.event", HTTP | BYTES),
    Fault("context", "Live.note", HTTP | BYTES),
    Fault("dial", "Dialer.dial", HTTP | BYTES),
    Fault("names", "Names.name_at", HTTP | BYTES),
    Fault("resolver", "read_question", NAME | BYTES),
    Fault("resolver", "canonical_host", NAME | BYTES),
    Fault("resolver", "names_allowed", WILD),
    Fault("guard", "SecretGuard.host", WILD),
    Fault("guard", "SecretGuard.head", HTTP),
    Fault("guard", "SecretGuard.collected", STREAM),
    Fault("guard", "SecretGuard.message_limit", HTTP),
    Fault("guard", "SecretGuard.frame", MESSAGE),
    Fault("guard", "SecretGuard.reflection", HTTP),
    Fault("search", "Search.matches", HTTP),
    Fault("credentials", "Credentials.get", HTTP),
    Fault("http2.serve", "read_request", STREAM),
    Fault("http2.serve", "read_authority", STREAM),
    Fault("http2.serve", "canonical_host", STREAM),
    Fault("http2.serve", "credential_for", STREAM),
    Fault("http2.serve", "inject", STREAM),
    Fault("http2.serve", "request_fields", STREAM),
    Fault("http2.serve", "Upload.collect", STREAM),
    Fault("http2.upstreams", "Upstreams.open", STREAM),
    Fault("http", "read_offer", SOCKET),
    Fault("websocket.relay", "FrameReader.feed", MESSAGE),
    Fault("websocket.relay", "written", MESSAGE),
    Fault("websocket.looking", "Looking.take", MESSAGE),
]
QUIET = {"Record.event", "Live.note"}
"""Those after which there may be nobody left to say it."""
AS_THE_BUNDLE = """
from importlib import import_module
from bot_bottle.bundle import spare
with spare.left_out():
    import_module({module!r})
"""
"""Imports what a bundle imports when it is first needed, from memory and as it does."""
LIMITS = BundleLimits(first_bytes_seconds=3.0, idle_seconds=3.0)


def hook(fault: Fault) -> str:
    module = EGRESS + fault.module
    if fault.path.startswith("Record."):
        module = "bot_bottle.bundle.record"
    elif fault.path.startswith("Live."):
        module = EGRESS + "live"
    return AS_THE_BUNDLE.format(module=module) + HOOK.format(module=module, path=fault.path)


@contextlib.contextmanager
def at(certificate: Certificate, folder: Path, fault: str) -> Iterator[Place]:
    upstreams = Upstreams(certificate)
    routes = (
        Route("ok.test", 443, upstream=upstreams.streams.upstream(), credential="key", paths=("/a/**",)),
        Route("other.test", 443, upstream=upstreams.sockets.upstream(), credential="key", methods=("GET",)),
        Route("db.test", 5432, protocol="tcp", upstream=upstreams.bytes.upstream()),
        Route("*.wild.test", 443),
    )
    policy = EgressPolicy(routes=routes, secrets=SecretsPolicy())
    more = {"credentials": {"key": in_header("X-Key", "s3cret-value")}, "listeners": listeners_for(policy)}
    with opened(policy, certificate, folder, limits=LIMITS, hook=fault, **more) as bottle:
        yield Place(bottle, upstreams)
    upstreams.close()


def test_without_a_fault_everything_gets_somewhere(certificate: Certificate, tmp_path: Path) -> None:
    with at(certificate, tmp_path, "pass") as place:
        assert place.go() == ALL


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.module} {fault.path}")
def test_a_fault_lets_nothing_through(fault: Fault, certificate: Certificate, tmp_path: Path) -> None:
    with at(certificate, tmp_path, hook(fault)) as place:
        assert place.go() == ALL - fault.closed
        assert not place.bottle.bundle.is_gone()
        if fault.path not in QUIET:
            place.bottle.bundle.hear(
                lambda message: str(message.get("event")).endswith((".refused", ".failed"))
            )


def test_a_query_that_fails_gets_no_answer_and_is_told_of(certificate: Certificate, tmp_path: Path) -> None:
    """By datagrams, where no connection ends for it."""
    with at(certificate, tmp_path, hook(Fault("resolver", "read_question", NAME))) as place:
        with place.bottle.holder.new_socket(socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", 53))
            sock.send(query("ok.test"))
            place.bottle.bundle.event("egress.failed", via="dns-udp", reason="internal")
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(100)
        assert not place.bottle.bundle.is_gone()
