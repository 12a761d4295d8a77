"""What the bundle does with upstreams whose TLS is not as it should be: it gives them nothing, says why, and never hangs."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.testing.certificates import make_certificate
from tests.bundle.harness import Bundle, Holder, Server, in_header, read_all, read_head, read_response, served
from tests.bundle.origins import answer, over_tls, server_context

LIMITS = BundleLimits(idle_seconds=5.0, dial_seconds=1.0)
SECRET = "s3cret-value"


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    seen: list[bytes]
    """What any of those was sent inside TLS that should be sent nothing."""
    heads: list[bytes]
    """What the good one was sent."""

    def ask(self, host: str) -> tuple[bytes, bytes]:
        context = ssl.create_default_context(cadata=self.bundle.hear(lambda m: "authority" in m)["authority"])
        sock = context.wrap_socket(self.holder.connect("192.0.2.9", 443), server_hostname=host)
        with sock:
            sock.sendall(b"POST /v1 HTTP/1.1\r\nHost: %b\r\nContent-Length: 4\r\n\r\nbody" % host.encode())
            return read_response(sock)


def says_nothing(sock: socket.socket) -> None:
    read_all(sock)


def ends_at_once(sock: socket.socket) -> None:
    sock.recv(10)


def speaks_no_tls(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folders = {
        name: tmp_path_factory.mktemp(name) for name in ("good", "expired", "unknown", "old", "trusted")
    }
    good = make_certificate(folders["good"], "good.test", "other.test", "plain.test", "old.test")
    expired = make_certificate(folders["expired"], "expired.test", ends=-1.0)
    unknown = make_certificate(folders["unknown"], "unknown.test")
    old = server_context(*good)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    trusted = folders["trusted"] / "trusted.pem"
    trusted.write_text(Path(good[0]).read_text() + Path(expired[0]).read_text())
    for folder in (folders["trusted"], *folders["trusted"].parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    seen: list[bytes] = []

    heads: list[bytes] = []

    def note(sock: ssl.SSLSocket) -> None:
        seen.append(read_head(sock)[0])

    def be_good(sock: ssl.SSLSocket) -> None:
        heads.append(read_head(sock)[0])
        answer(sock, b"fine")

    handlers: dict[str, Callable[[socket.socket], None]] = {
        "good.test": over_tls(server_context(*good), be_good),
        "expired.test": over_tls(server_context(*expired), note),
        "unknown.test": over_tls(server_context(*unknown), note),
        "wrong.test": over_tls(server_context(*good), note),
        "old.test": over_tls(old, note),
        "silent.test": says_nothing,
        "short.test": ends_at_once,
        "plain.test": speaks_no_tls,
    }
    with contextlib.ExitStack() as stack:
        routes = []
        for host, handle in handlers.items():
            server = Server(handle)
            stack.callback(server.close)
            routes.append(Route(host, 443, upstream=server.upstream(), credential="key"))
        holder, bundle = stack.enter_context(
            served(
                EgressPolicy(routes=tuple(routes)),
                limits=LIMITS,
                credentials={"key": in_header("Authorization", f"Bearer {SECRET}")},
                env={"SSL_CERT_FILE": str(trusted)},
            )
        )
        yield Place(holder, bundle, seen, heads)


def test_a_good_one_is_verified_and_served(place: Place) -> None:
    assert place.ask("good.test")[0].startswith(b"HTTP/1.1 200 ")
    assert SECRET.encode() in place.heads[0]


@pytest.mark.parametrize(
    ("host", "status", "reason", "said"),
    [
        ("expired.test", b"502", "certificate_not_valid", b"certificate has expired"),
        ("unknown.test", b"502", "certificate_not_valid", b"self-signed certificate"),
        ("wrong.test", b"502", "certificate_not_valid", b"Hostname mismatch"),
        ("old.test", b"502", "tls_failed", b"protocol"),
        ("silent.test", b"504", "tls_timeout", b"took too long"),
        ("short.test", b"502", "tls_failed", b"ended during"),
        ("plain.test", b"502", "tls_failed", b"wrong version number"),
    ],
)
def test_this_one_gets_nothing_and_the_agent_reads_why(
    place: Place, host: str, status: bytes, reason: str, said: bytes
) -> None:
    head, body = place.ask(host)
    assert head.startswith(b"HTTP/1.1 " + status), body
    assert reason.encode() in body
    assert said in body
    assert b'"error": "failed"' in body
    place.bundle.event("egress.failed", via="tls", host=host, reason=reason)
    assert not place.seen
    assert SECRET not in str(place.bundle.messages)
