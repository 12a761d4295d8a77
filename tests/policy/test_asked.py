"""What a person may be asked for stays refused: `ask` allows nothing by itself, in no spelling."""

from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.policy.egress import (
    HELD_REASONS,
    REASONS,
    Decision,
    asks,
    canonical_host,
    decide,
    decide_request,
    intercepts,
    names_allowed,
    names_asked,
    protocol_on,
)
from bot_bottle.policy.model import EgressPolicy
from tests.policy.test_egress import HOSTS, PATTERNS, POLICIES, PORTS, PROTOCOLS

ASKED = st.lists(PATTERNS, max_size=4).map(tuple)
SPELLINGS = (
    HOSTS
    | HOSTS.map(str.upper)
    | HOSTS.map(lambda host: host + ".")
    | st.sampled_from(["127.0.0.1", "0x7f.1", "[::1]", "", ".", "*", "*.a", "a\0b", "a b", "xn--a"])
    | st.text(max_size=12)
)
METHODS = st.sampled_from([b"GET", b"POST", b"PRI", b"get", b"\xff"])
TARGETS = st.sampled_from([b"/", b"/a?b", b"/a/../b", b"//", b"*", b"/%2e%2e", b"/a;b"]) | st.binary(
    max_size=8
)


@given(POLICIES, ASKED, SPELLINGS, PORTS, PROTOCOLS, METHODS, TARGETS)
def test_it_changes_no_decision(
    policy: EgressPolicy,
    ask: tuple[str, ...],
    host: str,
    port: int,
    protocol: str,
    method: bytes,
    target: bytes,
) -> None:
    asking = policy._replace(ask=ask)
    where = {"host": host, "port": port, "protocol": protocol}
    request = {**where, "method": method, "target": target, "headers": ()}
    assert decide(asking, **where) == decide(policy, **where)  # type: ignore[arg-type]
    assert decide_request(asking, **request) == decide_request(policy, **request)  # type: ignore[arg-type]
    assert intercepts(asking, host=host, port=port) == intercepts(policy, host=host, port=port)
    assert protocol_on(asking, host=host, port=port) == protocol_on(policy, host=host, port=port)


@given(POLICIES, ASKED, SPELLINGS, PORTS, PROTOCOLS)
def test_only_what_is_refused_and_could_be_allowed_is_asked_for(
    policy: EgressPolicy, ask: tuple[str, ...], host: str, port: int, protocol: str
) -> None:
    asking = policy._replace(ask=ask)
    decision = decide(asking, host=host, port=port, protocol=protocol)
    if asks(asking, decision):
        assert not decision.allowed
        assert decision.needed is not None
        assert decision.wanted.host == canonical_host(host)
        assert names_asked(asking, decision.wanted.host)
    assert not asks(asking._replace(mode="observe"), decision)
    assert not asks(policy._replace(ask=()), decision)


@given(POLICIES, ASKED, HOSTS)
def test_names_are_known_by_routes_and_ask_alone(
    policy: EgressPolicy, ask: tuple[str, ...], host: str
) -> None:
    asking = policy._replace(ask=ask)
    assert names_allowed(asking, host) == (names_allowed(policy, host) or names_asked(asking, host))


@given(st.text(max_size=20), ASKED)
def test_every_decision_gets_an_answer(reason: str, ask: tuple[str, ...]) -> None:
    decision = decide(EgressPolicy(), host="a.example.org", port=443, protocol="https")
    made = Decision(False, None, reason, decision.wanted, decision.needed)
    assert asks(EgressPolicy(ask=ask), made) in (True, False)


def test_no_reason_of_what_waited_is_a_yes() -> None:
    assert "allowed" not in HELD_REASONS
    assert all("allowed" not in REASONS[reason] for reason in HELD_REASONS)
