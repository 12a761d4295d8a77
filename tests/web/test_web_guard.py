"""Nobody gets past the door of the page: other pages, other names, other users, and who has half of a session's secrets."""

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from bot_bottle.errors import HostError
from bot_bottle.testing.desk import FakeDesk
from bot_bottle.web import guard
from bot_bottle.web.access import SESSIONS, WRONG_TRIES
from bot_bottle.web.app import Page, make_app
from bot_bottle.web.asked import BODY_BYTES
from bot_bottle.web.live import STREAMS_EACH
from bot_bottle.web.server import Service
from support.waiting import wait_for
from web.client import Client, parsed, received

OPEN = {
    "/",
    "/session",
    *(f"/static/{path.name}" for path in Path(guard.__file__).with_name("static").glob("*.[cjs]*")),
}


def routes() -> list[tuple[str, str]]:
    """Method and path of everything that the application answers."""
    app = make_app(Page(None, None, None, None, "c", lambda: None), hosts=frozenset())._app  # type: ignore[arg-type]
    assert isinstance(app, Starlette)
    assert all(isinstance(route, Route) for route in app.routes)
    return [(method, route.path) for route in app.routes for method in route.methods - {"HEAD"}]


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_handler_authenticates_but_the_empty_page_and_the_exchange_of_a_link(
    method, path, stranger, client
):
    headers = {"origin": f"http://{stranger.host}", "content_type": "application/json"}
    body = b"{}" if method == "POST" else b""
    expected = {"/session": 400}.get(path, 200) if path in OPEN else 401
    assert stranger.send(method, path, body, headers).status == expected
    if path not in OPEN:
        half = Client(client.port, client.name)
        half.cookie = client.cookie
        assert half.send(method, path, body, headers).status == 401, "the cookie alone is not enough"
        assert (
            half.send(method, path, body, headers | {"x_inbox_key": client.key, "cookie": None}).status == 401
        )


def test_what_the_application_does_not_know_is_closed_too(stranger):
    for path in (
        "/api/other",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/",
        "//session",
        "/docs",
        "/api",
    ):
        assert stranger.get(path).status == 401


def test_what_is_open_is_the_same_for_everybody_and_holds_nothing(stranger, desk, service):
    desk.ask("secret-project.example.org")
    for path in OPEN - {"/session"}:
        body = stranger.get(path).body.decode()
        assert "secret-project" not in body
        assert not re.search(
            r"https?://(?!www\.w3\.org)|\bstyle=|\son\w+=|<script(?! type=\"module\" src=)", body
        ), path


def test_every_answer_has_the_headers_that_keep_other_pages_out(client, stranger):
    answers = [
        stranger.get("/"),
        stranger.get("/nothing"),
        client.get("/nothing"),
        client.post("/api/look", {"ids": ["p9"]}),
    ]
    answers += [
        stranger.get("/", host="evil.example"),
        client.post("/api/look", b"{"),
        stranger.get("/static/main.js"),
    ]
    assert [answer.status for answer in answers] == [200, 401, 404, 404, 421, 400, 200]
    for answer in answers:
        policy = answer.header("content-security-policy")
        for part in (
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ):
            assert part in policy.split("; ")
        assert "unsafe" not in policy
        assert answer.header("cache-control") == "no-store"
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "no-referrer"
        assert answer.header("cross-origin-resource-policy") == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.header("server") == ""


def test_the_cookie_is_for_this_page_alone(service, stranger):
    cookie = stranger.sign_in(service.link()).header("set-cookie")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "domain" not in cookie.lower()
    assert "max-age" not in cookie.lower()
    assert "expires" not in cookie.lower()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil.example", "localhost:{port} ",
     "LOCALHOST:{port}", "localhost.:{port}", "inbox-0.localhost:{port}", "0.0.0.0:{port}", "[::1]:{port}", "127.1:{port}",
     "2130706433:{port}", "localhost:{port}@evil.example", "", "x.{name}:{port}", "{name}"],
)  # fmt: skip
def test_a_name_that_is_not_exactly_ours_gets_nothing(client, host):
    """A name of somebody's own that resolves to loopback (DNS rebinding) is one of these."""
    host = host.format(port=client.port, name=client.name)
    if host.strip() == f"localhost:{client.port}":
        return  # HTTP leaves spaces around a value out
    for answer in (
        client.get("/", host=host),
        client.post("/api/approve", {"approvals": []}, host=host, origin=f"http://{host}"),
    ):
        assert answer.status in (400, 421)


def test_two_hosts_or_none_get_nothing(client):
    assert (
        client.raw(f"GET / HTTP/1.1\r\nHost: {client.host}\r\nHost: evil.example\r\n\r\n".encode()).status
        == 400
    )
    assert client.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").status == 400
    assert client.raw(b"GET / HTTP/1.0\r\n\r\n").status == 421
    assert (
        client.raw(f"GET http://{client.host}/ HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode()).status
        == 400
    )


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_loopback_names_work_for_browsers_that_know_no_names_of_ours(service, name):
    """With an ssh tunnel from a phone, for one."""
    client = Client(service.port, name)
    assert client.sign_in(service.link()).status == 200
    assert client.post("/api/history", {}).status == 200


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://{host}", "http://127.0.0.1:{port}", "http://{name}:1", "http://{host}.evil"],
)  # fmt: skip
def test_what_changes_something_has_to_come_from_our_own_page(client, desk, origin):
    """Another server on this machine has the same host, and its pages count as the same site: the port tells them apart."""
    name = desk.ask("a.example.org")
    if origin is not None:
        origin = origin.format(host=client.host, port=client.port, name=client.name)
    assert client.post("/api/reject", {"ids": [name]}, origin=origin).status == 403
    assert desk.rejections == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "same-origin, cross-site", ""])
def test_a_browser_that_says_that_another_page_asks_is_believed(client, desk, site):
    name = desk.ask("a.example.org")
    assert client.post("/api/reject", {"ids": [name]}, sec_fetch_site=site).status == 403
    assert client.get("/api/events", sec_fetch_site=site).status == 403
    assert client.get("/static/main.js", sec_fetch_site=site).status == 403
    assert desk.rejections == []


def test_the_link_may_be_opened_from_anywhere_but_not_in_a_frame(stranger):
    seen = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert stranger.get("/", **seen, sec_fetch_dest="document").status == 200
    for dest in ("iframe", "embed", "object", "empty", ""):
        assert stranger.get("/", **seen, sec_fetch_dest=dest).status == 403


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; x",
    ],
)
def test_what_a_form_could_send_is_no_decision(client, desk, kind):
    name = desk.ask("a.example.org")
    assert client.post("/api/reject", {"ids": [name]}, content_type=kind).status == 415
    assert desk.rejections == []


def test_nothing_is_decided_by_looking(client, desk):
    name = desk.ask("a.example.org")
    for path in ("approve", "reject", "withdraw", "leave", "look"):
        for method in ("GET", "HEAD", "PUT", "OPTIONS", "TRACE"):
            headers = {"origin": f"http://{client.host}", "content_type": "application/json"}
            assert client.send(method, f"/api/{path}?ids={name}", b"", headers).status == 405
    assert desk.approvals == desk.rejections == []


def test_a_used_link_gets_nobody_in(service, stranger):
    link = service.link()
    assert stranger.sign_in(link).status == 200
    assert Client(service.port, service.name).sign_in(link).status == 403


def test_of_many_who_use_one_link_at_once_one_gets_in(service):
    link = service.link()
    statuses = []
    barrier = threading.Barrier(12)

    def try_it() -> None:
        barrier.wait()
        statuses.append(Client(service.port, service.name).sign_in(link).status)

    threads = [threading.Thread(target=try_it) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [403] * 11


def test_guessing_ends_with_every_link_and_the_operator_is_told(service, stranger):
    link = service.link()
    for _ in range(WRONG_TRIES):
        assert stranger.post("/session", {"key": "A" * 43}).status == 403
    assert stranger.sign_in(link).status == 403
    assert len([line for line in service.said if "wrong keys" in line]) == 1
    assert stranger.sign_in(service.link()).status == 200


def test_who_signed_out_is_out(client):
    assert client.post("/api/leave", {}).status == 200
    assert client.post("/api/history", {}).status == 401


def test_signing_out_ends_the_feed(client):
    with client.stream() as feed:
        wait_for(lambda: b"event: inbox" in feed.recv(65536), "the feed")
        assert client.post("/api/leave", {}).status == 200
        feed.settimeout(60)
        wait_for(lambda: feed.recv(65536).endswith(b"0\r\n\r\n"), "the end of the feed")


def test_a_body_is_bounded_whether_its_length_is_told_or_not(client, desk):
    large = b'{"ids": ["%s"]}' % desk.ask("a.example.org").encode() + b" " * BODY_BYTES
    assert client.post("/api/reject", large).status in (0, 413)
    headers = {
        "origin": f"http://{client.host}",
        "content_type": "application/json",
        "transfer_encoding": "chunked",
        "content_length": None,
    }
    chunks = (
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (large[:65536], large[65536:]))
        + b"0\r\n\r\n"
    )
    assert client.send("POST", "/api/reject", chunks, headers).status in (0, 413)
    assert desk.rejections == []
    assert client.post("/api/reject", large[:BODY_BYTES]).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"x-long: " + b"a" * 40_000,
        b"\r\n".join(b"x-%d: 1" % n for n in range(5000)),
        b"cookie: " + b";" * 30_000,
    ],
)
def test_a_head_is_bounded(client, head):
    data = (
        b"GET / HTTP/1.1\r\nConnection: close\r\nHost: " + client.host.encode() + b"\r\n" + head + b"\r\n\r\n"
    )
    assert client.raw(data).status in (0, 400, 431)
    assert client.post("/api/history", {}).status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'{"ids": []}', b'{"ids": [1]}', b'{"ids": ["../../x"]}', b'{"ids": ["p"], "more": 1}',
     b'{"ids": "p"}', b'{"ids": ["p"], "may_ask_again": "yes"}', b'{"ids": ["p"], "reason": "' + b"x" * 501 + b'"}', b"\xff\xfe",
     b'{"ids": ["\\ud800"]}', b"[" * 100_000, b'{"ids": [' + b",".join([b'"p"'] * 1025) + b"]}", b'{"ids": ["p\\u0000"]}'],
)  # fmt: skip
def test_a_body_that_the_page_would_not_send_is_refused(client, desk, body):
    assert client.post("/api/reject", body).status == 400
    assert desk.rejections == []


@pytest.mark.parametrize(
    "on",
    [{"scope": "forever"}, {"scope": "time", "minutes": 0}, {"scope": "time", "minutes": 9**9}, {"scope": "time", "minutes": 1.5}],
)  # fmt: skip
def test_terms_are_bounded(client, desk, on):
    name = desk.ask("a.example.org")
    assert (
        client.post(
            "/api/approve", {"approvals": [{"id": name, "digest": desk.show(name).digest, "on": on}]}
        ).status
        == 400
    )
    assert desk.approvals == []


def test_requests_can_not_be_smuggled_into_one_another(client, desk):
    name = desk.ask("a.example.org")
    inner = client.request(
        "POST", "/api/reject", b'{"ids": ["%s"]}' % name.encode(), {"origin": "http://evil.example"}
    )
    base = {"origin": f"http://{client.host}", "content_type": "application/json"}
    both = client.request("POST", "/api/history", inner, base | {"transfer_encoding": "chunked"})
    twice = client.request("POST", "/api/history", inner, base).replace(
        b"content-length", b"content-length: 2\r\ncontent-length", 1
    )
    assert client.raw(both).status == 400
    assert client.raw(twice).status == 400
    assert desk.rejections == []


def test_no_websocket_is_taken(client):
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec_websocket_version": "13",
        "sec_websocket_key": "a" * 22 + "==",
    }
    assert client.get("/api/events2", **headers).status == 404
    assert (
        client.raw(
            client.request("GET", "/", headers=dict(headers)).replace(b"Upgrade\r\n", b"Upgrade, close\r\n")
        ).status
        == 200
    )


def test_streams_are_bounded_and_what_is_left_still_answers(client):
    feeds = [client.stream() for _ in range(STREAMS_EACH)]
    try:
        for feed in feeds:
            wait_for(lambda feed=feed: b"event: inbox" in feed.recv(65536), "the feed")
        assert client.get("/api/events").status == 429
        assert client.post("/api/history", {}).status == 200
    finally:
        for feed in feeds:
            feed.close()
    wait_for(lambda: opened(client), "a stream to be free again")


def opened(client: Client) -> bool:
    with client.stream() as feed:
        return b"200 OK" in feed.recv(12 + 8)


def test_more_sessions_than_are_kept_end_the_oldest(service):
    clients = [Client(service.port, service.name) for _ in range(SESSIONS + 1)]
    for each in clients:
        assert each.sign_in(service.link()).status == 200
    assert [each.post("/api/history", {}).status for each in clients] == [401] + [200] * SESSIONS


def test_connections_that_say_nothing_end(client, monkeypatch):
    monkeypatch.setattr("bot_bottle.web.connection.SILENT_SECONDS", 0.2)
    with client.connect() as silent, client.connect() as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert received(silent) == b""
        assert received(slow) == b""


def test_it_listens_on_loopback_only_and_on_both_of_its_addresses(service):
    listening = subprocess.run(
        ["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True, check=True
    ).stdout
    port = f"{service.port:04X}"
    ends = {
        parts[1]
        for parts in map(str.split, listening.splitlines())
        if parts[1].endswith(f":{port}") and parts[3] == "0A"
    }
    assert ends <= {f"0100007F:{port}", f"{'0' * 24}01000000:{port}"}
    assert f"0100007F:{port}" in ends


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "0.0.0.0")],
)
def test_a_port_that_is_somebody_elses_on_either_address_is_not_taken(family, address):
    """Browsers try both for a name of loopback: whoever had the other one would be sent the link's key."""
    with socket.socket(family, socket.SOCK_STREAM) as theirs:
        try:
            theirs.bind((address, 0))
        except OSError:
            pytest.skip("there is no IPv6 loopback")
        theirs.listen()
        port = theirs.getsockname()[1]
        with pytest.raises(HostError) as raised:
            Service(FakeDesk, port=port, announce=print)
        assert "--port" in raised.value.resolution


AS_SOMEBODY = """
import os, socket, sys
os.setresgid(29001, 29001, 29001); os.setresuid(29001, 29001, 29001)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as connection:
    try:
        connection.sendall(sys.stdin.buffer.read())
        data = connection.recv(100)
    except (ConnectionResetError, BrokenPipeError):
        data = b""
print(data)
"""


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_another_user_of_this_machine_gets_not_a_byte_even_with_a_good_link(service, address):
    client = Client(service.port, service.name)
    body = b'{"key": "%s"}' % service.link().partition("#key=")[2].encode()
    request = client.request(
        "POST", "/session", body, {"origin": f"http://{client.host}", "content_type": "application/json"}
    )
    done = subprocess.run(
        [sys.executable, "-c", AS_SOMEBODY, address, str(service.port)],
        input=request,
        capture_output=True,
        check=False,
        cwd="/",
    )
    assert done.stdout.strip() == b"b''", done.stderr
    wait_for(lambda: [line for line in service.said if "uid 29001" in line], "the operator to be told")
    assert len([line for line in service.said if "29001" in line]) == 1


@pytest.mark.root
def test_the_page_of_who_became_root_by_sudo_takes_their_browser(monkeypatch):
    from bot_bottle.web.connection import allowed_users

    monkeypatch.setenv("SUDO_UID", "1234")
    assert allowed_users() == {0, 1234}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert allowed_users() == {0, 1000}


def test_the_key_stands_in_no_request_line(service):
    """What is behind the `#` stays in the browser, so no log and no Referer has it."""
    link = service.link()
    assert link.startswith(f"http://{service.name}:{service.port}/#key=")
    assert parsed(b"HTTP/1.1 200 OK\r\n\r\n").status == 200
