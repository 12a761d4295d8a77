"""A decision that can't be made is a no, wherever in it the trouble is."""

import inspect
from time import monotonic
from typing import Any

import pytest

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.grants import Grants
from bot_bottle.bundle.egress.live import Live
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, HeaderMatch, Route


class Trouble:
    """Fails at whatever is done with it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("==")

    def __iter__(self) -> Any:
        raise RuntimeError("iter")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    __hash__ = None  # type: ignore[assignment]


GOOD = Route(host="ok.test", port=443)
TROUBLE: Any = Trouble()
BAD = {
    "the policy": TROUBLE,
    "its routes": EgressPolicy(routes=TROUBLE),
    "one route": EgressPolicy(routes=(TROUBLE, GOOD)),
    **{
        f"{field}, {depth}": EgressPolicy(routes=(GOOD._replace(**{field: value}),))
        for field in ("host", "port", "protocol", "methods", "paths", "headers")
        for depth, value in (("itself", TROUBLE), ("inside", (TROUBLE,)))
    },
    "a header's pattern": EgressPolicy(routes=(GOOD._replace(headers=(HeaderMatch("a", TROUBLE),)),)),
}


def context(policy: Any) -> Context:
    fields = dict.fromkeys(inspect.signature(Context).parameters)
    grants = Grants(lambda _: True, spent=(), clock=monotonic)
    return Context(**{**fields, "policy": policy, "live": Live(), "grants": grants})  # type: ignore[arg-type]


@pytest.mark.parametrize("where", BAD)
def test_trouble_in_a_decision_lets_nothing_through(where: str) -> None:
    policy, place = BAD[where], {"host": "ok.test", "port": 443}
    judge = context(policy)
    request = judge.judge_request(
        **place, protocol="https", method=b"GET", target=b"/a", headers=[(b"a", b"b")]
    )
    assert (request.allowed, request.route) == (False, None)
    connection = judge.judge(**place, protocol="https")
    assert not connection.allowed or judge.intercepts(Wanted(**place, protocol="https")), (
        "allowed, and not even looked at inside"
    )
    assert not judge.speaks_tcp(**place)


def test_what_is_no_trouble_passes() -> None:
    assert context(EgressPolicy((GOOD,))).judge(host="ok.test", port=443, protocol="https").allowed
