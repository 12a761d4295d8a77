"""A hundred thousand hostile messages: what reads them does not fail, and nothing passes that the policy refuses."""

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.bundle.egress import context, heads
from bot_bottle.bundle.egress.http2 import heads as http2_heads
from bot_bottle.bundle.egress.http2 import serve
from bot_bottle.bundle.egress.http2.heads import request_fields
from bot_bottle.policy.egress import Decision
from bot_bottle.policy.model import EgressPolicy
from tests.fuzz import cases, h2, lenient, targets

COUNTS = {
    "requests to the proxy": 25_000,
    "requests inside TLS": 25_000,
    "responses": 8_000,
    "TLS hellos": 18_000,
    "DNS messages": 18_000,
    "WebSocket frames": 8_000,
    "HTTP/2 connections": 8_000,
}
SHARDS = 2


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[None]:
    yield
    targets.close_loop()


def test_there_are_a_hundred_thousand_and_nothing_is_left_out() -> None:
    assert sum(COUNTS.values()) >= 100_000
    assert set(COUNTS) == set(targets.TARGETS)


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("name", COUNTS)
def test_generated_ones_pass_as_the_policy_says_or_not_at_all(name: str, shard: int) -> None:
    target = targets.TARGETS[name]
    for seed in range(shard, COUNTS[name], SHARDS):
        data = target.make(random.Random(seed))
        try:
            target.check(data)
        except BaseException as error:
            raise AssertionError(f"{name}, seed {seed}: {data!r}") from error


def test_enough_of_them_get_through_for_that_to_mean_something() -> None:
    """If next to everything were refused at its first byte, nothing behind it would have been tried."""
    made = [cases.inner_requests(random.Random(seed)) for seed in range(400)]
    served = [targets.serve(data, targets.INNER) for data in made]
    through = sum(bool(one.upstreams) for one in served)
    refused = sum(any(kind == "egress.refused" for kind, _ in one.events) for one in served)
    assert through > 40, through
    assert refused > 60, refused
    reasons = {reason for one in served for _, reason in one.events}
    assert {"bad_message", "path_not_allowed", "method_not_allowed", "name_mismatch", "bad_path"} <= reasons


def test_enough_http2_gets_through_for_that_to_mean_something() -> None:
    served = [targets.serve_http2(h2.connections(random.Random(seed))) for seed in range(400)]
    assert sum(bool(one.upstreams) for one in served) > 40
    reasons = {reason for one in served for _, reason in one.events}
    assert {"bad_message", "path_not_allowed", "method_not_allowed", "name_mismatch", "bad_path"} <= reasons


TOKENS = st.sampled_from(cases.TOKENS) | st.binary(max_size=6)
START = st.sampled_from(
    (b"", b"POST /a/x HTTP/1.1\r\nHost: ok.test\r\n", b"GET http://ok.test/a HTTP/1.1\r\nHost: ok.test\r\n")
)


@settings(max_examples=1000)
@given(
    START, st.lists(TOKENS, max_size=14), st.sampled_from(("requests to the proxy", "requests inside TLS"))
)
def test_requests_put_together_in_any_way(start: bytes, tokens: list[bytes], name: str) -> None:
    targets.TARGETS[name].check(start + b"".join(tokens))


@settings(max_examples=1000)
@given(
    st.sampled_from((b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n")),
    st.lists(TOKENS, max_size=10),
)
def test_responses_put_together_in_any_way(start: bytes, tokens: list[bytes]) -> None:
    targets.response(start + b"".join(tokens))


@settings(max_examples=500)
@given(st.binary(max_size=400), st.sampled_from(sorted(targets.TARGETS)))
def test_any_bytes_at_all(data: bytes, name: str) -> None:
    targets.TARGETS[name].check(data)


# The second reader itself: one that sees nothing would find nothing.


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"GET /b HTTP/1.1\nHost : evil.test\n\n", (b"GET", b"evil.test", b"/b")),
        (
            b"POST /a HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
            (b"GET", b"x", b"/b"),
        ),
        (
            b"POST /a HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: y\r\n\r\n",
            (b"GET", b"y", b"/c"),
        ),
        (b"GET http://u@z/a/..%2f%252e%252e;x/d HTTP/1.1\r\nHost: ok.test\r\n\r\n", (b"GET", b"z", b"/d")),
    ],
)
def test_a_smuggled_request_is_seen_by_the_second_reader(
    stream: bytes, found: tuple[bytes, bytes, bytes]
) -> None:
    assert lenient.Seen(*found) in lenient.requests(stream)


def search() -> None:
    for seed in range(3000):
        targets.inner(cases.inner_requests(random.Random(seed)))


def search_http2() -> None:
    for seed in range(3000):
        targets.http2(h2.connections(random.Random(seed)))


def test_rules_that_are_taken_out_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same oracle over a product that takes every request for an allowed one."""
    real = context.decide_request

    def decide(policy: EgressPolicy, **asked: Any) -> Decision:
        return real(policy, **{**asked, "method": b"GET", "target": b"/a/x"})

    monkeypatch.setattr(context, "decide_request", decide)
    with pytest.raises(AssertionError):
        search()


def test_http2_for_another_host_that_is_taken_for_the_connections_own_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same oracle over a product that does not mind where a request says that it goes, and goes by that."""
    monkeypatch.setattr(serve._Exchange, "_is_here", lambda *_: None)
    monkeypatch.setattr(serve, "request_fields", lambda method, _, target, headers, **more: real(
        method, authority[-1], target, headers, **more))  # fmt: skip
    real, authority = request_fields, [b""]
    read = serve.read_request

    def remember(*args: Any, **more: Any) -> Any:
        request = read(*args, **more)
        authority.append(request.authority)
        return request

    monkeypatch.setattr(serve, "read_request", remember)
    with pytest.raises(AssertionError):
        search_http2()


def test_http2_heads_that_are_passed_on_unread_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same oracle over a product whose grammar takes everything."""
    monkeypatch.setattr(http2_heads, "_VALUE", re.compile(rb"(?s).*"))
    monkeypatch.setattr(http2_heads, "_NEVER_FORWARDED", frozenset())
    with pytest.raises(AssertionError):
        search_http2()


def test_framing_that_is_passed_on_as_it_came_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same oracle over a product that goes by the length where there is one, and passes on both fields."""

    def framing(headers: heads.Headers, minor: int) -> heads.Body | None:
        lengths = [int(value) for value in heads.values(headers, b"content-length") if value.isdigit()]
        return heads.Body(length=lengths[0]) if lengths else None

    monkeypatch.setattr(heads, "_agree", lambda *_: None)
    monkeypatch.setattr(heads, "_HOP_BY_HOP", frozenset())
    monkeypatch.setattr(heads, "_framing", framing)
    with pytest.raises(AssertionError):
        search()
