"""What was decided is recalled for the same question about the same policy, and for nothing else."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.egress import decided
from bot_bottle.bundle.egress.decided import Decided
from bot_bottle.policy.egress import Decision, Wanted, decide_request
from bot_bottle.policy.model import EgressPolicy, HeaderMatch, Route

GET = EgressPolicy((Route("ok.test", 443, methods=("GET",), paths=("/a/*",)),))
POST = EgressPolicy((Route("ok.test", 443, methods=("POST",), headers=(HeaderMatch("x-team", "red*"),)),))
OPEN = EgressPolicy((Route("ok.test", 443), Route("ok.test", 443, headers=(HeaderMatch("a_b", "1"),))))
NAMES = (b"accept", b"x-team", b"x_team", b"a-b", b"a_b", b"x-http-method", b"x-original-url", b"cookie")
fields = st.tuples(st.sampled_from(NAMES), st.sampled_from((b"red1", b"1", b"GET")))
questions = st.tuples(
    st.sampled_from((b"GET", b"POST")), st.sampled_from((b"/a/1", b"/b")), st.lists(fields, max_size=1)
)
Headers = Sequence[tuple[bytes, bytes]]


def asked(policy: EgressPolicy, method: bytes, target: bytes, headers: Headers) -> Decision:
    place = {"host": "ok.test", "port": 443, "protocol": "https"}
    return decide_request(policy, method=method, target=target, headers=headers, **place)  # type: ignore[arg-type]


@given(st.sampled_from((GET, POST, OPEN)), st.lists(questions, min_size=10, max_size=40))
def test_what_is_recalled_is_what_would_be_decided(
    policy: EgressPolicy, many: list[tuple[bytes, bytes, Headers]]
) -> None:
    recalled = Decided()
    for method, target, headers in [*many, (b"GET", b"/a/1", ()), (b"POST", b"/a/1", ()), *many]:
        question = (method, target, *recalled.counting(policy, headers))
        found = recalled.recall(policy, question, lambda now: asked(now, method, target, headers))  # noqa: B023
        assert found == asked(policy, method, target, headers)


def test_only_allowances_are_recalled_and_of_another_policy_none() -> None:
    recalled, calls = Decided(), []

    def work(policy: EgressPolicy) -> Decision:
        calls.append(policy)
        return Decision(policy is GET, None, "", Wanted("ok.test", 443, "https"))

    for policy in (GET, GET, POST, POST, GET, EgressPolicy(*GET)):
        recalled.recall(policy, ("one",), work)
    assert calls == [GET, POST, POST, GET, EgressPolicy(*GET)]


def test_what_fails_is_not_recalled() -> None:
    recalled = Decided()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            recalled.recall(GET, ("one",), lambda _: bool(1 / 0))


def test_an_agent_can_not_make_it_large() -> None:
    recalled = Decided()
    for number in range(3 * decided._MOST):
        recalled.recall(GET, ("one", b"x" * number * 4), lambda _: True)
        assert len(recalled._found) <= decided._MOST
    assert all(decided._size(question) <= decided._LONGEST for question in recalled._found)
