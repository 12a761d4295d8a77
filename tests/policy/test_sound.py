"""A policy that was made elsewhere is one, or says what is wrong; and two of them differ by what is shown."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.manifest.model import Route as Stated
from bot_bottle.policy.difference import difference, line_of
from bot_bottle.policy.egress import canonical_host
from bot_bottle.policy.model import MOST_ASKED, EgressPolicy, HeaderMatch, Route, SecretsPolicy, Upstream
from bot_bottle.policy.sound import MOST_ROUTES, flaws

ROUTE = Route("example.org", 443)
hosts = st.from_regex(r"(\*\.)?[a-z0-9_-]{1,9}(\.[a-z0-9-]{1,9}){1,3}", fullmatch=True).filter(
    lambda text: canonical_host(text.removeprefix("*.")) == text.removeprefix("*.")
)
routes = st.builds(
    Route,
    host=hosts,
    port=st.integers(1, 65535),
    protocol=st.sampled_from(["https", "http"]),
    methods=st.sampled_from([(), ("GET",), ("GET", "POST")]),
    paths=st.sampled_from([(), ("/",), ("/a/**",), ("/%2A", "/b*")]),
    headers=st.sampled_from([(), (HeaderMatch("x-a", "b*"),)]),
    scan=st.booleans(),
    upstream=st.none(),
    credential=st.none(),
    on_match=st.sampled_from([None, "hold", "redact", "block"]),
    grant=st.just(""),
    once=st.just(False),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(routes, max_size=4), st.lists(hosts, max_size=3), st.sampled_from(["", "g1"]), st.booleans())
def test_what_can_be_enforced_has_no_flaw_and_survives_the_way_to_the_bundle(
    found: list[Route], ask: list[str], grant: str, once: bool
) -> None:
    granted = [route._replace(grant=grant, once=once and bool(grant)) for route in found]
    policy = EgressPolicy(routes=tuple(granted), ask=tuple(ask))
    assert flaws(policy) == []
    assert EgressPolicy.from_document(json.loads(json.dumps(policy.document()))) == policy


@pytest.mark.parametrize(
    "route",
    [
        ROUTE._replace(host="Example.org"), ROUTE._replace(host="example.org."), ROUTE._replace(host="127.1"),
        ROUTE._replace(host="*"), ROUTE._replace(host=""), ROUTE._replace(host=None), ROUTE._replace(port=0),
        ROUTE._replace(port=True), ROUTE._replace(port="443"), ROUTE._replace(port=70000),
        ROUTE._replace(protocol="gopher"), ROUTE._replace(scan=1), ROUTE._replace(methods=("GE T",)),
        ROUTE._replace(methods=(3,)), ROUTE._replace(paths=("a",)), ROUTE._replace(paths=("/a/../b",)),
        ROUTE._replace(headers=(HeaderMatch("X-A", "b"),)), ROUTE._replace(headers=(HeaderMatch("x a", "b"),)),
        ROUTE._replace(credential=""), ROUTE._replace(upstream=Upstream("", 80)),
        ROUTE._replace(upstream=Upstream("x", 0)), ROUTE._replace(protocol="tcp", methods=("GET",)),
        ROUTE._replace(protocol="tcp", credential="key"), ROUTE._replace(once=True), ROUTE._replace(grant="a b"),
        ROUTE._replace(grant="g1", once=1), ROUTE._replace(on_match="pass"),
        ROUTE._replace(protocol="tcp", on_match="redact"),
    ],
)  # fmt: skip
def test_each_flaw_is_found(route: Any) -> None:
    assert len(flaws(EgressPolicy(routes=(ROUTE, route)))) == 1


def test_what_is_no_route_has_flaws_too() -> None:
    assert flaws(EgressPolicy(mode="off"))  # type: ignore[arg-type]
    assert flaws(EgressPolicy(engine="none"))  # type: ignore[arg-type]
    assert flaws(EgressPolicy(routes=None))  # type: ignore[arg-type]
    assert flaws(EgressPolicy(routes=(ROUTE,) * (MOST_ROUTES + 1)))
    for ask in (["a.test"], ("A.test",), ("*",), ("",), (None,), ("127.1",), ("a.test",) * (MOST_ASKED + 1)):
        assert flaws(EgressPolicy(ask=ask))  # type: ignore[arg-type]
    assert flaws(EgressPolicy(secrets=SecretsPolicy(on_match="ask")))  # type: ignore[arg-type]
    assert flaws(EgressPolicy(secrets=SecretsPolicy(limit=-1)))


@given(st.dictionaries(st.sampled_from(["routes", "secrets", "mode", "engine", "ask", "x"]), json_values))
def test_no_document_is_taken_that_is_not_one(document: dict[str, Any]) -> None:
    try:
        policy = EgressPolicy.from_document(document)
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    if not flaws(policy):
        assert EgressPolicy.from_document(policy.document()) == policy


@given(routes)
def test_a_line_says_the_whole_route_as_a_file_would(route: Route) -> None:
    [said] = yaml.safe_load(line_of(route))
    stated = Stated.model_validate(said)
    assert (stated.host, stated.port, stated.protocol) == (route.host, route.port, route.protocol)
    assert (tuple(stated.methods), tuple(stated.paths), stated.scan) == (
        route.methods,
        route.paths,
        route.scan,
    )
    assert dict(stated.headers) == dict(route.headers)


@given(st.lists(routes, max_size=3), st.lists(routes, max_size=3))
def test_a_difference_is_empty_only_where_there_is_none(first: list[Route], second: list[Route]) -> None:
    old, new = EgressPolicy(routes=tuple(first)), EgressPolicy(routes=tuple(second), mode="observe")
    added, removed = difference(old, new)
    assert "mode: observe" in added
    assert set(added) - {"mode: observe"} == {line_of(r) for r in second} - {line_of(r) for r in first}
    assert set(removed) == {line_of(r) for r in first} - {line_of(r) for r in second}
    assert difference(new, new) == ([], [])
