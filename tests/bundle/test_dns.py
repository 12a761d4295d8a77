"""The bottle's DNS: allowed names get their own address, nothing else exists, and no bytes confuse it."""

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.egress.dns import Malformed, answer, read_question
from bot_bottle.bundle.egress.names import Names, NoAddressLeft
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.harness import Bundle, Holder, served

A, AAAA, TXT, HTTPS = 1, 28, 16, 65
POLICY = EgressPolicy(
    routes=(
        Route(host="ok.test", port=443),
        Route(host="other.test", port=80),
        Route(host="*.wild.test", port=443),
    )
)


def query(name: str, kind: int = A, *, network: int = 1, number: int = 0x1234, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label)
    return struct.pack("!6H", number, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, network)


def code(reply: bytes) -> int:
    return reply[3] & 15


def addresses(reply: bytes) -> list[str]:
    return [socket.inet_ntoa(reply[-4:])] if int.from_bytes(reply[6:8], "big") else []


@pytest.fixture(scope="module")
def bottle() -> Iterator[tuple[Holder, Bundle]]:
    with served(POLICY, limits=BundleLimits(names=3, first_bytes_seconds=5.0)) as both:
        yield both


def ask(holder: Holder, message: bytes, server: str = "127.0.0.1") -> bytes:
    with holder.new_socket(socket.SOCK_DGRAM) as sock:
        sock.connect((server, 53))  # connected: only an answer from the address that was asked arrives
        sock.send(message)
        return sock.recv(4096)


def test_an_allowed_name_keeps_its_own_address(bottle: tuple[Holder, Bundle]) -> None:
    holder, _ = bottle
    first, again = ask(holder, query("ok.test")), ask(holder, query("OK.test."))
    assert code(first) == 0
    assert addresses(first) == addresses(again)
    assert addresses(first)[0].startswith("198.18.")
    assert addresses(ask(holder, query("other.test"))) != addresses(first)


def test_the_answer_repeats_the_question_and_its_number(bottle: tuple[Holder, Bundle]) -> None:
    asked = query("oK.TeSt", number=0xBEEF)
    reply = ask(bottle[0], asked)
    assert reply[:2] == b"\xbe\xef"
    assert asked[12:] in reply


def test_it_answers_from_whatever_address_was_asked(bottle: tuple[Holder, Bundle]) -> None:
    for server in ("127.0.0.53", "192.0.2.53", "1.1.1.1"):
        assert addresses(ask(bottle[0], query("ok.test"), server))


def test_other_types_of_an_allowed_name_are_empty(bottle: tuple[Holder, Bundle]) -> None:
    for kind in (AAAA, TXT, HTTPS, 255):
        reply = ask(bottle[0], query("ok.test", kind))
        assert code(reply) == 0
        assert not addresses(reply)


@pytest.mark.parametrize(
    "name", ["evil.test", "a.ok.test", "wild.test", "notwild.test", "1.0.0.127.in-addr.arpa", "test", ""]
)
def test_any_other_name_does_not_exist(bottle: tuple[Holder, Bundle], name: str) -> None:
    holder, bundle = bottle
    for kind in (A, TXT):
        reply = ask(holder, query(name, kind))
        assert code(reply) == 3
        assert not addresses(reply)
    bundle.event("dns.refused", host=name)


def test_localhost_is_the_bottles_own(bottle: tuple[Holder, Bundle]) -> None:
    assert addresses(ask(bottle[0], query("localhost"))) == ["127.0.0.1"]
    assert addresses(ask(bottle[0], query("localhost", AAAA))) == []


def test_names_below_a_wildcard_run_out(bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    given_out = {addresses(ask(holder, query(f"n{number}.wild.test")))[0] for number in range(3)}
    assert len(given_out) == 3
    assert code(ask(holder, query("n4.wild.test"))) == 5
    assert addresses(ask(holder, query("n0.wild.test")))
    bundle.event("dns.refused", reason="names_exhausted")


def test_tcp_answers_several_queries(bottle: tuple[Holder, Bundle]) -> None:
    with bottle[0].connect("127.0.0.1", 53) as sock:
        for name, wanted in (("ok.test", 0), ("evil.test", 3)):
            message = query(name)
            sock.sendall(len(message).to_bytes(2, "big") + message)
            reply = sock.recv(4096)
            assert int.from_bytes(reply[:2], "big") == len(reply) - 2
            assert code(reply[2:]) == wanted


def test_bad_messages_get_an_error_or_nothing(bottle: tuple[Holder, Bundle]) -> None:
    holder, _ = bottle
    assert code(ask(holder, query("ok.test", flags=0x2800))) == 4
    assert code(ask(holder, query("ok.test", network=3))) == 5
    assert code(ask(holder, query("ok.test")[:-3])) == 1
    two = bytearray(query("ok.test"))
    two[5] = 2
    assert code(ask(holder, bytes(two))) == 1
    with holder.new_socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 53))
        for dropped in (b"", b"\0" * 11, query("ok.test", flags=0x8180)):
            sock.send(dropped)
        sock.send(query("ok.test", number=7))
        assert sock.recv(4096)[:2] == b"\0\7"


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_malformed(data: bytes) -> None:
    try:
        question = read_question(data)
    except Malformed as error:
        code = error.code
        if code is not None:
            answer(data, code)
        return
    assert len(question.raw) <= 255 + 5
    assert len(question.name) <= 255
    assert question.raw in answer(data, 0, question, b"\1\2\3\4")


@given(st.data())
def test_a_damaged_query_is_a_question_or_malformed(data: st.DataObject) -> None:
    message = bytearray(query("some.name.example"))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_question(bytes(message))
    except Malformed:
        return


def test_a_dot_inside_a_label_does_not_split_it() -> None:
    message = query("x")[:12] + b"\x0fok.test.evil.ex\0" + struct.pack("!HH", 1, 1)
    with pytest.raises(Malformed):
        read_question(message)


def test_compression_and_overlong_labels_are_malformed() -> None:
    header = query("x")[:12]
    for name in (
        b"\xc0\x0c",
        b"\x40" + b"a" * 64 + b"\0",
        (b"\x3f" + b"a" * 63) * 4 + b"\x3f" + b"a" * 63 + b"\0",
    ):
        with pytest.raises(Malformed):
            read_question(header + name + struct.pack("!HH", 1, 1))


def test_an_address_of_the_pool_fits_its_own_name_only() -> None:
    names = Names(POLICY, limit=1)
    given_out = names.address_for("ok.test")
    assert given_out is not None
    address = socket.inet_ntoa(given_out)
    assert names.fits(address, "ok.test")
    assert not names.fits(address, "other.test")
    assert not names.fits("198.19.255.255", "ok.test")
    assert names.fits("192.0.2.1", "ok.test")
    names.address_for("a.wild.test")
    with pytest.raises(NoAddressLeft):
        names.address_for("b.wild.test")
