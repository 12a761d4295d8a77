"""Requests that two readers could understand differently: none of them reaches an upstream in any form."""

import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.bundle.egress.heads import (
    BadMessage,
    read_request,
    read_response,
    request_body,
    response_body,
)
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy
from tests.bundle.harness import (
    Bundle,
    Holder,
    Server,
    read_all,
    read_head,
    served,
)
from tests.bundle.harness import (
    read_response as read_framed,
)
from tests.bundle.recorder import Recorder

PROXY = ("127.0.0.1", 3128)
START = b"POST http://ok.test/a HTTP/1.1\r\nHost: ok.test\r\n"
UPGRADE = b"GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nConnection: Upgrade\r\nUpgrade: "
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL = b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"


@pytest.fixture(scope="module")
def bottle() -> Iterator[tuple[Holder, Bundle, Recorder]]:
    recorder = Recorder()
    policy = EgressPolicy(routes=(recorder.server.http("ok.test"),))
    with served(policy, limits=BundleLimits(first_bytes_seconds=5.0)) as (holder, bundle):
        yield holder, bundle, recorder
    recorder.server.close()


def talk(holder: Holder, data: bytes) -> bytes:
    with holder.connect(*PROXY) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)
        except OSError:  # reset: that is an answer, too
            return b""


HEADS = {
    "both framings": START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, other order": START + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": START + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal lengths": START + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": START + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": START + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": START + b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": START + b"Content-Length: 0x5\r\n\r\nhello",
    "an underscored length": START + b"Content-Length: 1_0\r\n\r\nhello",
    "an empty length": START + b"Content-Length:\r\n\r\n",
    "a huge length": START + b"Content-Length: 99999999999999999999\r\n\r\n",
    "space before the colon": START + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an obscure coding": START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked and more": START + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip and chunked": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a vertical tab in the coding": START + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "an underscore is no dash": START + b"Transfer_Encoding: chunked\r\nContent-Length: 3, 3\r\n\r\n0\r\n\r\n",
    "a length with an underscore": START + b"Content_Length: 5\r\n\r\n",
    "a coding with an underscore": START + b"Transfer_Encoding: chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"POST http://ok.test/a HTTP/1.0\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded field": START + b"X-A: b\r\n c\r\n\r\n",
    "a folded coding": START + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare LF": START + b"X-A: b\nX-C: d\r\n\r\n",
    "only LF": b"GET http://ok.test/a HTTP/1.1\nHost: ok.test\n\n",
    "a bare CR": START + b"X-A: b\rTransfer-Encoding: chunked\r\n\r\n",
    "a NUL": START + b"X-A: b\0c\r\n\r\n",
    "a control character": START + b"X-A: b\x01c\r\n\r\n",
    "no colon": START + b"X-A\r\n\r\n",
    "no name": START + b": b\r\n\r\n",
    "a space in a name": START + b"X A: b\r\n\r\n",
    "an empty line first": b"\r\n" + START + b"\r\n",
    "no version": b"GET http://ok.test/a\r\nHost: ok.test\r\n\r\n",
    "HTTP/2 in clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET http://ok.test/a HTTP/1.2\r\nHost: ok.test\r\n\r\n",
    "two spaces": b"GET  http://ok.test/a HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "a tab": b"GET\thttp://ok.test/a\tHTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "a space in the target": b"GET http://ok.test/a b HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "a fragment": b"GET http://ok.test/a#b HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "userinfo": b"GET http://ok.test@evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    "userinfo the other way": b"GET http://evil.test:80@ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "a backslash": b"GET http://ok.test\\.evil.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "another scheme": b"GET ftp://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "https in the clear": b"GET https://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "no Host": b"GET http://ok.test/ HTTP/1.1\r\n\r\n",
    "an empty Host": b"GET http://ok.test/ HTTP/1.1\r\nHost:\r\n\r\n",
    "two Hosts": b"GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nHost: evil.test\r\n\r\n",
    "two equal Hosts": b"GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nHost: ok.test\r\n\r\n",
    "another Host": b"GET http://ok.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    "another Host's port": b"GET http://ok.test/ HTTP/1.1\r\nHost: ok.test:8080\r\n\r\n",
    "a list of Hosts": b"GET http://ok.test/ HTTP/1.1\r\nHost: ok.test, evil.test\r\n\r\n",
    "an odd port": b"GET http://ok.test:080000/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "port 0": b"GET http://ok.test:0/ HTTP/1.1\r\nHost: ok.test:0\r\n\r\n",
    "an upgrade": UPGRADE + b"tls/1.0\r\n\r\n",
    "a WebSocket without a version": UPGRADE + b"websocket\r\n\r\n",
    "a WebSocket and more": UPGRADE + b"websocket, h2c\r\n\r\n",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an expectation": START + b"Expect: something\r\nContent-Length: 1\r\n\r\nx",
    "a CONNECT with a body": b"CONNECT ok.test:80 HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 5\r\n\r\nhello",
    "a CONNECT to userinfo": b"CONNECT a@ok.test:80 HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "a CONNECT without a port": b"CONNECT ok.test HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "an unknown method": b"GE@T http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    "too many fields": START + b"X: y\r\n" * 300 + b"\r\n",
    "a head that is too large": START + b"X: " + b"y" * 70000 + b"\r\n\r\n",
}  # fmt: skip
BODIES = {
    "an extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "an extension with LF": b"5;\nhello\r\n0\r\n\r\n",
    "a size with space": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "an empty size": b"\r\nhello\r\n0\r\n\r\n",
    "a huge size": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a size that ends in LF": b"5\nhello\r\n0\r\n\r\n",
    "a chunk too long": b"5\r\nhello!\r\n0\r\n\r\n",
    "a chunk that ends in LF": b"5\r\nhello\n0\r\n\r\n",
    "a malformed trailer": b"5\r\nhello\r\n0\r\nX Y\r\n\r\n",
    "endless trailers": b"0\r\n" + b"X: y\r\n" * 100 + b"\r\n",
}


@pytest.mark.parametrize("name", HEADS)
def test_no_byte_of_it_reaches_the_upstream(name: str, bottle: tuple[Holder, Bundle, Recorder]) -> None:
    holder, _, recorder = bottle
    recorder.forget()
    answer = talk(holder, HEADS[name] + EVIL)
    assert re.match(rb"HTTP/1\.1 (400|403|417|421|426|431|501) ", answer), answer
    assert b"HTTP/1.1 200" not in answer
    assert recorder.everything() == b""


@pytest.mark.parametrize("name", BODIES)
def test_a_broken_body_is_never_whole_upstream(name: str, bottle: tuple[Holder, Bundle, Recorder]) -> None:
    holder, _, recorder = bottle
    recorder.forget()
    talk(holder, CHUNKED + BODIES[name] + EVIL)
    seen = recorder.everything()
    assert not seen.endswith(b"0\r\n\r\n")
    assert b"evil" not in seen
    assert b"X" not in seen


def test_a_proper_body_is_framed_anew(bottle: tuple[Holder, Bundle, Recorder]) -> None:
    holder, _, recorder = bottle
    recorder.forget()
    talk(holder, CHUNKED + b"0005\r\nhello\r\n1\r\n!\r\n0\r\nX-Trailer: dropped\r\n\r\n")
    head, _, body = recorder.everything().partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"


def test_a_pipelined_second_request_is_judged(bottle: tuple[Holder, Bundle, Recorder]) -> None:
    holder, _, recorder = bottle
    recorder.forget()
    answer = talk(holder, b"GET http://ok.test/1 HTTP/1.1\r\nHost: ok.test\r\n\r\n" + EVIL)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert answer.count(b"HTTP/1.1 403 ") == 1
    assert b"evil" not in recorder.everything()


def test_connection_can_drop_no_field_that_frames_or_routes(bottle: tuple[Holder, Bundle, Recorder]) -> None:
    holder, _, recorder = bottle
    recorder.forget()
    talk(holder, START + b"Connection: host, content-length, x-a\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello")
    assert recorder.everything() == b"POST /a HTTP/1.1\r\nhost: ok.test\r\ncontent-length: 5\r\n\r\nhello"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_requests_reach_the_upstream_well_formed_or_not_at_all(
    data: st.DataObject, bottle: tuple[Holder, Bundle, Recorder]
) -> None:
    holder, bundle, recorder = bottle
    recorder.forget()
    message = bytearray(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
    odd = st.sampled_from(b"\r\n\0\t :,;@#%\\\x0b\x80") | st.integers(0, 255)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message)))
        message[at : at + data.draw(st.integers(0, 1))] = bytes((data.draw(odd),))
    talk(holder, bytes(message) + EVIL)
    assert not bundle.is_gone()
    recorder.everything()
    for seen in (bytes(seen) for seen in recorder.seen if seen and not seen.startswith(b"mark ")):
        assert re.match(rb"[A-Z]+ [\x21-\x7e]+ HTTP/1\.1\r\nhost: ok\.test\r\n", seen), seen
        head, _, body = seen.partition(b"\r\n\r\n")
        assert b"evil" not in head
        if b"content-length" not in head:
            assert re.fullmatch(rb"(?s)(5\r\n.{5}\r\n)?(0\r\n\r\n)?|", body) or b"chunked" in head, seen


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_bad_message(data: bytes) -> None:
    for read in (read_request, read_response):
        try:
            read(data + b"\r\n\r\n", most=50)
        except BadMessage:
            continue


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            (b"content-length", b"Transfer-Encoding", b"connection", b"upgrade", b"x", b"Host", b"expect")
        )
        | st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,9}", fullmatch=True),
        st.sampled_from((b"5", b"chunked", b"close", b"websocket", b"", b"a, b", b"identity"))
        | st.from_regex(rb"[\x21-\x7e\x80-\xff]{0,9}", fullmatch=True),
    ),
    max_size=5,
)


@given(FIELDS, st.sampled_from((b"GET", b"POST", b"HEAD", b"CONNECT")))
def test_what_is_read_is_what_was_written(fields: list[tuple[bytes, bytes]], method: bytes) -> None:
    head = method + b" /a HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"
    if method == b"CONNECT":
        head = head.replace(b"/a", b"a:1", 1)
    try:
        request = read_request(head, most=50)
        request_body(request)
    except BadMessage:
        return
    assert request.headers == [(name.lower(), value) for name, value in fields]


@given(FIELDS, st.integers(100, 599))
def test_a_response_is_framed_in_one_way_or_refused(fields: list[tuple[bytes, bytes]], status: int) -> None:
    head = b"HTTP/1.1 %d X\r\n" % status + b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"
    try:
        body = response_body(read_response(head, most=50), b"GET")
    except BadMessage:
        return
    assert sum((body.chunked, body.until_close, body.length > 0)) <= 1


def test_a_response_with_two_framings_does_not_reach_the_agent() -> None:
    def answer(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

    server = Server(answer)
    with (
        served(EgressPolicy(routes=(server.http("ok.test"),))) as (holder, _),
        holder.connect(*PROXY) as sock,
    ):
        sock.sendall(b"GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n")
        head, body = read_framed(sock)
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"upstream_malformed" in body
    server.close()


@pytest.mark.parametrize(
    "name", ["a bare LF", "only LF", "a bare CR", "a NUL", "an upgrade", "both framings"]
)
def test_byte_by_byte_it_is_refused_as_well(name: str, bottle: tuple[Holder, Bundle, Recorder]) -> None:
    holder, _, recorder = bottle
    recorder.forget()
    with holder.connect(*PROXY) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for byte in HEADS[name]:
                sock.sendall(bytes((byte,)))
        except OSError:
            pass  # refused already
        else:
            assert re.match(rb"HTTP/1\.1 (400|426|501) ", read_all(sock))
    assert recorder.everything() == b""
