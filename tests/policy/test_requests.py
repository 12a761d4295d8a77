"""Single requests: the rules of routes, how several of them go together, and what would have to be granted."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.manifest.compose import route_document
from bot_bottle.manifest.model import Route as ManifestRoute
from bot_bottle.plan.resolve import route as resolved
from bot_bottle.policy.egress import (
    REASONS,
    Decision,
    Headers,
    Wanted,
    decide,
    decide_request,
    intercepts,
    intercepts_any,
    protocol_on,
)
from bot_bottle.policy.lines import for_connection
from bot_bottle.policy.model import EgressPolicy, HeaderMatch, Route, SecretsPolicy, Upstream

HOST = "api.example.org"
METHODS = st.sampled_from(("GET", "HEAD", "POST", "DELETE"))
PATHS = st.sampled_from(("/public/**", "/a/*", "/a/b", "/"))
HEADERS = st.sampled_from((HeaderMatch("x-team", "bots-*"), HeaderMatch("accept", "*")))
ROUTES = st.builds(
    lambda **keys: Route(**keys),  # what a named tuple of ours takes is only known from its first instance on
    host=st.sampled_from((HOST, "*.example.org", "other.example.org")),
    port=st.sampled_from((80, 8080)),
    protocol=st.sampled_from(("http", "https")),
    credential=st.none() | st.sampled_from("ab"),
    methods=st.lists(METHODS, max_size=2, unique=True).map(tuple),
    paths=st.lists(PATHS, max_size=2, unique=True).map(tuple),
    headers=st.lists(HEADERS, max_size=1).map(tuple),
)
POLICIES = st.lists(ROUTES, max_size=5).map(lambda routes: EgressPolicy(tuple(routes)))
REQUESTS = st.fixed_dictionaries(
    {
        "method": METHODS.map(str.encode) | st.sampled_from((b"get", b"G\xffT", b"")),
        "target": st.sampled_from(
            (b"/", b"/a/b", b"/a/c?q", b"/public/x/y", b"/public/%2e%2e/x", b"/x", b"*", b"")
        ),
        "headers": st.lists(
            st.sampled_from(
                ((b"x-team", b"bots-1"), (b"x_team", b"evil"), (b"accept", b""), (b"x-original-url", b"/x"))
            ),
            max_size=3,
        ),
        "port": st.sampled_from((80, 8080, 0)),
        "protocol": st.sampled_from(("http", "https")),
    }
)


def ask(
    policy: EgressPolicy | Route, method: str = "GET", target: str = "/", *headers: tuple[bytes, bytes]
) -> Decision:
    if isinstance(policy, Route):
        policy = EgressPolicy((policy,))
    return decide_request(
        policy,
        host=HOST,
        port=80,
        protocol="http",
        method=method.encode(),
        target=target.encode(),
        headers=headers,
    )


def route(**keys) -> Route:
    return Route(**{"host": HOST, "port": 80, "protocol": "http", **keys})


@pytest.mark.parametrize(
    ("rules", "method", "target", "headers", "reason"),
    [
        ({}, "DELETE", "/../x", (), "allowed"),
        ({}, "OPTIONS", "*", (), "allowed"),
        ({"methods": ("GET",)}, "GET", "/..", (), "allowed"),
        ({"methods": ("GET",)}, "get", "/", (), "method_not_allowed"),
        ({"methods": ("GET",)}, "HEAD", "/", (), "method_not_allowed"),
        ({"paths": ("/a/**",)}, "GET", "/a/b", (), "allowed"),
        ({"paths": ("/a/**",)}, "GET", "/b", (), "path_not_allowed"),
        ({"paths": ("/a/**",)}, "GET", "/a/../b", (), "bad_path"),
        ({"paths": ("/**",)}, "OPTIONS", "*", (), "bad_path"),
        ({"methods": ("GET",), "paths": ("/a",)}, "PUT", "/b", (), "method_not_allowed"),
        ({"headers": (HeaderMatch("x-team", "bots-*"),)}, "GET", "/", ((b"x-team", b"bots-1"),), "allowed"),
        ({"headers": (HeaderMatch("x-team", "bots-*"),)}, "GET", "/", ((b"X-Team", b"bots-1"),), "allowed"),
        ({"headers": (HeaderMatch("x-team", "bots-*"),)}, "GET", "/", (), "header_not_allowed"),
        ({"headers": (HeaderMatch("x-team", "bots-*"),)}, "GET", "/", ((b"x-team", b"evil"),), "header_not_allowed"),
        ({"headers": (HeaderMatch("x-team", "b"),)}, "GET", "/", ((b"x-team", b"B"),), "header_not_allowed"),
    ],
)  # fmt: skip
def test_a_rule_is_held(rules: dict, method: str, target: str, headers: Headers, reason: str) -> None:
    decision = ask(route(**rules), method, target, *headers)
    assert (decision.reason, decision.allowed) == (reason, reason == "allowed")
    assert reason == "allowed" or reason in REASONS


def test_a_header_that_stands_twice_has_to_match_twice_however_it_is_spelt() -> None:
    rule = route(headers=(HeaderMatch("x-team", "bots"),))
    assert ask(rule, "GET", "/", (b"x-team", b"bots"), (b"x-team", b"bots")).allowed
    assert not ask(rule, "GET", "/", (b"x-team", b"bots"), (b"x-team", b"evil")).allowed
    assert not ask(rule, "GET", "/", (b"x-team", b"bots"), (b"X_Team", b"evil")).allowed


@pytest.mark.parametrize("name", [b"x-http-method-override", b"X-HTTP-Method", b"x_method_override"])
def test_no_header_can_ask_the_server_for_another_method(name: bytes) -> None:
    rule = route(methods=("GET", "POST"))
    refused = ask(rule, "POST", "/", (name, b"DELETE"))
    assert (refused.reason, refused.needed) == ("override_not_allowed", None)
    assert ask(rule, "POST", "/", (name, b"get")).reason == "override_not_allowed"
    assert ask(rule, "POST", "/", (name, b"GET")).allowed
    assert ask(route(), "POST", "/", (name, b"DELETE")).allowed


@pytest.mark.parametrize("name", [b"x-original-url", b"X_Rewrite_URL", b"x-forwarded-uri"])
def test_no_header_can_ask_the_server_for_another_path(name: bytes) -> None:
    assert ask(route(paths=("/a",)), "GET", "/a", (name, b"/a")).reason == "override_not_allowed"
    assert ask(route(methods=("GET",)), "GET", "/a", (name, b"/b")).allowed


@given(POLICIES, REQUESTS)
def test_a_request_is_allowed_exactly_when_one_route_alone_allows_it(
    policy: EgressPolicy, request: dict
) -> None:
    together = decide_request(policy, host=HOST, **request)
    alone = [
        route
        for route in policy.routes
        if decide_request(EgressPolicy((route,)), host=HOST, **request).allowed
    ]
    assert together.allowed == bool(alone)
    assert together.route in alone if alone else together.route is None


@given(POLICIES, ROUTES, REQUESTS)
def test_no_further_route_takes_anything_away(policy: EgressPolicy, more: Route, request: dict) -> None:
    if decide_request(policy, host=HOST, **request).allowed:
        assert decide_request(EgressPolicy((more, *policy.routes)), host=HOST, **request).allowed


@given(POLICIES, REQUESTS)
def test_no_request_is_allowed_where_no_connection_is(policy: EgressPolicy, request: dict) -> None:
    if decide_request(policy, host=HOST, **request).allowed:
        assert decide(policy, host=HOST, port=request["port"], protocol=request["protocol"]).allowed


@given(POLICIES, REQUESTS)
def test_a_request_that_a_rule_refuses_is_on_a_route_whose_tls_is_opened(
    policy: EgressPolicy, request: dict
) -> None:
    place = {"host": HOST, "port": request["port"]}
    refused = not decide_request(policy, host=HOST, **request).allowed
    if refused and decide(policy, protocol="https", **place).allowed and request["protocol"] == "https":
        assert intercepts(policy, **place)
        assert intercepts_any(policy)


@given(
    POLICIES, st.text(max_size=20), st.integers(-5, 70000), st.text(max_size=6), st.binary(max_size=20),
    st.binary(max_size=40), st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=4),
)  # fmt: skip
def test_every_request_gets_an_answer(
    policy: EgressPolicy, host: str, port: int, protocol: str, method: bytes, target: bytes, headers: Headers
) -> None:
    for asked in (host, HOST):
        decide_request(
            policy, host=asked, port=port, protocol=protocol, method=method, target=target, headers=headers
        )
        intercepts(policy, host=asked, port=port)
        protocol_on(policy, host=asked, port=port)


def granted(line: str) -> Route:
    """The route that a person gets who adds `line` to the file."""
    [keys] = yaml.safe_load(line)
    return resolved(route_document(ManifestRoute.model_validate(keys)))


@given(POLICIES, REQUESTS)
def test_what_is_said_to_be_needed_allows_the_request_and_nothing_beside_it(
    policy: EgressPolicy, request: dict
) -> None:
    decision = decide_request(policy, host=HOST, **request)
    if decision.allowed or decision.needed is None:
        return
    grant = granted(decision.needed)
    assert grant.host == HOST
    plain = {**request, "headers": ()}
    assert decide_request(EgressPolicy((*policy.routes, grant)), host=HOST, **plain).allowed
    if decision.reason in ("method_not_allowed", "path_not_allowed", "header_not_allowed"):
        only = EgressPolicy((grant,))
        assert not decide_request(only, host=HOST, **{**plain, "target": b"/elsewhere"}).allowed
        assert not decide_request(only, host=HOST, **{**plain, "method": b"PATCH"}).allowed


@pytest.mark.parametrize(
    ("method", "target", "needed"),
    [
        ("PUT", "/x?secret", "- {host: api.example.org, protocol: http, methods: [PUT], paths: [\"/x\"]}"),
        ("PUT", "/*", "- {host: api.example.org, protocol: http, methods: [PUT], paths: [\"/%2A\"]}"),
        ("NULL", "/x", "- {host: api.example.org, protocol: http, methods: [\"NULL\"], paths: [\"/x\"]}"),
        ("put", "/x", None),
        ("PUT", "/x/..", None),
    ],
)  # fmt: skip
def test_the_line_that_is_needed_says_no_more_than_was_asked_for(
    method: str, target: str, needed: str | None
) -> None:
    decision = ask(route(methods=("GET",)), method, target)
    assert (decision.reason, decision.needed) == ("method_not_allowed", needed)


def test_no_line_is_said_to_be_needed_that_would_contradict_those_that_are_there() -> None:
    for host, needed in ((HOST, False), ("*.example.org", True)):
        there = EgressPolicy((Route(host, 80, "http"),))
        decision = decide(there, host=HOST, port=80, protocol="https")
        assert decision.reason == "protocol_not_allowed"
        assert (decision.needed is not None) == needed


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (Wanted("a.test", 443, "https"), "- {host: a.test}"),
        (Wanted("a.test", 5432, "tcp"), "- {host: a.test, port: 5432, protocol: tcp}"),
        (Wanted("a.test", 80, "tcp"), "- {host: a.test, port: 80, protocol: tcp}"),
        (Wanted("null", 443, "https"), '- {host: "null"}'),
        (Wanted("1.e5", 443, "https"), '- {host: "1.e5"}'),
        (Wanted("a.test", 0, "https"), None),
        (Wanted("a.test", 443, "quic"), None),
    ],
)
def test_a_line_is_what_a_person_would_write(wanted: Wanted, line: str | None) -> None:
    assert for_connection(wanted) == line


def test_the_most_exact_of_the_routes_that_allow_a_request_counts() -> None:
    wide = route(host="*.example.org")
    bare, deep = route(), route(paths=("/v1/**",), credential="key")
    deeper = route(paths=("/v1/models/**", "/x"))
    policy = EgressPolicy((wide, bare, deep, deeper))
    assert ask(policy, "GET", "/").route == bare
    assert ask(policy, "GET", "/v1/messages").route == deep
    assert ask(policy, "GET", "/v1/models/a").route == deeper
    assert ask(policy, "GET", "/v1/../x").route == bare
    assert ask(EgressPolicy((wide, deep)), "GET", "/").route == wide


def test_of_several_refusals_the_one_that_came_furthest_says_why() -> None:
    policy = EgressPolicy(
        (route(methods=("PUT",)), route(paths=("/b",)), route(host="*.example.org", methods=("POST",)))
    )
    assert ask(policy, "GET", "/a").reason == "path_not_allowed"


def test_tls_is_opened_for_what_needs_it_and_nothing_else() -> None:
    plain = Route(host=HOST, port=443)
    for needs in (
        {"methods": ("GET",)}, {"paths": ("/a",)}, {"headers": (HeaderMatch("a", "b"),)}, {"credential": "key"},
        {"upstream": Upstream("b.test", 443, tls=True)},
    ):  # fmt: skip
        policy = EgressPolicy((plain, plain._replace(**needs)))
        assert intercepts(policy, host=HOST, port=443)
        assert intercepts(policy, host=HOST.upper() + ".", port=443)
        assert not intercepts(policy, host=HOST, port=8443)
        assert not intercepts(policy, host="other.example.org", port=443)
        assert intercepts_any(policy)
        assert not intercepts_any(EgressPolicy((route(**needs),))), "plain http has no TLS"
    assert not intercepts(
        EgressPolicy((plain._replace(upstream=Upstream("b.test", 443)),)), host=HOST, port=443
    )
    searched = EgressPolicy((plain, plain._replace(host="b.test", scan=False)), secrets=SecretsPolicy())
    assert intercepts(searched, host=HOST, port=443)
    assert not intercepts(searched, host="b.test", port=443)
    assert intercepts(EgressPolicy(), host="no name", port=443), "what has no name must not pass through"


def test_a_port_has_the_protocol_of_its_most_exact_route_and_never_tcp_beside_another() -> None:
    policy = EgressPolicy(
        (
            Route(host="*.example.org", port=443, protocol="tcp"),
            Route(host=HOST, port=443),
            Route(host="both.example.org", port=22, protocol="tcp"),
            Route(host="both.example.org", port=22, protocol="http"),
        )
    )
    assert protocol_on(policy, host="ssh.example.org", port=443) == "tcp"
    assert protocol_on(policy, host=HOST, port=443) == "https"
    assert protocol_on(policy, host="both.example.org", port=22) == "http"
    assert protocol_on(policy, host=HOST, port=22) is None
    assert protocol_on(policy, host="10.0.0.1", port=22) is None


@given(POLICIES, st.none() | st.builds(SecretsPolicy, limit=st.integers(1, 100)))
def test_a_policy_survives_being_written_down(policy: EgressPolicy, secrets: SecretsPolicy | None) -> None:
    import json

    policy = policy._replace(secrets=secrets, mode="observe", engine="pipelock")
    read = EgressPolicy.from_document(json.loads(json.dumps(policy.document())))
    assert read == policy
    assert read.fingerprint() == policy.fingerprint()
    for changed in (
        policy._replace(mode="enforce"),
        policy._replace(routes=(*policy.routes, route(scan=False))),
    ):
        assert changed.fingerprint() != policy.fingerprint()


@pytest.mark.parametrize("host", ["no", "yes", "on", "off", "y", "null", "true", "1e3"])
def test_a_host_that_yaml_takes_for_something_else_is_still_a_host(host: str) -> None:
    line = for_connection(Wanted(host, 443, "https"))
    assert line is not None
    assert yaml.safe_load(line) == [{"host": host}]
