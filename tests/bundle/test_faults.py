"""Whatever fails in deciding, looking, putting in or dialling: nothing reaches an upstream, the event says so, others are served.

The failure is put into the real process, by a hook that replaces one function in it once it is confined.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Holder, in_header, read_all, served
from tests.bundle.hellos import client_hello
from tests.bundle.origins import server_context
from tests.bundle.recorder import Recorder

PROXY, TLS = ("127.0.0.1", 3128), ("192.0.2.9", 443)
EGRESS = "bot_bottle.bundle.egress."
HOOK = """
import sys
holder = sys.modules[{module!r}]
*path, name = {path!r}.split(".")
for part in path:
    holder = getattr(holder, part)
def broken(*args, **options):
    raise RuntimeError("this was broken for a test")
setattr(holder, name, broken)
"""
BODY = b"POST %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Length: 9\r\n\r\nsome=body"


class Fault(NamedTuple):
    """`closed` are the ways that then lead nowhere."""

    module: str
    path: str
    closed: tuple[str, ...]


ALL = ("http", "tunnel", "transparent", "opened", "opened in connect")
TLS_WAYS = ALL[1:]
OPENED = ALL[3:]
HTTP = ("http", *OPENED)
PARSED = ("http", "tunnel", *OPENED)
"""CONNECT is a request, too."""
FAULTS = [
    Fault("context", "decide", TLS_WAYS),
    Fault("context", "decide_request", HTTP),
    Fault("context", "intercepts", ("tunnel", "transparent")),
    Fault("context", "let_through", ALL),
    Fault("context", "Live.note", ALL),
    Fault("context", "Record.event", ALL),
    Fault("guarding", "Guarding.head", HTTP),
    Fault("guard", "SecretGuard.head", HTTP),
    Fault("guard", "SecretGuard.before_body", HTTP),
    Fault("guard", "SecretGuard.collected", HTTP),
    Fault("guard", "collect", HTTP),
    Fault("search", "Search.matches", HTTP),
    Fault("search", "Search._windows", HTTP),
    Fault("guard", "SecretGuard.reflection", HTTP),
    Fault("guard", "SecretGuard._matches", HTTP),
    Fault("exchange", "inject", OPENED),
    Fault("exchange", "write_head", HTTP),
    Fault("credentials", "Credentials.get", OPENED),
    Fault("http", "read_request", PARSED),
    Fault("http", "find_target", HTTP),
    Fault("http", "request_body", PARSED),
    Fault("http", "end_to_end", HTTP),
    Fault("target", "canonical_host", HTTP),
    Fault("names", "Names.fits", ("transparent", "opened")),
    Fault("names", "Names.name_at", ("transparent", "opened")),
    Fault("dial", "Dialer.dial", ALL),
    Fault("tunnel", "read_hello", TLS_WAYS),
    Fault("tunnel", "_objection", TLS_WAYS),
    Fault("tunnel", "canonical_host", ("tunnel", "opened in connect")),
    Fault("authority", "Authority.context", OPENED),
    Fault("intercept", "TlsTransport.handshake", OPENED),
    Fault("origin", "Origin.__call__", OPENED),
]
QUIET = {"Record.event", "Live.note"}
"""Those after which there may be nobody left to say it."""


def hook(fault: Fault) -> str:
    module = "bot_bottle.bundle.egress." + fault.module
    if fault.path.startswith("Record."):
        module = "bot_bottle.bundle.record"
    elif fault.path.startswith("Live."):
        module = EGRESS + "live"
    return HOOK.format(module=module, path=fault.path)


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    plain: Recorder
    secret: Recorder
    trust: ssl.SSLContext
    open: list[socket.socket]

    def connect(self, address: str, port: int) -> socket.socket:
        self.open.append(self.holder.connect(address, port))
        return self.open[-1]

    def go(self, way: str) -> None:
        """Says what would be allowed, to the end, whatever is answered."""
        with contextlib.suppress(OSError), WAYS[way](self) as sock:
            read_all(sock)
        while self.open:
            self.open.pop().close()

    def arrived(self) -> bytes:
        return self.plain.everything() + self.secret.everything()


def http(place: Place) -> socket.socket:
    sock = place.connect(*PROXY)
    sock.sendall(BODY % (b"http://ok.test/a", b"ok.test"))
    sock.shutdown(socket.SHUT_WR)
    return sock


def connected(place: Place, host: bytes) -> socket.socket:
    sock = place.connect(*PROXY)
    sock.sendall(b"CONNECT %b:443 HTTP/1.1\r\nHost: %b:443\r\n\r\n" % (host, host))
    if b" 200 " not in sock.recv(1000):
        raise ConnectionError("refused")
    return sock


def tunnel(place: Place) -> socket.socket:
    sock = connected(place, b"other.test")
    sock.sendall(client_hello("other.test") + b"and more")
    sock.shutdown(socket.SHUT_WR)
    return sock


def transparent(place: Place) -> socket.socket:
    sock = place.connect(*TLS)
    sock.sendall(client_hello("other.test") + b"and more")
    sock.shutdown(socket.SHUT_WR)
    return sock


def inside(place: Place, sock: socket.socket) -> socket.socket:
    opened = place.trust.wrap_socket(sock, server_hostname="api.test")
    opened.sendall(BODY % (b"/a", b"api.test"))
    return opened


WAYS: dict[str, Callable[[Place], socket.socket]] = {
    "http": http,
    "tunnel": tunnel,
    "transparent": transparent,
    "opened": lambda place: inside(place, place.connect(*TLS)),
    "opened in connect": lambda place: inside(place, connected(place, b"api.test")),
}


@contextlib.contextmanager
def at(certificate: Certificate, fault: str) -> Iterator[Place]:
    plain, secret = Recorder(), Recorder(server_context(certificate.certificate, certificate.key))
    routes = (
        Route("ok.test", 80, "http", upstream=plain.server.upstream(), methods=("POST",)),
        Route("other.test", 443, upstream=plain.server.upstream(), scan=False),
        Route("api.test", 443, upstream=secret.server.upstream(), credential="key", paths=("/**",)),
    )
    with served(
        EgressPolicy(routes=routes, secrets=SecretsPolicy()),
        limits=BundleLimits(first_bytes_seconds=3.0, idle_seconds=3.0),
        credentials={"key": in_header("X-Key", "s3cret-value")},
        env={"SSL_CERT_FILE": certificate.certificate},
        hook=fault,
    ) as (holder, bundle):
        told = bundle.hear(lambda message: "authority" in message)["authority"]
        yield Place(holder, bundle, plain, secret, ssl.create_default_context(cadata=told), [])
    plain.server.close()
    secret.server.close()


def test_without_a_fault_every_way_leads_somewhere(certificate: Certificate) -> None:
    with at(certificate, "pass") as place:
        for way in ALL:
            place.go(way)
            assert place.arrived(), way
            place.plain.forget()
            place.secret.forget()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.path)
def test_a_fault_lets_nothing_through(fault: Fault, certificate: Certificate) -> None:
    with at(certificate, hook(fault)) as place:
        for way in fault.closed:
            place.go(way)
            assert place.arrived() == b"", way
        assert not place.bundle.is_gone()
        if fault.path not in QUIET:
            place.bundle.hear(lambda message: message.get("event") in ("egress.refused", "egress.failed"))
        for way in ALL:
            if way not in fault.closed:
                place.go(way)
                assert place.arrived(), f"{way} has nothing to do with it"
