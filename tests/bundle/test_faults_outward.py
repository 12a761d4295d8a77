"""Whatever fails on the ways outward: nothing goes on by it, the event says so, the other ways lead where they did.

Those ways are: what is only watched, a company's proxy (bare and in TLS), a second engine. The faults are those of
`test_faults.py`'s kind, in the real process.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bot_bottle.bundle.model import BundleLimits, Proxy, UpstreamProxy
from bot_bottle.policy.model import EgressPolicy, Route
from support.authorities import Authority
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_head, served
from tests.bundle.hellos import client_hello
from tests.bundle.proxies import Forwarder
from tests.bundle.recorder import Recorder
from tests.bundle.test_engine import HOOK as PUBLIC
from tests.bundle.test_faults import HOOK
from tests.bundle.test_via import over_tls

HOST = "localhost"
"""The one name that every machine resolves; where an engine stands behind the bundle, `PUBLIC` makes it a public one."""
SAID = b"some of the agent's bytes\r\n\r\n"
LIMITS = BundleLimits(first_bytes_seconds=3.0, idle_seconds=3.0, dial_seconds=3.0, proxy_seconds=3.0)


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    upstream: Recorder
    forwarder: Forwarder
    port: int

    def go(self, way: str) -> bool:
        """Goes it with what would be allowed, to the end, whatever is answered; whether any of it arrived."""
        with contextlib.suppress(OSError), self.holder.connect("127.0.0.1", 3128) as sock:
            WAYS[way](self, sock)
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        arrived = self.upstream.everything() or [
            head for head in self.forwarder.heads if not head.startswith(b"CONNECT ")
        ]
        self.upstream.forget()
        self.forwarder.heads.clear()
        return bool(arrived)


def request(place: Place, sock: socket.socket, method: bytes = b"GET") -> None:
    target = b"localhost:%d" % place.port
    sock.sendall(
        b"%b http://%b/a HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (method, target, target)
    )


def connected(sock: socket.socket, port: int, first: bytes) -> None:
    target = b"localhost:%d" % port
    sock.sendall(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target))
    if b" 200 " not in read_head(sock)[0]:
        raise ConnectionError("refused")
    sock.sendall(first)


WAYS: dict[str, Callable[[Place, socket.socket], None]] = {
    "request": request,
    "watched": lambda place, sock: request(place, sock, b"DELETE"),
    "tunnel": lambda _, sock: connected(sock, 443, client_hello(HOST) + SAID),
    "tcp": lambda _, sock: connected(sock, 5432, SAID),
}


def routes(port: int, upstream: Recorder | None = None) -> tuple[Route, ...]:
    to = upstream.server.upstream() if upstream else None
    return (
        Route(HOST, port, "http", methods=("GET",), upstream=to),
        Route(HOST, 443, upstream=to),
        Route(HOST, 5432, "tcp", upstream=to),
    )


@contextlib.contextmanager
def watched(_: Path, fault: str) -> Iterator[Place]:
    upstream = Recorder()
    policy = EgressPolicy(routes=routes(80, upstream), mode="observe")
    with served(policy, limits=LIMITS, hook=fault) as (holder, bundle):
        yield Place(holder, bundle, upstream, Forwarder(0), 80)
    upstream.server.close()


@contextlib.contextmanager
def company(
    _: Path, fault: str, *, authority: Authority | None = None, tls: Path | None = None
) -> Iterator[Place]:
    upstream = Recorder()
    forwarder = Forwarder(upstream.server.port)
    server = Server(over_tls(tls, forwarder) if tls else forwarder)
    proxy = Proxy(HOST if tls else "127.0.0.1", server.port, tls is not None)
    with served(
        EgressPolicy(routes=routes(80)),
        limits=LIMITS,
        proxy=UpstreamProxy(proxy, proxy, proxy),
        authorities=authority.pem if authority else "",
        hook=f"from bot_bottle.bundle.egress import dial\ndial.name_is_private = lambda name: False\n{fault}",
    ) as (holder, bundle):
        yield Place(holder, bundle, upstream, forwarder, 80)
    server.close()
    upstream.server.close()


@contextlib.contextmanager
def company_in_tls(folder: Path, fault: str) -> Iterator[Place]:
    authority = Authority("Company")
    with company(folder, fault, authority=authority, tls=authority.leaf(folder, HOST)) as place:
        yield place


@contextlib.contextmanager
def engine(_: Path, fault: str) -> Iterator[Place]:
    """A proxy of the tests' stands for the engine: what is broken here is our own side of it."""
    upstream = Recorder()
    forwarder = Forwarder(upstream.server.port)
    server = Server(forwarder)
    policy = EgressPolicy(routes=routes(80)[:2], engine="pipelock")
    with served(policy, limits=LIMITS, engine_port=server.port, hook=PUBLIC + fault) as (holder, bundle):
        yield Place(holder, bundle, upstream, forwarder, 80)
    server.close()
    upstream.server.close()


PLACES = {
    watched: ("request", "watched", "tunnel", "tcp"),
    company: ("request", "tunnel", "tcp"),
    company_in_tls: ("request", "tunnel", "tcp"),
    engine: ("request", "tunnel"),
}
"""With the ways that lead somewhere there."""


class Fault(NamedTuple):
    """`closed` are the ways that then lead nowhere."""

    at: Callable[[Path, str], contextlib.AbstractContextManager[Place]]
    module: str
    path: str
    closed: tuple[str, ...]


TUNNELS = ("tunnel", "tcp")
FAULTS = [
    Fault(watched, "observe", "matches", ("watched",)),
    Fault(watched, "observe", "_leads_there", ("watched",)),
    Fault(watched, "observe", "_protocol", ("watched",)),
    Fault(watched, "observe", "Route", ("watched",)),
    Fault(watched, "observe", "protocol_on", ("tcp",)),
    Fault(watched, "context", "let_through", ("request", "watched", "tunnel", "tcp")),
    Fault(watched, "context", "spoken", ("tcp",)),
    Fault(company, "dial", "goes_direct", ("request", *TUNNELS)),
    Fault(company, "dial", "name_is_private", ("request", *TUNNELS)),
    Fault(company, "dial", "Dialer._dial_by", ("request", *TUNNELS)),
    Fault(company, "dial", "Dialer.proxy_for", ("request", *TUNNELS)),
    Fault(company, "via", "connect_through", TUNNELS),
    Fault(company, "via", "_head", TUNNELS),
    Fault(company, "via", "_readable", TUNNELS),
    Fault(company, "via", "read_response", TUNNELS),
    Fault(company_in_tls, "via", "socket.socketpair", ("request", *TUNNELS)),
    Fault(company_in_tls, "via", "_Relay.__init__", ("request", *TUNNELS)),
    Fault(company_in_tls, "via", "_Relay.run", ("request", *TUNNELS)),
    Fault(company_in_tls, "via", "_Relay._up", ("request", *TUNNELS)),
    Fault(company_in_tls, "via", "_Relay._down", ("request", *TUNNELS)),
    Fault(company_in_tls, "tls", "TlsTransport._shake", ("request", *TUNNELS)),
    Fault(engine, "engine", "EngineDialer.dial", ("request", "tunnel")),
    Fault(engine, "engine", "EngineDialer._check", ("request", "tunnel")),
    Fault(engine, "engine", "EngineDialer._addresses", ("request", "tunnel")),
    Fault(engine, "engine", "EngineDialer._reach", ("request", "tunnel")),
    Fault(engine, "engine", "EngineDialer._connect_one", ("request", "tunnel")),
    Fault(engine, "engine", "EngineDialer.proxy_for", ("request",)),
    Fault(engine, "engine", "EngineDialer.forward", ("request",)),
    Fault(engine, "engine", "Proxy", ("request",)),
    Fault(engine, "engine", "connect_through", ("tunnel",)),
    Fault(engine, "via", "read_response", ("tunnel",)),
]


def hook(fault: Fault) -> str:
    return HOOK.format(module="bot_bottle.bundle.egress." + fault.module, path=fault.path)


@pytest.mark.parametrize("at", PLACES, ids=lambda at: at.__name__)
def test_without_a_fault_every_way_leads_outward(
    at: Callable[[Path, str], contextlib.AbstractContextManager[Place]], tmp_path: Path
) -> None:
    with at(tmp_path, "pass") as place:
        assert {way: place.go(way) for way in PLACES[at]} == dict.fromkeys(PLACES[at], True)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.at.__name__} {fault.path}")
def test_a_fault_on_the_way_outward_lets_nothing_through(fault: Fault, tmp_path: Path) -> None:
    ways = PLACES[fault.at]
    with fault.at(tmp_path, hook(fault)) as place:
        assert {way: place.go(way) for way in ways} == {way: way not in fault.closed for way in ways}
        assert not place.bundle.is_gone()
        place.bundle.hear(lambda message: str(message.get("event")).endswith((".refused", ".failed")))


@pytest.mark.parametrize("said", [b"HTTP/1.1 407 Login\r\n\r\n", b"HTTP/1.1 403 No\r\n\r\n"])
@pytest.mark.parametrize(
    ("at", "module", "path"), [(company, "via", "refusal"), (engine, "engine", "_explained")]
)
def test_a_fault_in_explaining_a_refusal_is_no_yes(
    at: Callable[[Path, str], contextlib.AbstractContextManager[Place]],
    module: str,
    path: str,
    said: bytes,
    tmp_path: Path,
) -> None:
    with at(tmp_path, hook(Fault(at, module, path, ()))) as place:
        place.forwarder.answer = said
        assert not place.go("tunnel")
        assert not place.bundle.is_gone()
        place.bundle.hear(lambda message: str(message.get("event")).endswith((".refused", ".failed")))
        place.forwarder.answer = b"HTTP/1.1 200 OK\r\n\r\n"
        assert place.go("tunnel")
