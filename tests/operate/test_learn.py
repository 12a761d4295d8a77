"""What is learned from a record is what was seen, and nothing that an agent could write into it opens more."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.errors import HostError
from bot_bottle.events import GENESIS, Event
from bot_bottle.operate import learn
from bot_bottle.operate.learn import Learned, needs
from bot_bottle.policy.difference import line_of
from bot_bottle.policy.egress import canonical_path, decide, decide_request
from bot_bottle.policy.model import EgressPolicy, Route, Upstream

API = Route("api.example.org", 443, paths=("/v1/**",))
POLICY = EgressPolicy(routes=(API, Route("docs.example.org", 443)), mode="observe")


def event(kind: str, **data: Any) -> Event:
    return Event(1, GENESIS, "run", 0.0, kind, data, GENESIS)


def observed(
    host: str, port: int = 443, protocol: str = "https", reason: str = "host_not_allowed", **more: Any
) -> Event:
    return event("egress.observed", host=host, port=port, protocol=protocol, reason=reason, **more)


def lines(*events: Event, policy: EgressPolicy = POLICY) -> list[str]:
    return [line_of(route) for route in needs(events, policy).routes]


def test_each_host_port_and_protocol_that_was_seen_gets_its_line_once() -> None:
    found = lines(
        observed("a.example.org"), observed("a.example.org"), observed("a.example.org", 8443),
        observed("b.example.org", 80, "http", method="GET", path="/x"), observed("db.example.org", 5432, "tcp"),
    )  # fmt: skip
    assert found == [
        "- {host: a.example.org}",
        "- {host: a.example.org, port: 8443}",
        "- {host: b.example.org, protocol: http}",
        "- {host: db.example.org, port: 5432, protocol: tcp}",
    ]


def test_methods_and_paths_are_said_where_they_were_seen() -> None:
    refused = {"reason": "path_not_allowed"}
    found = lines(
        observed("api.example.org", method="GET", path="/v2/a", **refused),
        observed("api.example.org", method="POST", path="/v2/b", **refused),
        observed("api.example.org", method="GET", path="/v2/c", **refused),
        observed("api.example.org", method="PUT", path="/v2/c", **refused),
    )
    assert found == [
        '- {host: api.example.org, methods: [GET], paths: ["/v2/a"]}',
        '- {host: api.example.org, methods: [POST], paths: ["/v2/b"]}',
        '- {host: api.example.org, methods: [GET, PUT], paths: ["/v2/c"]}',
    ]


def test_what_the_file_allows_by_now_is_not_learned_again() -> None:
    assert (
        lines(
            observed("docs.example.org"),
            observed("api.example.org", method="GET", path="/v1/x", reason="path_not_allowed"),
        )
        == []
    )


def test_too_many_paths_open_the_host_and_it_is_said() -> None:
    events = [
        observed("api.example.org", method="GET", path=f"/v2/{n}", reason="path_not_allowed")
        for n in range(40)
    ]
    found = needs(events, POLICY)
    assert [line_of(route) for route in found.routes] == ["- {host: api.example.org}"]
    assert "opened as a whole" in found.warnings[0]


def test_a_record_that_could_not_hold_everything_is_said() -> None:
    assert needs([event("egress.folded", counts={"egress.observed": 7})], POLICY).warnings
    assert not needs([event("egress.folded", counts={"egress.refused": 7})], POLICY).warnings


def test_what_is_learned_of_a_host_goes_where_its_other_routes_go_and_gets_no_credential() -> None:
    there = Upstream("127.0.0.1", 8443, False)
    policy = EgressPolicy((API._replace(upstream=there, credential="api"),), mode="observe")
    found = needs(
        [observed("api.example.org", method="PUT", path="/v2/x", reason="path_not_allowed")], policy
    )
    assert [line_of(route) for route in found.routes] == [
        '- {host: api.example.org, methods: [PUT], paths: ["/v2/x"], upstream: "127.0.0.1:8443"}'
    ]
    assert "do not get its credential" in found.warnings[0]


def test_a_second_protocol_on_a_port_that_has_one_is_not_learned_and_it_is_said() -> None:
    found = needs([observed("api.example.org", 443, "http", "protocol_not_allowed")], POLICY)
    assert found.routes == []
    assert "another protocol" in found.warnings[0]


def test_a_private_host_is_not_learned() -> None:
    found = needs(
        [observed("db.internal.example.org"),
         event("egress.refused", host="db.internal.example.org", port=443, protocol="https", reason="address_not_public")],
        POLICY,
    )  # fmt: skip
    assert found.routes == []
    assert "no public address" in found.warnings[0]


def test_a_host_that_was_never_found_is_left_out_and_it_is_said() -> None:
    def failed(host: str, reason: str = "not_resolved", **more: Any) -> Event:
        return event("egress.failed", host=host, port=443, protocol="https", reason=reason, **more)

    found = needs(
        [observed("mispelt.example.org", count=2), failed("mispelt.example.org", count=2),
         observed("flaky.example.org", count=2), failed("flaky.example.org"),
         observed("down.example.org"), failed("down.example.org", "connect_failed")],
        POLICY,
    )  # fmt: skip
    assert [route.host for route in found.routes] == ["flaky.example.org", "down.example.org"]
    assert found.warnings == ["mispelt.example.org was never found by DNS; it is left out"]


def test_what_was_refused_is_offered_most_often_first() -> None:
    def refused(host: str, **more: Any) -> Event:
        return event(
            "egress.refused", host=host, port=443, protocol="https", reason="host_not_allowed", **more
        )

    found = needs(
        [refused("a.example.org"), refused("b.example.org", count=9), refused("b.example.org"),
         event("dns.refused", host="c.example.org", reason="host_not_allowed", count=3),
         event("dns.refused", host="a.example.org", reason="host_not_allowed", count=30),
         event("egress.refused", host="192.0.2.1", port=443, protocol="https", reason="address_literal")],
        POLICY._replace(mode="enforce"),
    )  # fmt: skip
    assert found.routes == []
    assert [(route.host, times) for route, times in found.refused] == [
        ("b.example.org", 10),
        ("c.example.org", 3),
        ("a.example.org", 1),
    ]


texts = st.text(max_size=30) | st.sampled_from(
    ["/**", "/a*", "/v1/../x", "*.example.org", "x\n- {host: y}", "}", "%2a"]
)
anything = texts | st.integers() | st.none() | st.lists(st.integers(), max_size=2) | st.booleans()
paths = st.text(alphabet="/a*%2AF.;?#\\~", max_size=12).map(lambda text: "/" + text)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["host", "port", "protocol", "reason", "method", "path", "count", "counts"]),
            anything,
        ),
        max_size=4,
    ),
    st.sampled_from(["egress.observed", "egress.refused", "dns.refused", "egress.folded"]),
)
def test_nothing_in_a_record_confuses_it(data: list[dict[str, Any]], kind: str) -> None:
    needs([event(kind, **each) for each in data], POLICY)


@pytest.mark.parametrize("path", ["/**", "/a*", "/v2/../x", "/%41", "x", "", "/\u2026", "/a;b", "/a//b"])
def test_a_path_that_could_stand_for_others_is_left_out_and_it_is_said(path: str) -> None:
    found = needs([observed("api.example.org", method="GET", path=path, reason="path_not_allowed")], POLICY)
    assert found.routes == []
    assert found.warnings


@given(paths, paths)
def test_a_learned_path_allows_itself_and_no_other(seen: str, other: str) -> None:
    def allows(routes: list[Route], path: str) -> bool:
        asked = {"host": "new.example.org", "port": 443, "protocol": "https", "method": b"GET", "headers": ()}
        return decide_request(EgressPolicy(tuple(routes)), target=path.encode(), **asked).allowed

    said = canonical_path(seen.encode())
    found = needs(
        [observed("new.example.org", method="GET", path=said or seen, reason="path_not_allowed")],
        EgressPolicy(),
    )
    if said is not None and found.routes:
        assert allows(found.routes, seen)
    if canonical_path(other.encode()) != said:
        assert not allows(found.routes, other)


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**.x", "a.b", "localhost", "x y", "c.example.org"]), max_size=4)
)
def test_no_learned_route_covers_a_name_that_was_not_seen(hosts: list[str]) -> None:
    policy = EgressPolicy(tuple(needs([observed(host) for host in hosts], EgressPolicy()).routes))
    for host in ("other.example.org", "x.a", "evil.x", "z"):
        assert not decide(policy, host=host, port=443, protocol="https").allowed


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path) -> None:
    path = tmp_path / "bottle.md"
    path.write_text("one")
    path.chmod(0o640)
    link = tmp_path / "link.md"
    link.symlink_to(path)
    change = Learned("run", str(link), "one", "two", needs([], POLICY), True)
    learn.write(change)
    assert (path.read_text(), link.is_symlink(), path.stat().st_mode & 0o777) == ("two", True, 0o640)
    with pytest.raises(HostError, match="changed meanwhile"):
        learn.write(change)
    assert [entry.name for entry in sorted(tmp_path.iterdir()) if "new" in entry.name] == []
