"""The proxy's own port, with real sockets, curl and node."""

import json
import shutil
import socket
from collections.abc import Iterator

import pytest

from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_head, read_response, served

PROXY = ("127.0.0.1", 3128)


def answer_each_request(sock: socket.socket) -> None:
    """Says back, as the body, the head that came."""
    rest = b""
    while True:
        try:
            head, rest = read_head(sock)
        except ConnectionError:
            return
        assert not rest
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


@pytest.fixture(scope="module")
def bottle() -> Iterator[tuple[Holder, Bundle, Server]]:
    server = Server(answer_each_request)
    policy = EgressPolicy(
        routes=(server.http("ok.test"), server.http("*.wild.test"), Route(host="tls.test", port=443))
    )
    with served(policy) as (holder, bundle):
        yield holder, bundle, server
    server.close()


def test_an_allowed_request_reaches_its_upstream_written_anew(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, bundle, _ = bottle
    with holder.connect(*PROXY) as sock:
        sock.sendall(
            b"GET http://OK.test:80/a?b HTTP/1.1\r\nHost: ok.TEST\r\nX-Kept: 1\r\nProxy-Connection: keep-alive\r\n"
            b"Connection: x-dropped\r\nX-Dropped: 2\r\n\r\n"
        )
        _, body = read_response(sock)
    assert body == b"GET /a?b HTTP/1.1\r\nhost: ok.test\r\nx-kept: 1\r\n\r\n"
    assert bundle.event("egress.allowed", via="proxy", host="ok.test")["path"] == "/a"


def test_each_request_of_one_connection_is_judged(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, bundle, _ = bottle
    with holder.connect(*PROXY) as sock:
        for host, status in (("ok.test", 200), ("evil.test", 403), ("a.wild.test", 200), ("wild.test", 403)):
            sock.sendall(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head, _ = read_response(sock)
            assert head.startswith(b"HTTP/1.1 %d " % status), host
    bundle.event("egress.refused", host="evil.test", reason="host_not_allowed")


def test_a_refusal_says_what_why_and_how_to_ask(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, _, _ = bottle
    asked = holder.run(["curl", "-sS", "-x", "http://127.0.0.1:3128", "http://evil.test:8080/x"])
    assert json.loads(asked.stdout) == {
        "error": "refused",
        "what": {"host": "evil.test", "port": 8080, "protocol": "http", "method": "GET", "path": "/x"},
        "reason": "host_not_allowed",
        "message": "This host is not in the bottle's egress policy.",
        "ask": {"tool": "pipelock-block", "with": {"hosts": ["evil.test"], "protocol": "http", "port": 8080}},
        "operator": "A person allows this in the bottle's file test.md, under `egress:`, `routes:`, with the"
        " line: - {host: evil.test, port: 8080, protocol: http}",
    }


def test_a_refused_connect_says_so_in_its_status_line(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, bundle, _ = bottle
    asked = holder.run(["curl", "-sSv", "-x", "http://127.0.0.1:3128", "https://refused.test/"])
    assert asked.returncode == 56
    assert b"HTTP/1.1 403 Refused by bot-bottle: host_not_allowed" in asked.stderr
    bundle.event("egress.refused", via="connect", host="refused.test", port=443)


def test_an_http_route_opens_no_tls_and_the_other_way_round(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, _, _ = bottle
    for line, reason in (
        (b"CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n\r\n", b"port_not_allowed"),
        (b"GET http://tls.test:443/ HTTP/1.1\r\nHost: tls.test:443\r\n\r\n", b"protocol_not_allowed"),
    ):
        with holder.connect(*PROXY) as sock:
            sock.sendall(line)
            assert reason in read_head(sock)[0]


def test_plain_http_inside_connect_is_judged_request_by_request(
    bottle: tuple[Holder, Bundle, Server],
) -> None:
    holder, _, _ = bottle
    with holder.connect(*PROXY) as sock:
        sock.sendall(b"CONNECT ok.test:80 HTTP/1.1\r\nHost: ok.test:80\r\n\r\n")
        assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"GET /inside HTTP/1.1\r\nHost: ok.test\r\n\r\n")
        assert read_response(sock)[1].startswith(b"GET /inside ")
        sock.sendall(b"GET /inside HTTP/1.1\r\nHost: a.wild.test\r\n\r\n")
        assert b"name_mismatch" in read_all_of_refusal(sock)


def read_all_of_refusal(sock: socket.socket) -> bytes:
    head, body = read_response(sock)
    return head + body


def test_a_request_that_is_for_no_proxy_is_refused(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, _, _ = bottle
    with holder.connect(*PROXY) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n")
        assert b"bad_target" in read_all(sock)


def test_transparent_http_goes_by_host_and_the_address_that_stands_for_it(
    bottle: tuple[Holder, Bundle, Server],
) -> None:
    holder, _, _ = bottle
    plain = holder.run(["curl", "-sS", "http://ok.test/plain"])
    assert plain.stdout.startswith(b"GET /plain HTTP/1.1\r\nhost: ok.test\r\n"), plain
    crossed = holder.run(["curl", "-sS", "-H", "Host: a.wild.test", "http://ok.test/"])
    assert json.loads(crossed.stdout)["reason"] == "name_mismatch"
    by_address = holder.run(["curl", "-sS", "-H", "Host: ok.test", "http://192.0.2.7/far"])
    assert by_address.stdout.startswith(b"GET /far HTTP/1.1\r\nhost: ok.test\r\n")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_is_held_to_the_policy_without_proxy_variables(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, _, _ = bottle
    code = "fetch(process.argv[1]).then(async r => console.log(r.status, await r.text())).catch(e => console.log(e.cause.code))"
    assert b"200 GET /n HTTP/1.1" in holder.run(["node", "-e", code, "http://ok.test/n"]).stdout
    assert b"ENOTFOUND" in holder.run(["node", "-e", code, "http://evil.test/n"]).stdout
