"""Requests and responses that two readers could understand differently, inside TLS that was opened, and from upstreams."""

import contextlib
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Server, in_header, read_all, read_head, read_response
from tests.bundle.opened import Opened, opened
from tests.bundle.origins import over_tls, server_context
from tests.bundle.recorder import Recorder
from tests.bundle.test_smuggling import BODIES, HEADS
from tests.fuzz.cases import SMUGGLED
from tests.fuzz.lenient import read, requests, statuses

GET = b"GET %b HTTP/1.1\r\nHost: ok.test\r\n\r\n"
START = b"POST /a HTTP/1.1\r\nHost: ok.test\r\n"
INNER = {
    name: data.replace(b"http://ok.test/", b"/")
    for name, data in HEADS.items()
    if data.count(b"http://ok.test/") == 1 and not re.search("upgrade|WebSocket|CONNECT|userinfo", name)
}
"""Those that say something wrong in their path form, too."""
END = b"the end\r\n\r\n"
"""No request: whoever gets as far as this says so, and closes. TLS that is half closed would be no proper end."""
LIMITS = BundleLimits(keep_alive_seconds=3.0, first_bytes_seconds=3.0, idle_seconds=3.0)


class Place(NamedTuple):
    bottle: Opened
    upstream: Recorder

    def talk(self, data: bytes, *, proxy: bool = False) -> bytes:
        with self.bottle.connect(proxy=proxy) as sock:
            try:
                sock.sendall(data + END)
                return read_all(sock)
            except OSError:  # reset: that is an answer, too
                return b""


@pytest.fixture(scope="module")
def place(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    upstream = Recorder(server_context(certificate.certificate, certificate.key))
    route = Route("ok.test", 443, upstream=upstream.server.upstream(), paths=("/", "/a/**"), credential="key")
    policy = EgressPolicy(routes=(route,))
    credentials = {"key": in_header("X-Key", "s3cret-value")}
    with opened(
        policy, certificate, tmp_path_factory.mktemp("t"), limits=LIMITS, credentials=credentials
    ) as bottle:
        yield Place(bottle, upstream)
    upstream.server.close()


@pytest.mark.parametrize("proxy", [False, True], ids=["transparent", "in CONNECT"])
@pytest.mark.parametrize("name", INNER)
def test_no_byte_of_it_reaches_the_upstream(name: str, proxy: bool, place: Place) -> None:
    place.upstream.forget()
    answer = place.talk(INNER[name] + SMUGGLED, proxy=proxy)
    assert re.match(rb"HTTP/1\.1 (400|403|417|421|431|501) ", answer), answer
    assert b"HTTP/1.1 200" not in answer
    assert place.upstream.everything() == b""


@pytest.mark.parametrize("name", BODIES)
def test_a_broken_body_is_never_whole_upstream(name: str, place: Place) -> None:
    place.upstream.forget()
    place.talk(START + b"Transfer-Encoding: chunked\r\n\r\n" + BODIES[name] + SMUGGLED)
    seen = place.upstream.everything()
    assert not seen.endswith(b"0\r\n\r\n")
    assert b"DELETE" not in seen


def test_a_body_that_looks_like_a_request_is_a_body(place: Place) -> None:
    place.upstream.forget()
    place.talk(START + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED)
    [one] = requests(place.upstream.everything())
    assert (one.method, one.path) == (b"POST", b"/a")


def test_http_2_without_tls_is_not_asked_for_and_not_spoken(place: Place) -> None:
    place.upstream.forget()
    asking = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    answer = place.talk(
        b"GET /a HTTP/1.1\r\nHost: ok.test\r\n" + asking + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    )
    seen = place.upstream.everything().lower()
    assert b"upgrade" not in seen
    assert b"http2-settings" not in seen
    assert b"pri *" not in seen
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert answer.count(b"HTTP/1.1 400 ") == 1


def test_a_refused_request_that_waits_for_the_go_ahead_gets_none_and_its_body_is_no_request(
    place: Place,
) -> None:
    place.upstream.forget()
    body = GET % b"/a/smuggled"
    head = b"POST /b HTTP/1.1\r\nHost: ok.test\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    answer = place.talk(head + body)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"100 Continue" not in answer
    assert place.upstream.everything() == b""


def test_what_stands_behind_a_connect_in_clear_is_no_request(place: Place) -> None:
    place.upstream.forget()
    with place.bottle.holder.connect("127.0.0.1", 3128) as sock:
        sock.sendall(b"CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n\r\n" + GET % b"/a")
        assert b"ok" not in read_all(sock).partition(b"\r\n\r\n")[2]
    assert place.upstream.everything() == b""
    place.bottle.bundle.event("egress.refused", via="connect", reason="not_tls")


def test_a_second_connect_inside_is_no_way_on(place: Place) -> None:
    place.upstream.forget()
    answer = place.talk(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: ok.test\r\n\r\n", proxy=True)
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer)
    assert place.upstream.everything() == b""


def test_http_1_0_that_asks_to_be_kept_alive_gets_one_answer(place: Place) -> None:
    place.upstream.forget()
    old = b"GET /a HTTP/1.0\r\nHost: ok.test\r\nConnection: keep-alive\r\n\r\n"
    assert statuses(place.talk(old + SMUGGLED)) == [200]
    assert len(read(place.upstream.everything(), "chunks first")) == 1


# What upstreams answer


class Scripted(NamedTuple):
    bottle: Opened
    said: list[bytes]
    """What the next connections answer their first request with; after that, and without any, `ok`."""
    early: list[bytes]
    """What is said behind an answer, once another connection of the agent's gives the sign."""


@pytest.fixture
def scripted(certificate: Certificate, tmp_path: Path) -> Iterator[Scripted]:
    said: list[bytes] = []
    early: list[bytes] = []

    def serve(sock: ssl.SSLSocket) -> None:
        while True:
            read_head(sock)
            sock.sendall(said.pop(0) if said else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server = Server(over_tls(server_context(certificate.certificate, certificate.key), serve))
    route = Route("ok.test", 443, upstream=server.upstream(), paths=("/**",))
    with opened(EgressPolicy(routes=(route,)), certificate, tmp_path, limits=LIMITS) as bottle:
        yield Scripted(bottle, said, early)
    server.close()


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
REFUSED = {
    "two framings": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nevil",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nevil",
    "a length with an underscore": b"HTTP/1.1 200 OK\r\nContent_Length: 4\r\n\r\nevil",
    "an obscure coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a split by a bare LF": b"HTTP/1.1 200 OK\r\nX: y\n\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "a split by a bare CR": b"HTTP/1.1 200 OK\r\nX: y\r\rContent-Length: 4\r\n\r\nevil",
    "a NUL": b"HTTP/1.1 200 OK\r\nX: y\0z\r\nContent-Length: 4\r\n\r\nevil",
    "a folded field": b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 4\r\n\r\nevil",
    "a space before a colon": b"HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nevil",
    "HTTP/0.9": b"evil",
    "another protocol that nobody asked for": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nevil",
    "a flood of interim responses": b"HTTP/1.1 100 Continue\r\n\r\n" * 40 + EVIL,
    "a flood of early hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 40 + EVIL,
    "an unknown status": b"HTTP/1.1 999 X\r\nContent-Length: 4\r\n\r\nevil",
    "a status of 0": b"HTTP/1.1 000 X\r\nContent-Length: 4\r\n\r\nevil",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"Content-Length: 4\r\n\r\nevil",
    "a head that is too large": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\nevil",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_response_that_could_be_split_does_not_come_through(name: str, scripted: Scripted) -> None:
    scripted.said.append(REFUSED[name])
    with scripted.bottle.connect() as sock:
        sock.sendall(GET % b"/1")
        answer = b"".join(read_response(sock))
        assert re.match(rb"HTTP/1\.1 50[24] ", answer), answer
        assert b"evil" not in answer
    scripted.bottle.bundle.event("egress.failed", via="tls", host="ok.test")


MORE = {
    "longer than it says": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + EVIL,
    "two at once": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + EVIL + EVIL,
    "something behind the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + EVIL,
    "a body where there is none": b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL,
    "a trailer that frames": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 99\r\n\r\n" + EVIL,
    "one interim response first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + EVIL,
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_what_comes_behind_a_response_answers_nothing(name: str, scripted: Scripted) -> None:
    """The agent's next request gets its own answer, over another connection."""
    scripted.said.append(MORE[name])
    with scripted.bottle.connect() as sock:
        sock.sendall(
            GET % b"/1" + GET % b"/2" + b"GET /3 HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n"
        )
        answer = read_all(sock)
    assert len(statuses(answer)) == 3
    assert b"evil" not in answer


def test_an_answer_to_head_has_no_body_whatever_comes(scripted: Scripted) -> None:
    scripted.said.append(EVIL)
    with scripted.bottle.connect() as sock:
        sock.sendall(b"HEAD /1 HTTP/1.1\r\nHost: ok.test\r\n\r\n")
        head, rest = read_head(sock)
        assert (head[:13], rest) == (b"HTTP/1.1 200 ", b"")
        sock.sendall(GET % b"/2")
        assert read_response(sock)[1] == b"ok"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_answer_before_the_request_is_whole_makes_nothing_of_its_rest_a_request(
    framing: str, certificate: Certificate, tmp_path: Path
) -> None:
    """The upstream answers as soon as it has the head; what the agent says then is still the body."""
    seen: list[bytes] = []

    def serve(sock: ssl.SSLSocket) -> None:
        head, rest = read_head(sock)
        seen.append(head)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        seen.append(rest + read_all(sock))

    server = Server(over_tls(server_context(certificate.certificate, certificate.key), serve))
    route = Route("ok.test", 443, upstream=server.upstream(), paths=("/a/**", "/a"))
    inner = SMUGGLED + GET % b"/b"
    framed: dict[str, Callable[[], tuple[bytes, bytes]]] = {
        "length": lambda: (b"Content-Length: %d\r\n\r\n" % len(inner), inner),
        "chunked": lambda: (
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner),
        ),
    }
    field, body = framed[framing]()
    with opened(EgressPolicy(routes=(route,)), certificate, tmp_path, limits=LIMITS) as bottle:
        with bottle.connect() as sock:
            sock.sendall(START + field)
            assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
            try:
                sock.sendall(body)
                read_all(sock)
            except OSError:
                pass
    server.close()
    for one in requests(b"".join(seen)):
        assert (one.method, one.path) == (b"POST", b"/a"), seen


@pytest.mark.parametrize(
    ("ends", "reason"), [(False, "idle"), (True, "reset")], ids=["says nothing more", "goes away"]
)
def test_an_upstream_that_stops_in_the_middle_is_no_whole_answer_and_is_recorded(
    ends: bool, reason: str, certificate: Certificate, tmp_path: Path
) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
        if not ends:
            read_all(sock)

    server = Server(over_tls(server_context(certificate.certificate, certificate.key), serve))
    route = Route("ok.test", 443, upstream=server.upstream(), paths=("/**",))
    limits = LIMITS._replace(idle_seconds=1.0)
    with opened(EgressPolicy(routes=(route,)), certificate, tmp_path, limits=limits) as bottle:
        with bottle.connect() as sock:
            sock.sendall(GET % b"/1")
            head, body = read_head(sock)
            assert b"content-length: 100\r\n" in head
            with contextlib.suppress(OSError):
                body += read_all(sock)
            assert b"half of it".startswith(body)
        bottle.bundle.event("egress.closed", via="tls", host="ok.test", reason=reason)
    server.close()
