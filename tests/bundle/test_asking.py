"""What waits for a person at the proxy, on every path: let go by a policy that allows it, refused by everything else."""

import base64
import contextlib
import hashlib
import json
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.door.model import listeners_for
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from tests.bundle.conftest import Certificate
from tests.bundle.h2peers import Client
from tests.bundle.harness import Bundle, Holder, Server, read_head, read_response, served, until
from tests.bundle.hellos import client_hello
from tests.bundle.opened import opened
from tests.bundle.test_http2 import Recorder
from tests.bundle.test_policy_change import answer, echo, put, resolve, status, tunnel

PROXY = ("127.0.0.1", 3128)
ASK = ("ask.test", "*.wild.test")


@pytest.fixture(scope="module")
def web() -> Iterator[Server]:
    server = Server(answer)
    yield server
    server.close()


def held(bundle: Bundle, **what: Any) -> int:
    """The number of the question that the bundle puts."""
    message = bundle.hear(lambda one: "hold" in one and what.items() <= one.items())
    number = message["hold"]
    assert isinstance(number, int)
    return number


def release(bundle: Bundle, number: int, *, passes: bool, reason: str = "") -> None:
    bundle.tell({"release": number, "pass": passes, "reason": reason})


def granted(policy: EgressPolicy, *routes: Route) -> EgressPolicy:
    return policy._replace(routes=(*policy.routes, *routes))


def get(host: str, path: str = "/") -> bytes:
    return f"GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def refusal(sock: socket.socket) -> dict[str, Any]:
    head, body = read_response(sock)
    assert head.startswith(b"HTTP/1.1 403 "), head
    said = json.loads(body)
    assert isinstance(said, dict)
    return said


def test_a_request_waits_and_passes_once_a_policy_allows_it(web: Server) -> None:
    policy = EgressPolicy(ask=ASK)
    with served(policy, supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall(get("ask.test", "/some"))
        message = bundle.hear(lambda one: "hold" in one)
        assert message == {
            "hold": 1, "kind": "request", "host": "ask.test", "port": 80, "protocol": "http", "method": "GET",
            "path": "/some", "detector": "", "place": "", "fingerprint": "",
        }  # fmt: skip
        put(bundle, granted(policy, web.http("ask.test")))
        assert read_response(sock)[1] == b"ok"
        bundle.event("egress.allowed", host="ask.test", path="/some")


def test_a_yes_without_a_policy_that_allows_it_is_none(web: Server) -> None:
    policy = EgressPolicy(routes=(web.http("ask.test", 81),), ask=ASK)
    before = web.accepted
    with served(policy, supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall(get("ask.test"))
        release(bundle, held(bundle), passes=True)
        assert refusal(sock)["reason"] == "held_failed"
        assert web.accepted == before


@pytest.mark.parametrize("reason", ["held_rejected", "held_expired", "held_absent"])
def test_a_no_is_said_with_its_reason_and_how_to_ask(reason: str) -> None:
    with served(EgressPolicy(ask=ASK), supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall(get("ask.test", "/some"))
        release(bundle, held(bundle), passes=False, reason=reason)
        said = refusal(sock)
        assert said["reason"] == reason
        assert said["ask"] == {"tool": "pipelock-block", "with": {"hosts": ["ask.test"], "protocol": "http"}}
        assert "- {host: ask.test, protocol: http}" in said["operator"]
        bundle.event("egress.refused", host="ask.test", reason=reason)
        sock.sendall(get("other.test"))  # the connection goes on
        assert refusal(sock)["reason"] == "host_not_allowed"


def test_who_has_waited_long_enough_is_refused() -> None:
    limits = BundleLimits(hold_seconds=0.3)
    with served(EgressPolicy(ask=ASK), supervised=True, limits=limits) as (holder, bundle):
        with holder.connect(*PROXY) as sock:
            sock.sendall(get("a.wild.test"))
            number = held(bundle)
            assert refusal(sock)["reason"] == "held_expired"
        assert bundle.hear(lambda one: "unhold" in one)["unhold"] == number


def test_the_keeper_hears_when_the_agent_goes_away() -> None:
    with served(EgressPolicy(ask=ASK), supervised=True) as (holder, bundle):
        with holder.connect(*PROXY) as sock:
            sock.sendall(get("ask.test"))
            number = held(bundle)
        assert bundle.hear(lambda one: "unhold" in one)["unhold"] == number
        bundle.event("egress.refused", host="ask.test", reason="held_left")


def test_without_anybody_to_ask_nothing_waits() -> None:
    with served(EgressPolicy(ask=ASK)) as (holder, bundle):
        assert status(holder, "ask.test") == 403
        bundle.event("egress.refused", host="ask.test", reason="host_not_allowed")
        assert not [one for one in bundle.messages if "hold" in one]


def test_a_no_that_nobody_knows_is_a_no() -> None:
    with served(EgressPolicy(ask=ASK), supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall(get("ask.test"))
        bundle.tell({"release": held(bundle), "pass": 1, "reason": "allowed"})
        assert refusal(sock)["reason"] == "held_failed"


# Every path

Ask = Callable[[Holder], tuple[socket.socket, bytes]]
"""Sends what has to wait; the socket, and what comes on it once it was let go."""


def by_connect(holder: Holder) -> tuple[socket.socket, bytes]:
    sock = holder.connect(*PROXY)
    sock.sendall(b"CONNECT ask.test:443 HTTP/1.1\r\nHost: ask.test:443\r\n\r\n")
    return sock, b"HTTP/1.1 200 "


def by_hello(holder: Holder) -> tuple[socket.socket, bytes]:
    address = resolve(holder, "ask.test")
    assert address is not None
    sock = holder.connect(address, 443)
    hello = client_hello("ask.test")
    sock.sendall(hello)
    return sock, hello


def by_host(holder: Holder) -> tuple[socket.socket, bytes]:
    sock = holder.connect(str(resolve(holder, "ask.test")), 80)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: ask.test\r\n\r\n")
    return sock, b"HTTP/1.1 200 OK"


def by_plain_connect(holder: Holder) -> tuple[socket.socket, bytes]:
    sock = holder.connect(*PROXY)
    sock.sendall(b"CONNECT ask.test:80 HTTP/1.1\r\nHost: ask.test\r\n\r\n")
    return sock, b"HTTP/1.1 200 "


def by_address(holder: Holder) -> tuple[socket.socket, bytes]:
    sock = holder.connect(str(resolve(holder, "ask.test")), 5432)
    sock.sendall(b"hello")
    return sock, b"hello"


@pytest.fixture(scope="module")
def echoing() -> Iterator[Server]:
    server = Server(echo)
    yield server
    server.close()


WAYS: dict[str, tuple[Ask, str, int, str]] = {
    "CONNECT": (by_connect, "https", 443, "CONNECT"),
    "TLS": (by_hello, "https", 443, "TLS"),
    "plain HTTP": (by_host, "http", 80, "HTTP"),
    "plain HTTP in a tunnel": (by_plain_connect, "http", 80, "CONNECT"),
    "tcp on a port that is served": (by_address, "tcp", 5432, "TCP"),
}


def there(server: Server, web: Server, protocol: str, port: int) -> Route:
    upstream = (web if protocol == "http" else server).upstream()
    return Route("ask.test", port, protocol, upstream)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
def test_it_waits_on_every_way_and_goes_on(way: str, echoing: Server, web: Server) -> None:
    ask, protocol, port, _ = WAYS[way]
    policy = EgressPolicy(routes=(Route("db.test", 5432, "tcp", echoing.upstream()),), ask=ASK)
    with served(policy, supervised=True, listeners=listeners_for(policy)) as (holder, bundle):
        sock, first = ask(holder)
        with sock:
            message = bundle.hear(lambda one: "hold" in one)
            assert (message["host"], message["port"], message["protocol"]) == ("ask.test", port, protocol)
            put(bundle, granted(policy, there(echoing, web, protocol, port)))
            release(bundle, message["hold"], passes=True)
            got = b""
            while len(got) < len(first):
                got += sock.recv(len(first) - len(got))
            assert got == first


@pytest.mark.parametrize("way", WAYS)
def test_a_no_is_one_on_every_way(way: str, echoing: Server, web: Server) -> None:
    ask, protocol, port, _ = WAYS[way]
    policy = EgressPolicy(routes=(Route("db.test", 5432, "tcp", echoing.upstream()),), ask=ASK)
    before = echoing.accepted, web.accepted
    with served(policy, supervised=True, listeners=listeners_for(policy)) as (holder, bundle):
        sock, first = ask(holder)
        with sock:
            release(bundle, held(bundle), passes=False, reason="held_rejected")
            got = b""
            with contextlib.suppress(ConnectionResetError):
                while (part := sock.recv(1000)) and b"\r\n\r\n" not in got + part:
                    got += part
                got += part
            assert not got.startswith(first)
            assert got.startswith(b"HTTP/1.1 403 Refused by bot-bottle: held_rejected") or protocol != "http"
        data = bundle.event("egress.refused", reason="held_rejected")
        assert (data["host"], data["port"], data["protocol"]) == ("ask.test", port, protocol)
    assert (echoing.accepted, web.accepted) == before


def test_it_waits_inside_tls_and_on_one_stream_of_many(certificate: Certificate, tmp_path: Path) -> None:
    upstream = Recorder(certificate)
    route = Route("ok.test", 443, upstream=upstream.server.upstream(), paths=("/a",))
    policy = EgressPolicy(routes=(route,), ask=("ok.test",))
    with opened(policy, certificate, tmp_path, supervised=True) as bottle:
        client, bundle = Client(bottle.connect("ok.test", "h2")), bottle.bundle
        waits = client.start(path="/b")
        number = held(bundle, method="GET", path="/b", protocol="https", host="ok.test")
        assert client.ask(path="/a").status == 200  # the others go on
        refused = client.start(path="/c")
        release(bundle, held(bundle, path="/c"), passes=False, reason="held_rejected")
        assert client.answer(refused).status == 403
        put(bundle, granted(policy, route._replace(paths=("/b",))))
        release(bundle, number, passes=True)
        assert client.answer(waits).status == 200
        left = client.start(path="/d")
        number = held(bundle, path="/d")
        client.h2.reset_stream(left)
        client.flush()
        assert bundle.hear(lambda one: one.get("unhold") == number)
        client.start(path="/e")
        number = held(bundle, path="/e")
        client.sock.close()
        assert bundle.hear(lambda one: one.get("unhold") == number)
    upstream.server.close()


# Changes of the policy, and what becomes of what waits


def test_any_change_that_allows_it_lets_it_go_and_its_question_is_taken_back(web: Server) -> None:
    policy = EgressPolicy(ask=ASK)
    with served(policy, supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall(get("a.wild.test"))
        number = held(bundle)
        put(bundle, granted(policy, web.http("other.test")))  # changes nothing for it
        put(bundle, granted(policy, web.http("*.wild.test")))
        assert read_response(sock)[1] == b"ok"
        assert bundle.hear(lambda one: "unhold" in one)["unhold"] == number


def test_a_policy_that_no_longer_asks_refuses_it() -> None:
    with served(EgressPolicy(ask=ASK), supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall(get("ask.test"))
        held(bundle)
        put(bundle, EgressPolicy(ask=("*.wild.test",)))
        assert refusal(sock)["reason"] == "host_not_allowed"


def test_a_yes_to_one_lets_nothing_else_go(web: Server) -> None:
    policy = EgressPolicy(ask=ASK)
    with served(policy, supervised=True) as (holder, bundle):
        with holder.connect(*PROXY) as one, holder.connect(*PROXY) as other:
            one.sendall(get("ask.test", "/one"))
            first = held(bundle, path="/one")
            other.sendall(get("ask.test", "/other"))
            second = held(bundle, path="/other")
            put(bundle, granted(policy, web.http("ask.test")._replace(paths=("/one",))))
            release(bundle, first, passes=True)
            assert read_response(one)[1] == b"ok"
            assert not bundle.events("egress.allowed") or all(
                event["path"] == "/one" for event in bundle.events("egress.allowed")
            )
            release(bundle, first, passes=True)  # again, for what waits no more
            release(bundle, second, passes=False, reason="held_rejected")
            assert refusal(other)["reason"] == "held_rejected"


def test_those_who_want_the_same_wait_for_one_answer(web: Server) -> None:
    policy = EgressPolicy(ask=ASK)
    with served(policy, supervised=True) as (holder, bundle), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(holder.connect(*PROXY)) for _ in range(4)]
        for sock in socks:
            sock.sendall(get("ask.test"))
        number = held(bundle)
        until(lambda: heard_held(bundle) == 4)
        socks.pop().close()  # one of them leaves, which ends nothing
        until(lambda: any(event["reason"] == "held_left" for event in refused(bundle)))
        put(bundle, granted(policy, web.http("ask.test")))
        release(bundle, number, passes=True)
        assert [read_response(sock)[1] for sock in socks] == [b"ok"] * 3
        assert len([one for one in bundle.messages if "hold" in one]) <= 1


def test_what_was_good_for_one_of_several_is_said_to_be_used_up_to_the_others(web: Server) -> None:
    policy = EgressPolicy(ask=ASK)
    with served(policy, supervised=True) as (holder, bundle), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(holder.connect(*PROXY)) for _ in range(3)]
        for sock in socks:
            sock.sendall(get("ask.test"))
        number = held(bundle)
        until(lambda: heard_held(bundle) == 3)
        put(bundle, granted(policy, web.http("ask.test")._replace(grant="g1", once=True)))
        release(bundle, number, passes=True)
        found = [read_response(sock) for sock in socks]
        assert sorted(head[:12] for head, _ in found) == [b"HTTP/1.1 200", b"HTTP/1.1 403", b"HTTP/1.1 403"]
        said = [json.loads(body) for head, body in found if b" 403 " in head[:13]]
        assert [each["reason"] for each in said] == ["held_used"] * 2
        assert "used that up" in said[0]["message"]


def heard_held(bundle: Bundle) -> int:
    figures(bundle)
    return sum(count for kind, _, count in figures(bundle)["decisions"] if kind == "egress.held")


def refused(bundle: Bundle) -> list[dict[str, Any]]:
    figures(bundle)
    return bundle.events("egress.refused")


def figures(bundle: Bundle) -> dict[str, Any]:
    bundle.messages = [one for one in bundle.messages if "stats" not in one]
    bundle.tell({"stats": True})
    stats = bundle.hear(lambda one: "stats" in one)["stats"]
    assert isinstance(stats, dict)
    return stats


def test_a_crowd_that_waits_harms_nobody_else(web: Server) -> None:
    """500 clients ask for 500 things: eight wait, the others are refused at once, and who is allowed goes on."""
    policy = EgressPolicy(routes=(web.http("one.test"),), ask=ASK)
    with served(policy, supervised=True) as (holder, bundle), contextlib.ExitStack() as stack:
        with holder.connect(*PROXY) as stream:
            stream.sendall(get("one.test", "/slow"))  # an answer that goes on meanwhile
            _, rest = read_head(stream)
            crowd = [stack.enter_context(holder.connect(*PROXY)) for _ in range(500)]
            for number, sock in enumerate(crowd):
                sock.sendall(get("ask.test", f"/{number}"))
            until(lambda: asked(bundle) == 8)
            waiting = 0
            for sock in crowd:
                sock.settimeout(None)
            poll = select.poll()
            for sock in crowd:
                poll.register(sock, select.POLLIN)
            until(lambda: len(poll.poll(0)) == 492)
            ready = {fd for fd, _ in poll.poll(0)}
            for sock in crowd:
                if sock.fileno() in ready:
                    assert refusal(sock)["reason"] == "held_crowded"
                else:
                    waiting += 1
            assert waiting == 8
            assert status(holder, "one.test") == 200
            while rest != b"first":
                rest += stream.recv(100)
            put(bundle, granted(policy, web.http("ask.test")))  # and nobody of them has to wait any more
            for sock in crowd:
                if sock.fileno() not in ready:
                    assert read_response(sock)[1] == b"ok"
            until(lambda: taken_back(bundle) == 8)


def taken_back(bundle: Bundle) -> int:
    figures(bundle)
    return len({one["unhold"] for one in bundle.messages if "unhold" in one})


def asked(bundle: Bundle) -> int:
    figures(bundle)
    return len([one for one in bundle.messages if "hold" in one])


def test_what_waits_ends_with_its_keeper(web: Server) -> None:
    with served(EgressPolicy(ask=ASK), supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall(get("ask.test"))
        held(bundle)
        bundle.line.close()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""


def test_what_could_not_be_read_or_allowed_is_not_asked_for() -> None:
    policy = EgressPolicy(routes=(Route("ask.test", 80, "http", paths=("/a",)),), ask=ASK)
    with served(policy, supervised=True) as (holder, bundle):
        for target, reason in (("/a/%2e%2e%2fb", "bad_path"), ("/" + "x" * 3000, "held_failed")):
            with holder.connect(*PROXY) as sock:
                sock.sendall(get("ask.test", target))
                assert refusal(sock)["reason"] == reason
        for host in ("192.0.2.1", "ask.test.", "xask.test", "wild.test", "ask.test.evil.test"):
            if host != "ask.test.":
                assert status(holder, host) == 403
        assert not asked(bundle)


def test_the_agents_dns_knows_what_may_be_asked_for_and_nothing_else() -> None:
    with served(EgressPolicy(ask=ASK), supervised=True) as (holder, bundle):
        assert resolve(holder, "ask.test")
        assert resolve(holder, "any.wild.test")
        assert resolve(holder, "other.test") is None
        assert not asked(bundle)


def test_what_waits_for_a_person_is_not_crowded_out_by_what_says_nothing() -> None:
    limits = BundleLimits(connections=4)
    with served(EgressPolicy(ask=ASK), supervised=True, limits=limits) as (holder, bundle):
        with holder.connect(*PROXY) as sock, contextlib.ExitStack() as stack:
            sock.sendall(get("ask.test"))
            number = held(bundle)
            for _ in range(8):
                stack.enter_context(holder.connect(*PROXY))
            bundle.event("egress.refused", reason="crowded_out")
            release(bundle, number, passes=False, reason="held_rejected")
            assert refusal(sock)["reason"] == "held_rejected"


def test_what_has_a_secret_in_its_name_or_path_is_shown_to_nobody() -> None:
    secret = "correct-horse-battery-9"
    policy = EgressPolicy(ask=ASK, secrets=SecretsPolicy(on_match="hold"))
    with served(policy, supervised=True, sensitive=(secret,)) as (holder, bundle):
        for host, path in (("ask.test", f"/{secret}"), (f"{secret}.wild.test", "/")):
            with holder.connect(*PROXY) as sock:
                sock.sendall(get(host, path))
                assert refusal(sock)["reason"] in ("host_not_allowed", "secret_found")
        assert not asked(bundle)
        assert secret not in json.dumps(bundle.messages)


def test_the_handshake_of_a_websocket_waits() -> None:
    lines = (
        "GET http://ask.test/ws HTTP/1.1", "Host: ask.test", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
    )  # fmt: skip
    policy = EgressPolicy(ask=ASK)

    def switch(connection: socket.socket) -> None:
        head, _ = read_head(connection)
        key = next(
            line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")
        )
        proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n\x81\x02hi"
        )
        connection.recv(1000)

    server = Server(switch)
    with served(policy, supervised=True) as (holder, bundle), holder.connect(*PROXY) as sock:
        sock.sendall("\r\n".join(lines).encode())
        number = held(bundle, method="GET", path="/ws")
        put(bundle, granted(policy, once(server.http("ask.test"))))
        release(bundle, number, passes=True)
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 101 ")
        while len(rest) < 4:
            rest += sock.recv(10)
        assert rest == b"\x81\x02hi"
        assert not [one for one in bundle.messages if "spent" in one]
        sock.close()
        assert bundle.hear(lambda one: "spent" in one)["spent"] == "g1"
    server.close()


# Approvals for one use


def once(route: Route, grant: str = "g1") -> Route:
    return route._replace(grant=grant, once=True)


def test_an_approval_for_one_use_is_used_up_by_it(web: Server) -> None:
    policy = EgressPolicy(routes=(once(web.http("one.test")),))
    with served(policy) as (holder, bundle), holder.connect(*PROXY) as sock:
        for _ in range(3):
            resolve(holder, "one.test")  # looking a name up is no use
        sock.sendall(get("one.test") + get("one.test"))  # both there in the same moment
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 2 or not answers.endswith(b"}\n"):
            answers += sock.recv(65536)
        _, first, second = answers.split(b"HTTP/1.1 ")
        assert first.startswith(b"200 ")
        assert json.loads(second.partition(b"\r\n\r\n")[2])["reason"] == "host_not_allowed"
        assert bundle.hear(lambda one: "used" in one)["used"] == "g1"
        assert bundle.hear(lambda one: "spent" in one)["spent"] == "g1"
        assert status(holder, "one.test") == 403
        told = [next(iter(one)) for one in bundle.messages if "used" in one or "spent" in one]
        assert told == ["used", "spent"]


def test_what_it_let_through_goes_on_though_no_other_may_begin(echoing: Server) -> None:
    policy = EgressPolicy(routes=(once(echoing.https("one.test")),))
    with served(policy) as (holder, bundle):
        with tunnel(holder, "one.test") as sock:
            assert status(holder, "one.test:443") == 403
            with holder.connect(*PROXY) as other:
                other.sendall(b"CONNECT one.test:443 HTTP/1.1\r\nHost: one.test:443\r\n\r\n")
                assert read_head(other)[0].startswith(b"HTTP/1.1 403 ")
            put(bundle, granted(policy, echoing.https("two.test")))
            sock.sendall(b"still here")
            assert sock.recv(100) == b"still here"
            assert not [one for one in bundle.messages if "spent" in one]
        assert bundle.hear(lambda one: "spent" in one)["spent"] == "g1"


def test_of_many_at_once_one_gets_it(web: Server) -> None:
    policy = EgressPolicy(routes=(once(web.http("one.test")),))
    with served(policy) as (holder, bundle), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(holder.connect(*PROXY)) for _ in range(40)]
        for sock in socks:
            sock.sendall(get("one.test"))
        answers = [read_response(sock)[0].split()[1] for sock in socks]
        assert sorted(answers) == [b"200", *[b"403"] * 39]
        assert len([one for one in bundle.messages if "used" in one]) <= 1


def test_of_many_streams_at_once_one_gets_it(certificate: Certificate, tmp_path: Path) -> None:
    upstream = Recorder(certificate)
    to = upstream.server.upstream()
    policy = EgressPolicy(routes=(once(Route("ok.test", 443, upstream=to, paths=("/**",))),))
    with opened(policy, certificate, tmp_path) as bottle:
        client = Client(bottle.connect("ok.test", "h2"))
        streams = [client.start() for _ in range(30)]
        answers = sorted(client.answer(number).status for number in streams)
        assert answers == [200, *[403] * 29]
        assert len(upstream.asked) == 1
        assert bottle.bundle.hear(lambda one: "spent" in one)["spent"] == "g1"
        client.sock.close()
    upstream.server.close()


def test_a_bundle_that_follows_another_does_not_get_it_again(web: Server) -> None:
    policy = EgressPolicy(routes=(once(web.http("one.test")), once(web.http("two.test"), "g2")))
    with served(policy, spent=("g1",)) as (holder, _):
        assert (status(holder, "one.test"), status(holder, "two.test")) == (403, 200)


def test_uses_of_an_approval_that_lasts_are_said_at_once_and_not_each_time(web: Server) -> None:
    policy = EgressPolicy(routes=(web.http("one.test")._replace(grant="g1"), web.http("two.test")))
    with served(policy) as (holder, bundle):
        assert [status(holder, host) for host in ("two.test", "one.test", "one.test", "one.test")] == [
            200
        ] * 4
        asked(bundle)
        assert [one for one in bundle.messages if "used" in one or "spent" in one] == [{"used": "g1"}]


def test_what_the_file_allows_uses_no_approval(web: Server) -> None:
    policy = EgressPolicy(routes=(once(web.http("one.test")), web.http("one.test")))
    with served(policy) as (holder, bundle):
        assert [status(holder, "one.test") for _ in range(2)] == [200] * 2
        asked(bundle)
        assert not [one for one in bundle.messages if "used" in one]
