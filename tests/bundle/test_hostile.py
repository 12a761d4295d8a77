"""Hostile messages against a real bundle, over real connections, with upstreams that remember every byte."""

import contextlib
import random
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Holder, in_header, read_all, served, until
from tests.bundle.origins import server_context
from tests.bundle.recorder import Recorder
from tests.fuzz import cases, targets
from tests.fuzz.targets import METHODS, check_upstream

PROXY = ("127.0.0.1", 3128)
HTTP, HTTPS, DNS = ("192.0.2.9", 80), ("192.0.2.9", 443), ("127.0.0.1", 53)


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    plain: Recorder
    secret: Recorder
    trust: ssl.SSLContext

    def allowed(self) -> int:
        """How many times the bundle has let something through."""
        self.bundle.messages.clear()
        self.bundle.tell({"stats": True})
        counted = self.bundle.hear(lambda message: "stats" in message)["stats"]["decisions"]
        return sum(number for kind, _, number in counted if kind == "egress.allowed")

    def is_well(self) -> None:
        """Nothing went wrong inside, and an ordinary request is served."""
        assert not self.bundle.is_gone()
        assert not [data for data in self.bundle.events("egress.failed") if data["reason"] == "internal"]
        with self.holder.connect(*PROXY) as sock:
            sock.sendall(b"GET http://ok.test/a/x HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n")
            assert read_all(sock).endswith(b"\r\n\r\nok")


@pytest.fixture(scope="module")
def place(certificate: Certificate) -> Iterator[Place]:
    plain, secret = Recorder(), Recorder(server_context(certificate.certificate, certificate.key))
    rules = {"methods": METHODS, "paths": ("/a/**",)}
    routes = (
        Route("ok.test", 80, "http", upstream=plain.server.upstream(), **rules),
        Route("ok.test", 443, "https", upstream=secret.server.upstream(), credential="key", **rules),
        Route("*.wild.test", 443, "https"),
    )
    with served(
        EgressPolicy(routes=routes),
        limits=BundleLimits(first_bytes_seconds=2.0, keep_alive_seconds=2.0, idle_seconds=5.0),
        credentials={"key": in_header("X-Key", targets.SECRET.decode())},
        env={"SSL_CERT_FILE": certificate.certificate},
    ) as (holder, bundle):
        told = bundle.hear(lambda message: "authority" in message)["authority"]
        yield Place(holder, bundle, plain, secret, ssl.create_default_context(cadata=told))
    plain.server.close()
    secret.server.close()


def say(sock: socket.socket, data: bytes) -> bytes:
    """What comes back, up to the end; a reset is an end, too."""
    got = b""
    with contextlib.suppress(OSError), sock:
        sock.sendall(data)
        if isinstance(
            sock, ssl.SSLSocket
        ):  # half closed would be no proper end: this is no request, and closes
            sock.sendall(b"the end\r\n\r\n")
        else:
            sock.shutdown(socket.SHUT_WR)
        while part := sock.recv(65536):
            got += part
    return got


def check(place: Place, recorder: Recorder, before: int) -> int:
    """How many requests arrived; each was judged and may go there."""
    recorder.everything()
    streams = [bytes(seen) for seen in recorder.seen if seen and not seen.startswith(b"mark ")]
    recorder.seen.clear()
    arrived = sum(check_upstream(stream) for stream in streams)
    assert arrived <= place.allowed() - before
    return arrived


@pytest.mark.parametrize("batch", range(4))
def test_requests_to_the_proxy(place: Place, batch: int) -> None:
    before = place.allowed()
    for seed in range(batch * 750, batch * 750 + 750):
        say(place.holder.connect(*PROXY), cases.proxy_requests(random.Random(seed)))
    assert check(place, place.plain, before) > 30, "too few got through to show anything"
    place.is_well()
    place.plain.forget()


def test_requests_to_the_transparent_port(place: Place) -> None:
    before = place.allowed()
    for seed in range(500):
        say(place.holder.connect(*HTTP), cases.inner_requests(random.Random(10_000 + seed)))
    assert check(place, place.plain, before) > 20
    place.is_well()
    place.plain.forget()


def test_requests_inside_tls(place: Place) -> None:
    before = place.allowed()
    for seed in range(500):
        sock = place.trust.wrap_socket(place.holder.connect(*HTTPS), server_hostname="ok.test")
        got = say(sock, cases.inner_requests(random.Random(20_000 + seed)))
        assert targets.SECRET not in got
    assert check(place, place.secret, before) > 20
    place.is_well()


def test_hellos(place: Place) -> None:
    """No hello reaches an upstream but by way of a handshake that these do not finish."""
    for seed in range(500):
        got = say(place.holder.connect(*HTTPS), cases.hellos(random.Random(seed)))
        assert not got or got[0] in (21, 22), got
    assert place.secret.everything() == b""
    place.is_well()


def test_dns_messages(place: Place) -> None:
    """Over UDP, each answered or not; every so often an ordinary one is, so that none waits longer than the kernel keeps them."""
    ordinary = b"\xab\xcd\1\0\0\1\0\0\0\0\0\0\2ok\4test\0\0\1\0\1"
    with place.holder.new_socket(socket.SOCK_DGRAM) as asked:
        asked.connect(DNS)
        for seed in range(1000):
            asked.send(cases.queries(random.Random(seed)))
            if seed % 20 == 19:
                asked.send(ordinary)
                while not (said := asked.recv(65536)).startswith(ordinary[:2]):
                    pass
                assert said[3] & 15 == 0
    place.is_well()


def test_dns_messages_over_tcp(place: Place) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        messages = [cases.queries(rng) for _ in range(3)]
        lied = rng.choice((0, 0, 0, 1, 400, 65535))
        data = b"".join((lied or len(message)).to_bytes(2, "big") + message for message in messages)
        say(place.holder.connect(*DNS), data)
    place.is_well()


def test_what_the_bundle_said_of_all_that_is_printable(place: Place) -> None:
    place.bundle.tell({"stats": True})
    place.bundle.hear(lambda message: "stats" in message)
    until(lambda: place.bundle.messages)
    text = "".join(str(message) for message in place.bundle.messages)
    assert text.isprintable()
    assert targets.SECRET.decode() not in text
