"""Attacks on the supervise server over HTTP: wrong tokens, rebinding, what is too much, and clients that are slow on purpose."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bot_bottle.bundle.supervise.front import LARGEST_HEAD, MOST_CONNECTIONS
from bot_bottle.bundle.supervise.server import LARGEST_BODY
from bot_bottle.launch.supervisor import Timing
from support.mcp_clients import ASK, MODERN, body, call, connect, head, post, read_until, status
from support.supervised import Supervised, memory, until


@pytest.fixture(scope="module")
def server() -> Iterator[Supervised]:
    with Supervised(timing=Timing(progress=0.05, request=0.5, reading=0.5)) as made:
        made.wait_ready()
        made.desk.present = False
        yield made


@pytest.fixture(autouse=True)
def nothing_asked(server: Supervised) -> Iterator[None]:
    pid = server.pid
    yield
    assert server.pid == pid, "an attack ended the process"
    until(lambda: len(server.desk.asked("leave")) == asked(server))
    server.desk.heard.clear()
    ask(server)
    server.desk.heard.clear()


def asked(server: Supervised) -> int:
    return len(server.desk.asked("ask"))


def ask(server: Supervised) -> None:
    """Asks as an honest client does."""
    with post(server) as sock:
        assert b'"status":"pending"' in read_until(sock, lambda heard: b'"status":' in heard), (
            "others are served"
        )
    until(lambda: server.desk.asked("leave"))


WRONG: list[str | None] = [
    None, "", "Bearer", "Bearer ", "Bearer x", "Basic {token}", "{token}", "Bearer {token}x", "Bearer {half}", "Bearer  {token}",
    "Bearer {lower}", "Bearer {token},Bearer x",
]  # fmt: skip


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
@pytest.mark.parametrize("given", WRONG)
def test_without_the_runs_token_nothing_is_answered(
    server: Supervised, given: str | None, version: str
) -> None:
    token = server.token
    wrong = given and given.format(token=token, half=token[:20], lower=token.lower())
    for content in (ASK, body("initialize"), body("tools/list"), b"", b"{"):
        with post(server, content, authorization=wrong, mcp_protocol_version=version) as sock:
            assert status(sock) == 401
    assert asked(server) == 0


def test_another_bottles_token_is_no_token(server: Supervised) -> None:
    with Supervised(expected=False) as other, post(server, authorization=f"Bearer {other.token}") as sock:
        assert other.token != server.token
        assert status(sock) == 401
    assert asked(server) == 0


def test_a_token_in_the_address_or_the_body_is_none(server: Supervised) -> None:
    for path in (f"/mcp?access_token={server.token}", f"/mcp?token={server.token}"):
        with connect(server) as sock:
            sock.sendall(head(server, path=path, length=len(ASK), authorization=None) + ASK)
            assert status(sock) == 401


HOSTS = ["evil.example.org", "evil.example.org:{port}", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:{port}.evil.example.org",
         "0.0.0.0:{port}", "[::1]:{port}", "", "127.0.0.1:{port}@evil.example.org", "127.1:{port}",
         "LOCALHOST.evil.example.org:{port}"]  # fmt: skip
ORIGINS = ["http://evil.example.org", "null", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://127.0.0.1:{port}.evil.example.org",
           "http://localhost:1", "file://", "http://127.0.0.1:{port}/"]  # fmt: skip


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_was_rebound_is_refused(server: Supervised, host: str, version: str) -> None:
    with post(server, host=host.format(port=server.port), mcp_protocol_version=version) as sock:
        assert status(sock) in (400, 421)
    assert asked(server) == 0


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_page_of_another_origin_is_refused(server: Supervised, origin: str, version: str) -> None:
    with post(server, origin=origin.format(port=server.port), mcp_protocol_version=version) as sock:
        assert status(sock) == 403
    assert asked(server) == 0


def test_its_own_origin_is_none_of_them(server: Supervised) -> None:
    with post(server, origin=f"http://127.0.0.1:{server.port}") as sock:
        assert status(sock) == 200


@pytest.mark.parametrize("raw", [
    b"POST /mcp HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nhost: evil.example.org\r\ncontent-length: 0\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{{",
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: -1\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1",
    b"\x00" * 100 + b"\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
])  # fmt: skip
def test_what_is_no_request_is_refused(server: Supervised, raw: bytes) -> None:
    with connect(server) as sock:
        sock.sendall(raw.replace(b"{port}", str(server.port).encode()))
        assert status(sock) in (0, 400, 401, 405)
    assert asked(server) == 0


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/mcp", "/"])
def test_nothing_but_posts_is_served_so_no_stream_stays_open(
    server: Supervised, method: str, path: str
) -> None:
    with connect(server) as sock:
        sock.sendall(head(server, method=method, path=path, accept="text/event-stream"))
        assert status(sock) == 405


@pytest.mark.parametrize(
    "path",
    ["/", "/mcp/x", "/.well-known/oauth-protected-resource", "/register", "//mcp", "/mcp%2f"],
)
def test_there_is_one_path_and_no_way_to_get_a_token(server: Supervised, path: str) -> None:
    with connect(server) as sock:
        sock.sendall(head(server, path=path, length=len(ASK)) + ASK)
        assert status(sock) in (404, 307)


def test_a_body_may_be_64_kib_and_no_larger(server: Supervised) -> None:
    largest = ASK + b" " * (LARGEST_BODY - len(ASK))
    with post(server, largest) as sock:
        assert status(sock) == 200
    until(lambda: asked(server) == 1)
    with post(server, largest + b" ") as sock:
        assert status(sock) == 413
    with connect(server) as sock:  # and not where its size is not said beforehand either
        sock.sendall(head(server, length=None, transfer_encoding="chunked"))
        sock.sendall(b"%x\r\n%s\r\n" % (len(largest) + 1, largest + b" "))
        assert status(sock) == 413
    assert asked(server) == 1


def test_a_head_that_goes_on_and_on_is_refused(server: Supervised) -> None:
    with connect(server) as sock:
        sock.sendall(head(server, x_long="x" * (2 * LARGEST_HEAD))[:-2])
        assert status(sock) in (0, 400)
    assert asked(server) == 0


BOMBS = [
    b"[" * 60_000, b"[" * 30_000 + b"]" * 30_000, b'{"a":' * 10_000, b'{"jsonrpc": "2.0", "id": 1' + b"0" * 10_000 + b"}",
    b"[" + ASK + b"," + ASK + b"]", b'{"jsonrpc":"2.0","method":"tools/call","params":{}}', b"null", b"\xff\xfe", b"", b"\x00",
    call("pipelock-block", {"hosts": ["\ud800"], "reason": "x"}), body("tools/call", {"name": "pipelock-block", "arguments": []}),
    body("tools/call", {"name": ["x"]}), body("tools/call"), body("x" * 50_000),
    call("pipelock-block", {"hosts": ["a.example.org"], "reason": ["x"]}),
]  # fmt: skip


@pytest.mark.parametrize("version", ["2025-11-25", MODERN, "1999-01-01", "x" * 300])
@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_what_is_no_call_asks_nobody(server: Supervised, bomb: bytes, version: str) -> None:
    with post(server, bomb, mcp_protocol_version=version) as sock:
        assert status(sock) in (200, 202, 400, 404, 406, 500)
    assert asked(server) == 0


def test_a_request_that_comes_slowly_is_ended(server: Supervised) -> None:
    whole = head(server, length=len(ASK)) + ASK
    for part in (whole[:10], whole[:-10]):
        with connect(server) as sock:
            sock.sendall(part)
            assert read_until(sock) == b""
    with connect(server) as sock:  # nor does it help to go on sending a little, or to send nothing
        assert read_until(sock) == b""
        over = threading.Event()
        with connect(server) as other:
            threading.Thread(target=drip, args=(other, whole[:-1], over)).start()
            assert read_until(other) == b""
            over.set()
    assert asked(server) == 0


def drip(sock: socket.socket, content: bytes, over: threading.Event) -> None:
    for at in range(len(content)):
        if over.wait(0.05):
            return
        try:
            sock.sendall(content[at : at + 1])
        except OSError:
            return


def test_a_connection_that_is_kept_is_bound_to_the_same_patience(server: Supervised) -> None:
    with post(server) as sock:
        assert status(sock) == 200
        read_until(sock, lambda heard: heard.endswith(b"0\r\n\r\n"))
        over = threading.Event()
        threading.Thread(target=drip, args=(sock, head(server, length=len(ASK)), over)).start()
        assert read_until(sock) == b""
        over.set()


def test_a_client_that_does_not_read_is_ended(server: Supervised) -> None:
    usual = server.desk.policy["allowed"]
    server.desk.policy["allowed"] = ["https api.example.org " + "x" * 400] * 150
    content = call("policy", {})
    with connect(server) as sock:
        sock.sendall((head(server, length=len(content)) + content) * 400)
        until(lambda: is_ended(sock))
    server.desk.policy["allowed"] = usual


def is_ended(sock: socket.socket) -> bool:
    try:
        sock.send(b"x", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def test_one_connection_too_many_is_refused_and_those_that_are_there_stay() -> None:
    with Supervised(timing=Timing(request=60.0)) as server:
        pid = server.wait_ready()
        before = memory(pid)
        server.desk.present = False
        held = [connect(server) for _ in range(MOST_CONNECTIONS)]
        try:
            many = [connect(server) for _ in range(300)]
            assert sum(status(sock) == 0 for sock in many) == len(many)
            first = held[0]
            first.sendall(head(server, length=len(ASK)) + ASK)
            assert status(first) == 200
            assert memory(pid) - before < 20 * 1024
        finally:
            for sock in held + many:
                sock.close()
        ask(server)


def test_fifty_calls_wait_at_once_in_little_memory_and_all_are_answered() -> None:
    with Supervised(timing=Timing(progress=0.2)) as server:
        pid = server.wait_ready()
        before = memory(pid)
        waiting = [post(server) for _ in range(50)]
        until(lambda: server.desk.waiting == 50)
        assert memory(pid) - before < 16 * 1024
        server.decide("applied")
        for sock in waiting:
            heard = read_until(sock, lambda said: b'"status":"applied"' in said)
            assert b'"status":"applied"' in heard
            sock.close()


def test_more_calls_than_may_wait_are_told_so() -> None:
    with Supervised() as server:
        server.wait_ready()
        waiting = [post(server) for _ in range(64)]
        until(lambda: server.desk.waiting == 64)
        with post(server) as sock:
            said = read_until(sock, lambda heard: b"too many calls" in heard)
        assert b'"isError":true' in said
        assert len(server.desk.asked("ask")) == 64
        for each in waiting:
            each.close()
        until(lambda: not server.desk.waiting)


def test_identity_comes_from_the_token_and_not_from_what_is_said(server: Supervised) -> None:
    """Whatever a call says of another run, only its arguments and its tool reach the keeper."""
    params: dict[str, Any] = {
        "name": "pipelock-block",
        "arguments": {"hosts": ["a.example.org"], "reason": "x"},
        "_meta": {"run": "another", "client_id": "operator"},
        "run": "another",
    }
    with post(server, body("tools/call", params), x_run="another", x_forwarded_for="1.2.3.4") as sock:
        assert status(sock) == 200
    until(lambda: asked(server) == 1)
    (ask,) = server.desk.asked("ask")
    assert set(ask) == {"ask", "tool", "arguments"}
    assert "another" not in json.dumps(ask)
