"""pipelock's config: the same policy gives the same bytes, and nothing stands in it that would open more than the policy."""

import json

from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.engines.pipelock.config import NOBODY, fingerprint, render
from bot_bottle.policy.egress import canonical_pattern
from bot_bottle.policy.model import EgressPolicy, Route, Upstream

HERE = Upstream(host="127.0.0.1", port=8080)
POLICY = EgressPolicy(
    routes=(
        Route(host="docs.example.org", port=443, methods=("GET",), paths=("/3/**",)),
        Route(host="*.example.com", port=8443),
        Route(host="docs.example.org", port=80, protocol="http"),
        Route(host="model.example.net", port=80, protocol="http", upstream=HERE),
    ),
    engine="pipelock",
)
GOLDEN = {
    "version": 1,
    "mode": "strict",
    "api_allowlist": ["*.example.com", "docs.example.org"],
    "fetch_proxy": {
        "listen": "127.0.0.1:40001",
        "timeout_seconds": 3600,
        "monitoring": {"max_requests_per_minute": 0, "max_url_length": 65536},
    },
    "forward_proxy": {
        "enabled": True,
        "sni_verification": True,
        "max_tunnel_seconds": 604800,
        "idle_timeout_seconds": 3600,
    },
    "websocket_proxy": {"enabled": False},
    "request_body_scanning": {"enabled": True, "action": "block", "scan_headers": True},
    "response_scanning": {"enabled": True, "action": "block"},
    "dlp": {"include_defaults": True, "scan_env": False},
    "kill_switch": {"enabled": False},
    "logging": {"format": "json", "output": "stdout", "include_allowed": True, "include_blocked": True},
}
NAMES = st.from_regex(r"(\*\.)?[a-z0-9-]{1,8}(\.[a-z]{2,5}){1,2}", fullmatch=True).filter(canonical_pattern)


def test_the_whole_config_of_a_policy():
    assert json.loads(render(POLICY, port=40001)) == GOLDEN


def test_a_name_with_an_upstream_of_its_own_is_not_pipelocks_to_dial():
    assert "model.example.net" not in render(POLICY, port=1).decode()


def test_a_policy_that_sends_nothing_through_pipelock_allows_a_name_that_cannot_exist():
    for policy in (EgressPolicy(), EgressPolicy(routes=POLICY.routes[-1:])):
        assert json.loads(render(policy, port=1))["api_allowlist"] == [NOBODY]


@given(st.lists(NAMES, min_size=1, max_size=6), st.randoms())
def test_exactly_the_policys_names_are_allowed_in_whatever_order_they_stand(names, random):
    routes = [Route(host=name, port=443) for name in names]
    first = render(EgressPolicy(routes=tuple(routes)), port=1)
    random.shuffle(routes)
    assert render(EgressPolicy(routes=tuple(routes)), port=1) == first
    assert json.loads(first)["api_allowlist"] == sorted(set(names))


def test_private_addresses_are_trusted_for_no_bottle():
    assert "trusted_domains" not in GOLDEN
    assert json.loads(render(POLICY, port=1, trusted=("localhost",)))["trusted_domains"] == ["localhost"]


def test_the_fingerprint_is_that_of_the_bytes():
    assert fingerprint(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
