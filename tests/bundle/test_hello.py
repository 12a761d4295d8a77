"""Reading a ClientHello: every input gets an answer, and only a whole and unambiguous hello gives a name."""

import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.egress.hello import MAX_HELLO, BadHello, Hello, read_hello
from tests.bundle.hellos import client_hello, records, server_name, vector


def openssl_hello(name: str) -> bytes:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        context = ssl.create_default_context()
        wrapped = context.wrap_socket(ours, server_hostname=name, do_handshake_on_connect=False)
        with pytest.raises(ssl.SSLWantReadError):
            wrapped.do_handshake()
        data = theirs.recv(65536)
        wrapped.close()
    return data


def test_a_real_hello_gives_its_name() -> None:
    assert read_hello(openssl_hello("ok.test")) == Hello("ok.test", False)


@given(st.integers(1, 300), st.booleans())
def test_a_hello_is_the_same_in_records_of_every_size(fragment: int, encrypted: bool) -> None:
    assert read_hello(client_hello("ok.test", fragment=fragment, encrypted=encrypted)) == Hello(
        "ok.test", encrypted
    )


@given(st.integers(1, 60), st.data())
def test_no_part_of_a_hello_gives_an_answer(fragment: int, data: st.DataObject) -> None:
    hello = client_hello("ok.test", fragment=fragment)
    assert read_hello(hello[: data.draw(st.integers(0, len(hello) - 1))]) is None


@given(st.binary(max_size=300))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    try:
        read_hello(data)
    except BadHello:
        return


@given(st.data())
def test_a_damaged_hello_gets_an_answer(data: st.DataObject) -> None:
    hello = bytearray(client_hello("ok.test"))
    for _ in range(data.draw(st.integers(1, 4))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_hello(bytes(hello))
    except BadHello:
        return


@given(st.binary(min_size=1, max_size=200))
def test_any_body_in_a_proper_message_gets_an_answer(body: bytes) -> None:
    try:
        read_hello(records(b"\1" + vector(3, body)))
    except BadHello:
        return


two_names = vector(2, b"\0" + vector(2, b"ok.test") + b"\0" + vector(2, b"evil.test"))
NAMES = (0, server_name(b"ok.test"))


@pytest.mark.parametrize(
    "data",
    [
        client_hello(None, extensions=[NAMES, (0, server_name(b"evil.test"))]),
        client_hello(None, extensions=[(0, two_names)]),
        client_hello(None, extensions=[(0, b"")]),
        client_hello(None, extensions=[(0, server_name(b""))]),
        client_hello(None, extensions=[(0, server_name(b"ok.test") + b"\0")]),
        client_hello(None, extensions=[(0, vector(2, b"\1" + vector(2, b"ok.test")))]),
        client_hello("b\u00fccher.test"),
        b"\x16\3\1\0\0",
        b"\x16\3\1\x40\1",
        b"\x16\2",
        b"\x15\3\1\0\2\2\x28",
        b"\x80\x2e\1\3\1",
        records(b"\2" + vector(3, bytes(50))),
        records(b"\1" + (MAX_HELLO + 1).to_bytes(3, "big") + bytes(100)),
        records(b"\1" + vector(3, bytes(50)) + b"\1"),
    ],
)
def test_an_ambiguous_hello_is_refused(data: bytes) -> None:
    with pytest.raises(BadHello):
        read_hello(data)
