"""What waits for a person at the proxy, on every path: let go by a policy that allows it, refused by everything else."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.harness import Bundle, Server, read_response, served
from tests.bundle.test_policy_change import answer, put, status

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
        assert said["ask"] == {"tool": "pipelock-block", "with": {"host": "ask.test"}}
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
