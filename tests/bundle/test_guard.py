"""Secrets and placeholders through a real bundle: in every place and form of a request, and in what comes back."""

import base64
import contextlib
import gzip
import json
import os
import random
import signal
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import brotli
import pytest

from bot_bottle.bundle.egress.dns import NAME_ERROR, NO_ERROR
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Holder, Server, in_header, read_head, read_response, served, until
from tests.bundle.hellos import client_hello
from tests.bundle.test_dns import ask as ask_name
from tests.bundle.test_dns import code, query
from tests.bundle.test_intercept import memory
from tests.bundle.test_tls import over_tls
from tests.support.tokens import crc_token

PROXY = ("127.0.0.1", 3128)
TOKEN = crc_token("ghp", random.Random(1))
SENSITIVE = "correct-horse-battery-9"
KEY = "s3cret-Key/4711-of-mine"
PLACEHOLDER = "sk-ant-api03-placeholder-key-5d2c9a"
LIMIT = 64 * 1024


class Seen(NamedTuple):
    head: bytes
    body: bytes


class Api:
    """Keeps what reached it. It answers with `answer`, as it is, or with what it was sent."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answer = b""
        self.fields = b""

    def serve(self, sock: Any) -> None:
        while True:
            head, body = read_head(sock)
            body = self._body(sock, head, body)
            self.seen.append(Seen(head, body))
            answer = self.answer or head + body
            sock.sendall(
                b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (self.fields, len(answer), answer)
            )

    def _body(self, sock: Any, head: bytes, body: bytes) -> bytes:
        lower = head.lower()
        if b"\r\ncontent-length: " in lower:
            length = int(lower.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += sock.recv(65536)
        elif b"\r\ntransfer-encoding: chunked" in lower:
            while not body.endswith(b"0\r\n\r\n"):
                body += sock.recv(65536)
        return body


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    api: Api

    def send(self, data: bytes) -> tuple[bytes, bytes]:
        with self.holder.connect(*PROXY) as sock:
            sock.sendall(data)
            return read_response(sock)

    def refusal(self, data: bytes, reason: str) -> dict[str, Any]:
        """Sends it and gives what the refusal says; nothing reached the upstream."""
        head, body = self.send(data)
        assert head.startswith(b"HTTP/1.1 403 "), (head, body)
        said = json.loads(body)
        assert said["reason"] == reason
        assert not self.api.seen
        return said["what"]


def post(body: bytes, *fields: str, host: str = "plain.test", target: str = "/x") -> bytes:
    lines = [
        f"POST http://{host}{target} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(body)}",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def get(target: str, *fields: str, host: str = "plain.test") -> bytes:
    return "\r\n".join([f"GET http://{host}{target} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def chunked(*pieces: bytes) -> bytes:
    head = b"POST http://plain.test/x HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def bottle(certificate: Certificate, secrets: SecretsPolicy | None) -> Iterator[Place]:
    api = Api()
    plain, tls = Server(api.serve), Server(over_tls(certificate, api.serve))
    behind = tls.upstream(tls=True, server_name="api.test")
    policy = EgressPolicy(
        routes=(
            plain.http("plain.test"),
            plain.http("*.wild.test"),
            plain.http("free.test")._replace(scan=False),
            plain.http("stars.test")._replace(on_match="redact"),
            Route(host="own.test", port=80, protocol="http", upstream=behind, credential="key"),
            Route(host="*.tunnel.test", port=443, upstream=plain.upstream(), scan=False),
        ),
        secrets=secrets,
    )
    options: dict[str, Any] = {
        "credentials": {"key": in_header("x-api-key", KEY, placeholder=PLACEHOLDER)},
        "env": {"SSL_CERT_FILE": certificate.certificate},
        "sensitive": (SENSITIVE,),
    }
    with served(policy, **options) as (holder, bundle):
        yield Place(holder, bundle, api)
    plain.close()
    tls.close()


@pytest.fixture(scope="module")
def blocking_bottle(certificate: Certificate) -> Iterator[Place]:
    yield from bottle(certificate, SecretsPolicy(on_match="block", limit=LIMIT))


@pytest.fixture(scope="module")
def redacting_bottle(certificate: Certificate) -> Iterator[Place]:
    yield from bottle(certificate, SecretsPolicy(on_match="redact", oversize="pass", limit=LIMIT))


@pytest.fixture(scope="module")
def unsearched_bottle(certificate: Certificate) -> Iterator[Place]:
    yield from bottle(certificate, None)


def fresh(place: Place) -> Place:
    place.api.seen.clear()
    place.api.answer = place.api.fields = b""
    return place


@pytest.fixture
def blocking(blocking_bottle: Place) -> Place:
    return fresh(blocking_bottle)


@pytest.fixture
def redacting(redacting_bottle: Place) -> Place:
    return fresh(redacting_bottle)


@pytest.fixture
def unsearched(unsearched_bottle: Place) -> Place:
    return fresh(unsearched_bottle)


IN_BASE64 = base64.b64encode(f"me:{TOKEN}".encode()).decode()


@pytest.mark.parametrize(
    ("request_bytes", "place", "detector"),
    [
        (get(f"/{TOKEN}"), "url", "github"),
        (get(f"/x?q={TOKEN[:20]}&r={TOKEN[20:]}"), "head", "github"),
        (get("/x?q=%25" + "%25".join(f"{byte:02x}" for byte in TOKEN.encode())), "url", "github"),
        (get("/x", f"Authorization: Basic {IN_BASE64}"), "header authorization", "github"),
        (get("/x", f"{SENSITIVE}: 1"), "header name", "sensitive value 1"),
        (get("/x", f"X-A: {TOKEN[:20]}", f"X-B: {TOKEN[20:]}"), "head", "github"),
        (get("/x", f"X-A: a{SENSITIVE[:9]}", f"X-B: {SENSITIVE[9:]}"), "head", "sensitive value 1"),
        (get("/x", f"X-Note: {SENSITIVE[::-1]}"), "header x-note", "sensitive value 1"),
        (get(f"/{KEY.encode().hex()}"), "url", "credential key"),
        (post(b"x" * 1000 + TOKEN.encode()), "body", "github"),
        (post(b'{"a": "' + "\\u200b".join(SENSITIVE).encode() + b'"}'), "body", "sensitive value 1"),
        (post(gzip.compress(TOKEN.encode()), "Content-Encoding: gzip"), "body", "github"),
        (post(zlib.compress(TOKEN.encode()), "Content-Encoding: deflate"), "body", "github"),
        (post(brotli.compress(gzip.compress(TOKEN.encode())), "Content-Encoding: gzip, br"), "body", "github"),
        (post(gzip.compress(TOKEN.encode())), "body", "github"),
        (chunked(TOKEN[:11].encode(), TOKEN[11:30].encode(), TOKEN[30:].encode()), "body", "github"),
        (get("/", host=f"{SENSITIVE.encode().hex()}.wild.test"), "", ""),
    ],
)  # fmt: skip
def test_a_secret_does_not_leave(blocking: Place, request_bytes: bytes, place: str, detector: str) -> None:
    what = blocking.refusal(request_bytes, "secret_found")
    assert (what.get("place", ""), what.get("detector", "")) == (place, detector)
    if place:
        event = blocking.bundle.event("egress.refused", place=place, detector=detector)
        assert event["fingerprint"] == what["fingerprint"]
    said = json.dumps(blocking.bundle.messages)
    assert not [secret for secret in (TOKEN, SENSITIVE, KEY) if secret in said]


def test_what_has_no_secret_goes_on_as_it_is(blocking: Place) -> None:
    body = json.dumps(
        {"text": "risk-averse words, \u2019 %20 and a hash: " + "0123456789abcdef" * 4}
    ).encode()
    blocking.send(post(body, "X-Note: 1", target="/a?b=c%2Fd&e=f"))
    packed = gzip.compress(body)
    blocking.send(post(packed, "Content-Encoding: gzip"))
    blocking.send(chunked(b"abc", b"def"))
    assert [seen.body for seen in blocking.api.seen] == [body, packed, b"abcdef"]
    assert blocking.api.seen[0].head.startswith(b"POST /a?b=c%2Fd&e=f HTTP/1.1\r\n")


def test_the_same_secret_has_the_same_fingerprint_within_a_run_and_no_other(blocking: Place) -> None:
    prints = [
        blocking.refusal(data, "secret_found")["fingerprint"]
        for data in (get(f"/{TOKEN}"), post(TOKEN.encode()), post(SENSITIVE.encode()))
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("coding", ["zstd", "compress", "gzip, zstd", "x"])
def test_a_body_that_can_not_be_read_stays(blocking: Place, coding: str) -> None:
    blocking.refusal(post(b"abc", f"Content-Encoding: {coding}"), "secret_unreadable")


def test_broken_and_swelling_compression_stays(blocking: Place) -> None:
    for body in (b"abc", gzip.compress(b"abc")[:-1], gzip.compress(bytes(LIMIT * 9))):
        blocking.refusal(post(body, "Content-Encoding: gzip"), "secret_unreadable")


def test_a_large_body_stays_and_is_not_even_asked_for(blocking: Place) -> None:
    with blocking.holder.connect(*PROXY) as sock:
        head = b"POST http://plain.test/x HTTP/1.1\r\nHost: plain.test\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head % (LIMIT + 1))
        said, body = read_response(sock)
        assert said.startswith(b"HTTP/1.1 403 ")
        assert json.loads(body)["reason"] == "body_too_large"
    blocking.refusal(chunked(*[b"x" * 4096] * 17), "body_too_large")


def test_a_body_that_is_expected_to_be_asked_for_is_asked_for(blocking: Place) -> None:
    with blocking.holder.connect(*PROXY) as sock:
        sock.sendall(
            b"POST http://plain.test/x HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert read_head(sock)[0].startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        assert read_response(sock)[0].startswith(b"HTTP/1.1 200 ")
    assert blocking.api.seen[0].body == b"abc"


def test_a_large_body_passes_where_that_is_wished_for(redacting: Place) -> None:
    pieces = [bytes([65 + at]) * 9000 for at in range(20)]
    redacting.send(post(b"".join(pieces)))
    redacting.send(chunked(*pieces))
    whole, in_chunks = redacting.api.seen
    assert whole.body == b"".join(pieces)
    data, rest = b"", in_chunks.body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        data, rest = data + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert data == b"".join(pieces)


def test_redacting_puts_stars_and_passes_the_rest(redacting: Place) -> None:
    body = b'{"a": "%b", "b": "%b", "c": 1}' % (TOKEN.encode(), SENSITIVE.encode())
    redacting.send(post(body, f"X-Note: {TOKEN}", target=f"/a/{TOKEN}?b=1"))
    (seen,) = redacting.api.seen
    stars = b"*" * len(TOKEN)
    assert seen.body == body.replace(TOKEN.encode(), stars).replace(SENSITIVE.encode(), b"*" * len(SENSITIVE))
    assert seen.head.startswith(b"POST /a/%b?b=1 HTTP/1.1\r\n" % stars)
    assert b"x-note: %b\r\n" % stars in seen.head
    redacting.bundle.event("egress.redacted", place="body", detector="github")
    redacting.bundle.event("egress.redacted", place="url", detector="github")


def test_redacting_takes_a_whole_encoded_run(redacting: Place) -> None:
    run = base64.b64encode(f"user:{TOKEN}:more".encode())
    redacting.send(post(b'{"a": "' + run + b'"}'))
    assert redacting.api.seen[0].body == b'{"a": "' + b"*" * len(run) + b'"}'


def test_what_can_not_be_redacted_is_refused(redacting: Place) -> None:
    for data in (
        post("\n".join(TOKEN).encode()),
        post(gzip.compress(TOKEN.encode()), "Content-Encoding: gzip"),
        get("/", f"{SENSITIVE}: 1"),
        get("/", host=f"{SENSITIVE.encode().hex()}.wild.test"),
    ):
        redacting.refusal(data, "secret_found")


def test_without_anybody_to_ask_it_is_refused_and_says_so(certificate: Certificate) -> None:
    for place in bottle(certificate, SecretsPolicy(on_match="hold")):
        head, body = place.send(get(f"/{TOKEN}"))
        assert head.startswith(b"HTTP/1.1 403 ")
        said = json.loads(body)
        assert said["reason"] == "secret_held"
        assert "can't be asked here" in said["message"]


def test_a_route_may_say_what_happens_to_a_secret_on_it(blocking: Place) -> None:
    blocking.send(post(f"a {TOKEN} b".encode(), host="stars.test"))
    assert blocking.api.seen[0].body == b"a " + b"*" * len(TOKEN) + b" b"
    blocking.api.seen.clear()
    blocking.refusal(post(PLACEHOLDER.encode(), host="stars.test"), "placeholder_misused")


def test_a_route_that_is_not_to_be_searched_is_not(blocking: Place) -> None:
    blocking.send(post(TOKEN.encode(), host="free.test"))
    assert blocking.api.seen[0].body == TOKEN.encode()


def test_what_goes_unsearched_is_not_written_down_as_it_is(blocking: Place) -> None:
    blocking.send(get(f"/bot{SENSITIVE}/send", host="free.test"))
    assert SENSITIVE.encode() in blocking.api.seen[0].head
    path = blocking.bundle.event("egress.allowed", host="free.test", method="GET")["path"]
    assert path == f"/bot{'*' * len(SENSITIVE)}/send"


@pytest.mark.parametrize("kind", ["blocking_bottle", "unsearched_bottle", "redacting_bottle"])
@pytest.mark.parametrize(
    "data",
    [
        get(f"/{PLACEHOLDER}"),
        get("/", f"X-Api-Key: {PLACEHOLDER}"),
        get("/", f"X: {base64.b64encode(PLACEHOLDER.encode()).decode()}", host="free.test"),
        post(PLACEHOLDER.encode().hex().encode()),
        post(gzip.compress("-".join(PLACEHOLDER).encode()), "Content-Encoding: gzip"),
        get("/", host=f"{PLACEHOLDER}.wild.test"),
        get("/", host=f"{PLACEHOLDER.encode().hex()[:60]}.{PLACEHOLDER.encode().hex()[60:]}.wild.test"),
    ],
)
def test_a_placeholder_goes_nowhere_else(kind: str, data: bytes, request: pytest.FixtureRequest) -> None:
    place = fresh(request.getfixturevalue(kind))
    place.refusal(data, "placeholder_misused")
    place.bundle.event("egress.refused", reason="placeholder_misused")


@pytest.mark.parametrize("kind", ["blocking_bottle", "unsearched_bottle"])
def test_a_placeholder_goes_to_its_own_route_where_the_credential_takes_its_place(
    kind: str, request: pytest.FixtureRequest
) -> None:
    place = fresh(request.getfixturevalue(kind))
    place.send(post(PLACEHOLDER.encode(), f"X-Api-Key: {PLACEHOLDER}", host="own.test"))
    (seen,) = place.api.seen
    assert f"x-api-key: {KEY}\r\n".encode() in seen.head
    assert PLACEHOLDER.encode() not in seen.head


def test_without_secrets_only_placeholders_are_looked_for(unsearched: Place) -> None:
    unsearched.send(post(TOKEN.encode() + KEY.encode()))
    unsearched.send(post(b"abc", "Content-Encoding: zstd"))
    large = b"x" * (1 << 20) + b"y"
    unsearched.send(post(large))
    assert [seen.body for seen in unsearched.api.seen] == [TOKEN.encode() + KEY.encode(), b"abc", large]


def test_a_name_that_carries_something_is_neither_resolved_nor_tunnelled_to(blocking: Place) -> None:
    carrier = f"{SENSITIVE.encode().hex()}.tunnel.test"
    assert code(ask_name(blocking.holder, query(carrier))) == NAME_ERROR
    assert (
        blocking.bundle.event("dns.refused", reason="secret_found")["host"]
        == "*" * 2 * len(SENSITIVE) + ".tunnel.test"
    )
    assert code(ask_name(blocking.holder, query("fine.tunnel.test"))) == NO_ERROR
    with blocking.holder.connect(*PROXY) as sock:
        sock.sendall(f"CONNECT {carrier}:443 HTTP/1.1\r\nHost: {carrier}:443\r\n\r\n".encode())
        assert b"secret_found" in read_response(sock)[1]
    with blocking.holder.connect("192.0.2.1", 443) as sock:
        sock.sendall(client_hello(carrier))
        assert sock.recv(100)[:1] == b"\x15"
    blocking.bundle.event("egress.refused", via="tls", reason="secret_found")
    assert not blocking.api.seen


@pytest.mark.parametrize("kind", ["blocking_bottle", "unsearched_bottle"])
def test_a_credential_that_comes_back_is_hidden(kind: str, request: pytest.FixtureRequest) -> None:
    place = fresh(request.getfixturevalue(kind))
    forms = [
        KEY.encode(),
        KEY.encode().hex().encode(),
        KEY.replace("/", "%2F").encode(),
        KEY.replace("/", "\\/").encode(),
    ]
    answer = b" | ".join(forms) + b" | " + base64.b64encode(b"a:" + KEY.encode())
    place.api.answer, place.api.fields = answer, b"X-Echo: " + KEY.encode() + b"\r\n"
    head, body = place.send(get("/x", host="own.test"))
    assert len(body) == len(answer)
    assert not [form for form in forms if form in head + body]
    assert KEY.encode()[2:-2] not in base64.b64decode(body.rpartition(b" | ")[2].replace(b"*", b"A"))
    assert b"x-echo: " + b"*" * len(KEY) in head.lower()
    assert b"accept-encoding: identity\r\n" in place.api.seen[0].head


def test_a_compressed_answer_on_a_route_with_a_credential_is_refused(blocking: Place) -> None:
    blocking.api.answer, blocking.api.fields = gzip.compress(KEY.encode()), b"Content-Encoding: gzip\r\n"
    head, _ = blocking.send(get("/x", host="own.test"))
    assert head.startswith(b"HTTP/1.1 502 ")
    blocking.bundle.event("egress.failed", reason="response_encoded")
    head, body = blocking.send(get("/x"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert gzip.decompress(body) == KEY.encode()


def test_a_renewed_credential_is_searched_for_and_hidden_like_the_former(certificate: Certificate) -> None:
    for place in bottle(certificate, SecretsPolicy()):
        new = in_header("x-api-key", "another-Key/0815-of-mine", placeholder=PLACEHOLDER)
        place.bundle.tell({"credentials": {"key": new.document()}})
        place.bundle.hear(lambda message: message.get("credentials") is True)
        for secret in (KEY, "another-Key/0815-of-mine"):
            place.refusal(post(secret.encode()), "secret_found")
        _, body = place.send(get("/", host="own.test"))
        assert b"0815" not in body


BUSY = gzip.compress(b"%2525" * ((8 << 20) // 5 - 10))
"""A body that is small, and keeps who looks at it busy for long."""


def test_an_agent_that_keeps_the_guard_busy_does_not_keep_a_policy_from_coming_into_force() -> None:
    """Bodies that have all come are looked at one after the other, with the keeper's turn in between."""
    api = Api()
    web = Server(api.serve)
    policy = EgressPolicy(routes=(web.http("plain.test"),), secrets=SecretsPolicy(on_match="block"))
    with served(policy, sensitive=(SENSITIVE,)) as (holder, bundle):
        before = memory(bundle.pid, "VmRSS")
        request = post(BUSY, "Content-Encoding: gzip")
        socks = [holder.connect(*PROXY) for _ in range(8)]
        for sock in socks:
            sock.sendall(request[:-1])
        os.kill(bundle.pid, signal.SIGSTOP)  # so that the last bytes and the order come at once
        for sock in socks:
            sock.sendall(request[-1:])
        new = policy._replace(routes=(web.http("other.test"),))
        bundle.tell({"policy": new.document(), "further": 0})
        os.kill(bundle.pid, signal.SIGCONT)
        bundle.hear(lambda message: message.get("policy") == new.fingerprint())
        assert len(api.seen) < len(socks) - 2
        assert memory(bundle.pid, "VmHWM") - before < 150 * 1024
        for sock in socks:
            sock.close()
    web.close()


def test_what_waits_to_be_looked_at_is_bounded_over_all_connections() -> None:
    api = Api()
    web = Server(api.serve)
    policy = EgressPolicy(routes=(web.http("plain.test"),), secrets=SecretsPolicy(on_match="block"))
    with served(policy) as (holder, bundle):
        before = memory(bundle.pid, "VmRSS")
        request = post(bytes(1 << 20))
        socks = []

        def one_waits() -> None:
            socks.append(sock := holder.connect(*PROXY))
            with contextlib.suppress(ConnectionError):
                sock.sendall(request[:-1])

        for _ in range(100):
            one_waits()
        bundle.event("egress.refused", reason="body_too_large")
        assert memory(bundle.pid, "VmRSS") - before < 110 * 1024
        # They go on waiting for their last bytes, and give way to who has all of its own.
        place = Place(holder, bundle, api)

        def one_gives_way() -> bool:
            one_waits()  # so that there is no room but another's
            with contextlib.suppress(ConnectionError):
                place.send(request)
            return any(event["reason"] == "body_stalled" for event in bundle.events("egress.refused"))

        until(one_gives_way)
        for _ in range(5):
            assert place.send(request)[0].startswith(b"HTTP/1.1 200 ")
        for sock in socks:
            sock.close()
    web.close()


def test_bodies_that_drip_give_way_as_well() -> None:
    web = Server(Api().serve)
    policy = EgressPolicy(routes=(web.http("plain.test"),), secrets=SecretsPolicy(limit=16 << 20))
    with served(policy) as (holder, bundle):
        request = post(bytes(15 << 20))
        socks = [holder.connect(*PROXY) for _ in range(4)]
        for sock in socks:
            sock.sendall(request[:-10_000])

        def one_gets_through() -> bool:
            for sock in socks:
                with contextlib.suppress(ConnectionError):
                    sock.send(b"0")
            with contextlib.suppress(ConnectionError), holder.connect(*PROXY) as sock:
                sock.sendall(request)
                return read_response(sock)[0].startswith(b"HTTP/1.1 200 ")
            return False

        until(one_gets_through)
        bundle.event("egress.refused", reason="body_stalled")
        for sock in socks:
            sock.close()
    web.close()


def test_large_heads_that_are_searched_let_a_policy_come_into_force_between_them() -> None:
    api = Api()
    web = Server(api.serve)
    policy = EgressPolicy(routes=(web.http("plain.test"),), secrets=SecretsPolicy())
    with served(policy, sensitive=(SENSITIVE,)) as (holder, bundle):
        request = get("/x", "X-A: " + "%41a" * 14_000)
        socks = [holder.connect(*PROXY) for _ in range(60)]
        for sock in socks:
            sock.sendall(request[:-1])
        os.kill(bundle.pid, signal.SIGSTOP)  # so that the last bytes come at once
        for sock in socks:
            sock.sendall(request[-1:])
        os.kill(bundle.pid, signal.SIGCONT)
        bundle.event("egress.allowed")
        new = policy._replace(routes=(web.http("other.test"),))
        bundle.tell({"policy": new.document(), "further": 0})
        bundle.hear(lambda message: message.get("policy") == new.fingerprint())
        assert len(bundle.events("egress.allowed")) < len(socks) // 2
        for sock in socks:
            sock.close()
    web.close()


def test_what_looks_like_the_routes_own_placeholder_hides_nothing_behind_it(blocking: Place) -> None:
    own = " ".join(
        f"{PLACEHOLDER}{crc_token('x', random.Random(at)).replace('_', '')}" * 3 for at in range(40)
    )
    head, body = blocking.send(post(f"{own} {TOKEN}".encode(), host="own.test"))
    assert head.startswith(b"HTTP/1.1 403 "), head
    assert json.loads(body)["reason"] in ("secret_unreadable", "secret_found")
    assert not blocking.api.seen
