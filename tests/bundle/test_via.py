"""CONNECT to another proxy: its answer is read strictly, and what it says in trouble is a failure with a reason."""

import asyncio
import socket
import threading

import pytest

from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.via import connect_through
from bot_bottle.secret import Secret


def asked(*answers: bytes, authorization: Secret | None = None, close: bool = True) -> bytes:
    """What a proxy that gives `answers` was asked."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    heard: list[bytes] = []

    def proxy() -> None:
        heard.append(theirs.recv(65536))
        for answer in answers:
            theirs.sendall(answer)
        if close:
            theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=proxy)
    thread.start()
    with ours, theirs:
        try:
            asyncio.run(connect_through(ours, "a.test", 443, authorization, 0.3))
        finally:
            thread.join()
    return heard[0]


def test_the_proxy_is_asked_for_the_host_and_nothing_else() -> None:
    said = asked(b"HTTP/1.1 200 Connection Established\r\n\r\n")
    assert said == b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"
    said = asked(b"HTTP/1.0 2", b"00\r\nVia: x\r\n\r\n", authorization=Secret("Basic eA=="))
    assert b"\r\nProxy-Authorization: Basic eA==\r\n\r\n" in said


@pytest.mark.parametrize(
    ("answer", "reason", "refused"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1\r\n\r\nx", "proxy_status_403", True),
        (b"HTTP/1.1 429 Slow\r\n\r\n", "proxy_status_429", False),
        (b"HTTP/1.1 407 Who\r\n\r\n", "proxy_status_407", False),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "proxy_malformed", False),
        (b"SSH-2.0-x\r\n\r\n", "proxy_malformed", False),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "proxy_malformed", False),
        (b"HTTP/1.1 200", "proxy_malformed", False),
        (b"", "proxy_malformed", False),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10000, "proxy_malformed", False),
    ],
)
def test_any_other_answer_opens_no_tunnel(answer: bytes, reason: str, refused: bool) -> None:
    with pytest.raises(DialFailed) as failed:
        asked(answer)
    assert failed.value.reason == reason
    assert failed.value.refused is refused


def test_a_proxy_that_says_nothing_is_not_waited_for() -> None:
    with pytest.raises(DialFailed) as failed:
        asked(close=False)
    assert failed.value.timeout
