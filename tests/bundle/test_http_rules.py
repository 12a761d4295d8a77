"""The rules of a plain HTTP route: each request is held to them, and what they refuse never reaches the upstream."""

import json
import socket
from collections.abc import Iterator

import pytest

from bot_bottle.policy.model import EgressPolicy, HeaderMatch
from tests.bundle.harness import Bundle, Holder, Server, read_head, read_response, served

PROXY = ("127.0.0.1", 3128)


class Listening:
    """A server that remembers the request lines that reached it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.server = Server(self._serve)

    def _serve(self, sock: socket.socket) -> None:
        while True:
            try:
                head, _ = read_head(sock)
            except ConnectionError:
                return
            self.lines.append(head.split(b"\r\n")[0].decode())
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture(scope="module")
def bottle() -> Iterator[tuple[Holder, Bundle, Listening]]:
    listening = Listening()
    docs, team, open_ = (listening.server.http(host) for host in ("docs.test", "team.test", "open.test"))
    policy = EgressPolicy(
        (
            docs._replace(methods=("GET", "HEAD"), paths=("/3/**",)),
            docs._replace(methods=("POST",), paths=("/search",)),
            team._replace(headers=(HeaderMatch("x-team", "bots-*"),)),
            open_,
            open_._replace(methods=("GET",), paths=("/v1/**",)),
        )
    )
    with served(policy) as (holder, bundle):
        yield holder, bundle, listening
    listening.server.close()


def ask(sock: socket.socket, method: str, url: str, *headers: str) -> tuple[int, bytes]:
    host = url.split("/")[2]
    lines = [f"{method} {url} HTTP/1.1", f"Host: {host}", *headers, "", ""]
    sock.sendall("\r\n".join(lines).encode())
    head, body = read_response(sock)
    return int(head.split()[1]), body


def test_each_request_of_a_connection_is_held_to_the_rules(bottle: tuple[Holder, Bundle, Listening]) -> None:
    holder, bundle, listening = bottle
    listening.lines.clear()
    with holder.connect(*PROXY) as sock:
        said = [
            ask(sock, method, f"http://docs.test{path}")[0]
            for method, path in (
                ("GET", "/3/library"), ("GET", "/2/"), ("POST", "/3/x"), ("POST", "/search"), ("GET", "/search"),
                ("GET", "/3/%2e%2e/2/"), ("GET", "/3/..;/2"), ("GET", "/3//2"), ("GET", "/3/a%2fb"), ("GET", "/3/%61?q=/../"),
            )
        ]  # fmt: skip
    assert said == [200, 403, 403, 200, 403, 403, 403, 403, 403, 200]
    assert listening.lines == [
        "GET /3/library HTTP/1.1",
        "POST /search HTTP/1.1",
        "GET /3/%61?q=/../ HTTP/1.1",
    ]
    assert bundle.event("egress.allowed", host="docs.test", path="/3/a")["method"] == "GET"
    bundle.event("egress.refused", host="docs.test", method="POST", path="/3/x", reason="path_not_allowed")
    bundle.event("egress.refused", path="/3/%2e%2e/2/", reason="bad_path")


@pytest.mark.parametrize("way", ["transparent", "inside CONNECT"])
def test_the_rules_hold_on_every_way_in(bottle: tuple[Holder, Bundle, Listening], way: str) -> None:
    holder, _, listening = bottle
    listening.lines.clear()
    with holder.connect(*PROXY) if way == "inside CONNECT" else holder.connect("127.7.7.7", 80) as sock:
        if way == "inside CONNECT":
            sock.sendall(b"CONNECT docs.test:80 HTTP/1.1\r\nHost: docs.test:80\r\n\r\n")
            assert b" 200 " in read_head(sock)[0]
        for path, status in (("/3/a", 200), ("/2/a", 403), ("/3/b", 200)):
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: docs.test\r\n\r\n".encode())
            assert int(read_response(sock)[0].split()[1]) == status
    assert listening.lines == ["GET /3/a HTTP/1.1", "GET /3/b HTTP/1.1"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["X-Team: bots-7"], 200),
        ([], 403),
        (["X-Team: people"], 403),
        (["X-Team: bots-7", "X-Team: people"], 403),
        (["X-Team: bots-7", "X_Team: people"], 403),
        (["X-Team: bots-7", "Connection: x-team"], 403),
    ],
    ids=[
        "it",
        "none",
        "another",
        "two",
        "two to servers that make variables of them",
        "one that does not go on",
    ],
)
def test_only_a_header_that_the_upstream_will_see_counts(
    bottle: tuple[Holder, Bundle, Listening], headers: list[str], status: int
) -> None:
    with bottle[0].connect(*PROXY) as sock:
        assert ask(sock, "GET", "http://team.test/", *headers)[0] == status


def test_no_header_makes_another_request_of_it(bottle: tuple[Holder, Bundle, Listening]) -> None:
    holder, bundle, listening = bottle
    listening.lines.clear()
    with holder.connect(*PROXY) as sock:
        assert ask(sock, "POST", "http://docs.test/search", "X-HTTP-Method-Override: DELETE")[0] == 403
        assert ask(sock, "GET", "http://docs.test/3/", "X-Original-URL: /admin")[0] == 403
    assert listening.lines == []
    bundle.event("egress.refused", reason="override_not_allowed")


def test_a_route_without_rules_beside_one_with_rules_allows_all_of_the_host(
    bottle: tuple[Holder, Bundle, Listening],
) -> None:
    with bottle[0].connect(*PROXY) as sock:
        assert ask(sock, "DELETE", "http://open.test/any/../thing")[0] == 200
        assert ask(sock, "GET", "http://open.test/v1/x")[0] == 200


def test_a_refusal_says_which_line_would_allow_just_this(bottle: tuple[Holder, Bundle, Listening]) -> None:
    with bottle[0].connect(*PROXY) as sock:
        status, body = ask(sock, "PUT", "http://docs.test/4/x?key=1")
    said = json.loads(body)
    assert status == 403
    assert said["what"] == {
        "host": "docs.test",
        "port": 80,
        "protocol": "http",
        "method": "PUT",
        "path": "/4/x",
    }
    assert said["reason"] == "method_not_allowed"
    assert said["ask"] == {
        "tool": "pipelock-block",
        "with": {"urls": ["http://docs.test/4/x"], "methods": ["PUT"]},
    }
    assert said["operator"].endswith('- {host: docs.test, protocol: http, methods: [PUT], paths: ["/4/x"]}')


def test_a_request_that_no_line_could_allow_is_told_none(bottle: tuple[Holder, Bundle, Listening]) -> None:
    with bottle[0].connect(*PROXY) as sock:
        said = json.loads(ask(sock, "GET", "http://docs.test/3/../x")[1])
    assert (said["reason"], "ask" in said, "operator" in said) == ("bad_path", False, False)
