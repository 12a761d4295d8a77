"""TLS that is opened: with a leaf of the bottle's own towards the agent, judged request by request, verified to the upstream."""

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bot_bottle.bundle.egress.hello import ACCESS_DENIED, NO_APPLICATION_PROTOCOL
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.conftest import Certificate
from tests.bundle.harness import (
    Bundle,
    Holder,
    Server,
    in_header,
    read_all,
    read_head,
    read_response,
    served,
    until,
)
from tests.bundle.hellos import client_hello, vector
from tests.bundle.origins import answer, echo_heads, over_tls, server_context

PROXY = ("127.0.0.1", 3128)
ANYWHERE = ("192.0.2.9", 443)
LIMITS = BundleLimits(first_bytes_seconds=3.0, idle_seconds=2.0, dial_seconds=1.5)


class Scripted:
    """An upstream with a good certificate whose next connections are served by `serve`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.serve: Callable[[ssl.SSLSocket], None] = echo_heads
        self.resumed: list[bool] = []
        self.server = Server(over_tls(context, self._serve))

    def _serve(self, sock: ssl.SSLSocket) -> None:
        self.resumed.append(bool(sock.session_reused))
        self.serve(sock)


class Bottle(NamedTuple):
    holder: Holder
    bundle: Bundle
    upstream: Scripted
    trusted: str
    """A file with the bottle's authority."""

    def client(self, **more: object) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.trusted)
        for name, value in more.items():
            setattr(context, name, value)
        return context

    def connect(
        self, name: str = "ok.test", context: ssl.SSLContext | None = None, **more: Any
    ) -> ssl.SSLSocket:
        """TLS as a program opens it that knows no proxy."""
        context = context or self.client()
        return context.wrap_socket(self.holder.connect(*ANYWHERE), server_hostname=name, **more)

    def connect_through(self, name: str = "ok.test", inner: str = "") -> ssl.SSLSocket:
        sock = self.holder.connect(*PROXY)
        sock.sendall(f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode())
        assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
        return self.client().wrap_socket(sock, server_hostname=inner or name)


def routes(upstream: Server) -> tuple[Route, ...]:
    to = upstream.upstream()
    return (
        Route("ok.test", 443, upstream=to, methods=("GET", "POST"), paths=("/a/**",)),
        Route("api.test", 443, upstream=to, credential="key"),
        Route("*.wild.test", 443, upstream=to, credential="key"),
        Route("wrong.test", 443, upstream=to, credential="key"),
        Route("other.test", 443, upstream=to),
    )


@pytest.fixture(scope="module")
def bottle(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottle]:
    upstream = Scripted(server_context(certificate.certificate, certificate.key))
    with served(
        EgressPolicy(routes=routes(upstream.server)),
        limits=LIMITS,
        credentials={"key": in_header("X-Api-Key", "s3cret-value")},
        env={"SSL_CERT_FILE": certificate.certificate},
    ) as (holder, bundle):
        trusted = trust(bundle, tmp_path_factory.mktemp("trusted"))
        yield Bottle(holder, bundle, upstream, trusted)
    upstream.server.close()


@pytest.fixture(autouse=True)
def as_before(bottle: Bottle) -> None:
    bottle.upstream.serve = echo_heads


def trust(bundle: Bundle, folder: Path) -> str:
    told = bundle.hear(lambda message: "authority" in message)["authority"]
    for path in (folder, *folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    (folder / "authority.pem").write_text(told)
    (folder / "authority.pem").chmod(0o644)
    return str(folder / "authority.pem")


def get(path: str = "/a/x", host: str = "ok.test", *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def ask(sock: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    sock.sendall(request)
    return read_response(sock)


# What is inside is judged


def test_the_keeper_is_told_the_authority_first_and_never_its_key(bottle: Bottle) -> None:
    said = [next(iter(message)) for message in bottle.bundle.messages]
    assert said.index("authority") < said.index("ready")
    assert "PRIVATE" not in str(bottle.bundle.messages)


def test_curl_without_proxy_variables_gets_what_the_path_rule_allows(bottle: Bottle) -> None:
    argv = ["curl", "-sS", "--cacert", bottle.trusted, "https://ok.test/a/1?q=2"]
    asked = bottle.holder.run(argv)
    assert asked.stdout.startswith(b"GET /a/1?q=2 HTTP/1.1\r\nhost: ok.test\r\n"), asked
    bottle.bundle.event("egress.allowed", via="tls", host="ok.test", protocol="https", path="/a/1")
    bottle.bundle.event("egress.closed", via="tls", host="ok.test", reason="done")


def test_what_is_refused_inside_says_so_there_and_the_connection_goes_on(bottle: Bottle) -> None:
    before = bottle.upstream.server.accepted
    with bottle.connect() as sock:
        head, body = ask(sock, get("/b"))
        assert head.startswith(b"HTTP/1.1 403 ")
        assert b'"reason": "path_not_allowed"' in body
        assert b'"path": "/b"' in body
        head, body = ask(sock, get("/a/%2e%2e/b"))
        assert head.startswith(b"HTTP/1.1 403 ")
        head, _ = ask(sock, get("/a/x", "ok.test", "Content-Length: 0", method="DELETE"))
        assert head.startswith(b"HTTP/1.1 403 ")
        assert bottle.upstream.server.accepted == before
        assert ask(sock, get())[0].startswith(b"HTTP/1.1 200 ")
    bottle.bundle.event("egress.refused", via="tls", host="ok.test", reason="path_not_allowed", path="/b")


def test_inside_connect_the_same_is_judged(bottle: Bottle) -> None:
    with bottle.connect_through() as sock:
        assert b"method_not_allowed" in ask(sock, get(method="PUT"))[1]
        assert ask(sock, get())[1].startswith(b"GET /a/x ")
    bottle.bundle.event("egress.refused", via="connect", host="ok.test", reason="method_not_allowed")


@pytest.mark.parametrize("named", ["other.test", "api.test", "evil.test", "ok.test:8443", "ok.test.", "x"])
def test_the_host_field_names_what_the_server_name_named(bottle: Bottle, named: str) -> None:
    with bottle.connect() as sock:
        head, body = ask(sock, get(host=named))
        same = named == "ok.test."
        assert head.startswith(b"HTTP/1.1 200 " if same else b"HTTP/1.1 421 "), body
    if not same:
        bottle.bundle.event("egress.refused", via="tls", reason="name_mismatch")


def test_a_whole_url_or_a_second_host_field_has_no_place_inside(bottle: Bottle) -> None:
    for request in (get("https://other.test/a/x"), get("/a/x", "ok.test", "Host: other.test")):
        with bottle.connect() as sock:
            assert ask(sock, request)[0].startswith(b"HTTP/1.1 400 ")


ENCRYPTED = client_hello("ok.test", encrypted=True)
ONLY_H3 = client_hello(
    None, extensions=[(0, vector(2, b"\0" + vector(2, b"ok.test"))), (16, vector(2, b"\2h3"))]
)


@pytest.mark.parametrize(
    ("via", "hello", "answered", "reason"),
    [
        ("tls", ENCRYPTED, ACCESS_DENIED, "encrypted_hello"),
        ("tls", ONLY_H3, NO_APPLICATION_PROTOCOL, "application_protocol"),
        ("connect", ENCRYPTED, ACCESS_DENIED, "encrypted_hello"),
        ("connect", client_hello("other.test"), ACCESS_DENIED, "name_mismatch"),
        ("connect", client_hello(None), ACCESS_DENIED, "no_server_name"),
        ("connect", ONLY_H3, NO_APPLICATION_PROTOCOL, "application_protocol"),
    ],
)
def test_a_hello_that_can_not_be_served_is_refused_before_any_handshake(
    bottle: Bottle, via: str, hello: bytes, answered: bytes, reason: str
) -> None:
    with bottle.holder.connect(*(PROXY if via == "connect" else ANYWHERE)) as sock:
        if via == "connect":
            sock.sendall(b"CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n\r\n")
            assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
        sock.sendall(hello)
        assert read_all(sock) == answered
    bottle.bundle.event("egress.refused", via=via, host="ok.test", reason=reason)


def test_a_route_without_a_reason_to_be_opened_passes_through(
    bottle: Bottle, certificate: Certificate
) -> None:
    context = ssl.create_default_context(cafile=certificate.certificate)
    with bottle.connect("other.test", context) as sock:
        assert ask(sock, get("/whatever", "other.test"))[0].startswith(b"HTTP/1.1 200 ")
    with pytest.raises(ssl.SSLCertVerificationError):
        bottle.connect("other.test")


# Credentials


def noting(seen: list[bytes]) -> Callable[[ssl.SSLSocket], None]:
    def serve(sock: ssl.SSLSocket) -> None:
        seen.append(read_head(sock)[0])
        answer(sock, b"fine")

    return serve


@pytest.mark.parametrize("host", ["api.test", "x.wild.test"])
def test_the_credential_goes_in_behind_the_agents_back(bottle: Bottle, host: str) -> None:
    seen: list[bytes] = []
    bottle.upstream.serve = noting(seen)
    with bottle.connect(host) as sock:
        assert ask(sock, get("/v1", host, "X-API-KEY: mine"))[1] == b"fine"
    assert b"X-Api-Key: s3cret-value\r\n" in seen[0]
    assert b"mine" not in seen[0]
    assert "s3cret" not in str(bottle.bundle.messages)


def test_another_host_gets_no_credential(bottle: Bottle) -> None:
    seen: list[bytes] = []
    bottle.upstream.serve = noting(seen)
    with bottle.connect() as sock:
        ask(sock, get())
    assert b"s3cret" not in seen[0]


# The agent's side of TLS


def test_a_program_that_does_not_know_the_authority_is_reported_and_reaches_nobody(
    bottle: Bottle, certificate: Certificate
) -> None:
    before = bottle.upstream.server.accepted
    stranger = ssl.create_default_context(cafile=certificate.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        bottle.connect("api.test", stranger)
    failed = bottle.bundle.event("egress.failed", via="tls", host="api.test", reason="agent_tls_failed")
    assert "UNKNOWN_CA" in failed["detail"]
    assert bottle.upstream.server.accepted == before


def test_tls_1_2_is_taken_and_1_1_is_not(bottle: Bottle) -> None:
    old = bottle.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    with bottle.connect(context=old) as sock:
        assert sock.version() == "TLSv1.2"
        assert ask(sock, get())[0].startswith(b"HTTP/1.1 200 ")
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    older.load_verify_locations(bottle.trusted)
    older.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        bottle.connect(context=older)


def test_http_1_is_chosen_of_what_a_client_offers(bottle: Bottle) -> None:
    context = bottle.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with bottle.connect(context=context) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"


def test_a_hello_in_pieces_is_read_once_for_judging_and_once_for_tls(bottle: Bottle) -> None:
    inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = bottle.client().wrap_bio(inside, outside, server_hostname="ok.test")
    with bottle.holder.connect(*ANYWHERE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outside.read()
        for at in range(0, len(hello), 100):
            sock.sendall(hello[at : at + 100])
        done = False
        while not done:
            inside.write(sock.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                done = True
        tls.write(get())
        # the end of the handshake and the first request in one piece
        sock.sendall(outside.read())
        text = b""
        while b"\r\n\r\nGET /a/x" not in text:
            inside.write(sock.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                text += tls.read()


def test_a_client_that_says_nothing_after_its_hello_is_ended(bottle: Bottle) -> None:
    with bottle.holder.connect(*ANYWHERE) as sock:
        sock.sendall(client_hello("ok.test", extensions=None))
        read_all(sock)
    with bottle.holder.connect(*ANYWHERE) as sock:
        inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = bottle.client().wrap_bio(inside, outside, server_hostname="ok.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(outside.read())
        read_all(sock)
    bottle.bundle.event("egress.failed", via="tls", reason="agent_tls_timeout")


def test_garbage_in_the_place_of_a_record_ends_that_connection_only(bottle: Bottle) -> None:
    with bottle.connect() as good:
        bad = bottle.connect()
        raw = socket.socket(fileno=bad.detach())
        raw.settimeout(10)
        with raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32) + b"GET /a/x HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                read_all(raw)
        assert ask(good, get())[0].startswith(b"HTTP/1.1 200 ")


def test_a_client_may_end_its_direction_and_still_hear_the_answer(bottle: Bottle) -> None:
    inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = bottle.client(minimum_version=ssl.TLSVersion.TLSv1_3)
    tls = context.wrap_bio(inside, outside, server_hostname="ok.test")
    with bottle.holder.connect(*ANYWHERE) as sock:
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                sock.sendall(outside.read())
                inside.write(sock.recv(65536))
        tls.write(get())
        with contextlib.suppress(ssl.SSLError):
            tls.unwrap()
        sock.sendall(outside.read())
        sock.shutdown(socket.SHUT_WR)
        assert len(read_all(sock)) > 100


def test_sessions_are_taken_up_again_on_both_sides(bottle: Bottle) -> None:
    context = bottle.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    with bottle.connect(context=context) as sock:
        ask(sock, get())
        session = sock.session
    until(lambda: len(bottle.bundle.events("egress.closed")) or heard(bottle.bundle))
    with bottle.connect(context=context, session=session) as sock:
        assert sock.session_reused
        ask(sock, get())
    assert bottle.upstream.resumed[-1]


def heard(bundle: Bundle) -> None:
    with contextlib.suppress(AssertionError):
        bundle.hear(lambda _: False, 0.01)


def test_a_session_of_one_name_opens_no_other(bottle: Bottle) -> None:
    context = bottle.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    with bottle.connect("api.test", context) as sock:
        ask(sock, get("/", "api.test"))
        session = sock.session
    with bottle.connect("ok.test", context, session=session) as sock:
        assert not sock.session_reused


# The upstream's side


def test_a_redirect_off_the_list_is_passed_on_and_leads_nowhere(bottle: Bottle) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        read_head(sock)
        sock.sendall(
            b"HTTP/1.1 302 Found\r\nLocation: https://evil.test/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )

    bottle.upstream.serve = serve
    asked = bottle.holder.run(["curl", "-sSL", "--cacert", bottle.trusted, "https://ok.test/a/x"])
    assert asked.returncode == 6, asked  # the name does not resolve
    with bottle.holder.connect(*ANYWHERE) as sock:
        sock.sendall(client_hello("evil.test"))
        assert read_all(sock) == ACCESS_DENIED


def test_an_upstream_with_another_names_certificate_gets_nothing(bottle: Bottle) -> None:
    seen: list[bytes] = []
    bottle.upstream.serve = lambda sock: seen.append(read_head(sock)[0])
    with bottle.connect("wrong.test") as sock:
        head, body = ask(sock, get("/", "wrong.test"))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"certificate_not_valid" in body
    assert b"Hostname mismatch" in body
    bottle.bundle.event("egress.failed", via="tls", host="wrong.test", reason="certificate_not_valid")
    assert not seen


def ends(sock: ssl.SSLSocket) -> None:
    read_head(sock)


def ends_in_head(sock: ssl.SSLSocket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")


def speaks_nonsense(sock: ssl.SSLSocket) -> None:
    read_head(sock)
    sock.sendall(b"SSH-2.0-x\r\n\r\n")


def says_nothing(sock: ssl.SSLSocket) -> None:
    read_all(sock)


@pytest.mark.parametrize(
    ("serve", "status", "reason"),
    [
        (ends, b"502", "upstream_failed"),
        (ends_in_head, b"502", "upstream_failed"),
        (speaks_nonsense, b"502", "upstream_malformed"),
        (says_nothing, b"504", "upstream_timeout"),
    ],
)
def test_an_upstream_that_gives_no_response_is_answered_for(
    bottle: Bottle, serve: Callable[[ssl.SSLSocket], None], status: bytes, reason: str
) -> None:
    bottle.upstream.serve = serve
    with bottle.connect() as sock:
        head, body = ask(sock, get())
        assert head.startswith(b"HTTP/1.1 " + status)
        assert reason.encode() in body
        bottle.upstream.serve = echo_heads
        assert ask(sock, get())[0].startswith(b"HTTP/1.1 200 ")
    bottle.bundle.event("egress.failed", via="tls", host="ok.test", reason=reason)


def breaks_off(sock: ssl.SSLSocket) -> None:
    """In the middle of a body, without the end of TLS."""
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
    raw = socket.socket(fileno=sock.detach())
    raw.close()


def is_short(sock: ssl.SSLSocket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
    sock.unwrap()


@pytest.mark.parametrize("serve", [breaks_off, is_short])
def test_a_response_that_breaks_off_does_not_look_whole(
    bottle: Bottle, serve: Callable[[ssl.SSLSocket], None]
) -> None:
    bottle.upstream.serve = serve
    with bottle.connect(suppress_ragged_eofs=False) as sock:
        sock.sendall(get())
        with pytest.raises((ConnectionError, ssl.SSLError)):
            read_all(sock)


def test_a_record_that_was_tampered_with_is_no_proper_end(bottle: Bottle) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        read_head(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # so that all of it comes at once
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
        with socket.socket(fileno=sock.detach()) as raw:
            raw.settimeout(10)
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            read_all(raw)

    bottle.upstream.serve = serve
    with bottle.connect(suppress_ragged_eofs=False) as sock:
        sock.sendall(get())
        with pytest.raises((ConnectionError, ssl.SSLError)):
            read_all(sock)


def test_a_response_until_the_end_of_tls_is_whole(bottle: Bottle) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")
        sock.unwrap()

    bottle.upstream.serve = serve
    with bottle.connect() as sock:
        sock.sendall(get("/a/x", "ok.test", "Connection: close"))
        assert read_all(sock).endswith(b"all of it\r\n0\r\n\r\n")


# Streams


def test_events_pass_as_they_come(bottle: Bottle) -> None:
    go_on = threading.Semaphore(0)

    def serve(sock: ssl.SSLSocket) -> None:
        read_head(sock)
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            sock.sendall(b"9\r\ndata: %d\n\n\r\n" % number)
            go_on.acquire(timeout=10)
        sock.sendall(b"0\r\n\r\n")

    bottle.upstream.serve = serve
    with bottle.connect() as sock:
        sock.sendall(get())
        text = read_head(sock)[1]
        for number in range(3):
            while b"data: %d\n\n" % number not in text:
                text += sock.recv(65536)
            go_on.release()
        while not text.endswith(b"0\r\n\r\n"):
            text += sock.recv(65536)


def memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


SIZE = 96 << 20


def test_a_large_download_is_carried_in_constant_memory(bottle: Bottle) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        piece = bytes(1 << 18)
        for _ in range(SIZE // len(piece)):
            sock.sendall(piece)

    with bottle.connect() as sock:
        ask(sock, get())
        bottle.upstream.serve = serve
        before = memory(bottle.bundle.pid, "VmRSS")
        with bottle.connect() as other:
            other.sendall(get())
            left = SIZE - len(read_head(other)[1])
            while left:
                left -= len(other.recv(1 << 18))
    assert memory(bottle.bundle.pid, "VmHWM") - before < 10 * 1024


def test_a_large_upload_is_carried_in_constant_memory_even_to_somebody_who_is_slow(bottle: Bottle) -> None:
    go_on = threading.Event()
    took: list[int] = []

    def serve(sock: ssl.SSLSocket) -> None:
        count = len(read_head(sock)[1])
        go_on.wait(10)
        while count < SIZE:
            count += len(sock.recv(1 << 18))
        took.append(count)
        answer(sock, b"took it")

    bottle.upstream.serve = serve
    with bottle.connect() as sock:
        before = memory(bottle.bundle.pid, "VmRSS")
        sock.sendall(get("/a/x", "ok.test", f"Content-Length: {SIZE}", method="POST"))
        sender = threading.Thread(target=lambda: sock.sendall(bytes(SIZE)))
        sender.start()
        until(lambda: memory(bottle.bundle.pid, "VmHWM") > 0)
        go_on.set()
        sender.join()
        assert read_response(sock)[1] == b"took it"
    assert took == [SIZE]
    assert memory(bottle.bundle.pid, "VmHWM") - before < 10 * 1024


def test_whoever_sends_slowly_keeps_the_whole_exchange_from_being_idle(bottle: Bottle) -> None:
    pieces = 8

    def serve(sock: ssl.SSLSocket) -> None:
        text = read_head(sock)[1]
        while len(text) < pieces:
            text += sock.recv(100)
        answer(sock, text)

    bottle.upstream.serve = serve
    tick = threading.Event()
    with bottle.connect() as sock:
        sock.sendall(get("/a/x", "ok.test", f"Content-Length: {pieces}", method="POST"))
        for _ in range(
            pieces
        ):  # together twice as long as anybody may be idle, and the upstream says nothing
            tick.wait(LIMITS.idle_seconds / 4)
            sock.sendall(b"x")
        assert read_response(sock)[1] == b"x" * pieces


def test_a_large_answer_to_a_large_body_blocks_nobody(bottle: Bottle) -> None:
    size = 4 << 20

    def serve(sock: ssl.SSLSocket) -> None:
        _, rest = read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sock.sendall(rest)
        left = size - len(rest)
        while left:  # an echo: what it is sent waits until what it says is taken
            data = sock.recv(65536)
            sock.sendall(data)
            left -= len(data)

    bottle.upstream.serve = serve
    with bottle.connect() as sock:
        sock.sendall(get("/a/x", "ok.test", f"Content-Length: {size}", method="POST"))
        sock.setblocking(False)
        sent = got = 0
        while got < size:
            readable, writable, _ = select.select([sock], [sock] if sent < size else [], [], 10)
            assert readable or writable
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if writable:
                    sent += sock.send(bytes(min(65536, size - sent)))
            with contextlib.suppress(ssl.SSLWantReadError):
                got += len(sock.recv(65536))


def test_pipelined_requests_are_judged_one_by_one(bottle: Bottle) -> None:
    with bottle.connect() as sock:
        sock.sendall(get("/a/1") + get("/b") + get("/a/2"))
        text = b""
        while text.count(b"HTTP/1.1 200 OK") < 2 or b"path_not_allowed" not in text:
            data = sock.recv(65536)
            assert data
            text += data
    assert text.index(b"/a/1") < text.index(b"path_not_allowed") < text.index(b"/a/2")
