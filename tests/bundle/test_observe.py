"""A bottle that is only watched: routes refuse nothing, everything else still does, and all of it is recorded."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.egress.observe import let_through
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.door.model import listeners_for
from bot_bottle.policy.egress import ASKED_FOR, REASONS, decide, decide_request
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_head, read_response, served
from tests.bundle.hellos import client_hello
from tests.bundle.test_policy_change import answer, put, resolve


@pytest.fixture(scope="module")
def web() -> Iterator[Server]:
    server = Server(answer)
    yield server
    server.close()


def watching(web: Server) -> EgressPolicy:
    """A policy with one route, with rules and a credential on it, that is not enforced."""
    route = web.http("one.test")._replace(methods=("GET",), paths=("/a",))
    return EgressPolicy(routes=(route,), mode="observe")


@pytest.fixture(scope="module")
def bottle(web: Server) -> Iterator[tuple[Holder, Bundle]]:
    policy = watching(web)
    with served(policy, listeners=listeners_for(policy), limits=BundleLimits(names=20)) as both:
        yield both


def request(holder: Holder, target: str, host: str, method: str = "GET") -> int:
    with holder.connect("127.0.0.1", 3128) as sock:
        sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(read_head(sock)[0].split()[1])


def test_a_host_that_no_route_names_is_let_through_and_recorded(bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    assert (
        request(holder, "http://new.invalid/x", "new.invalid") == 502
    )  # it was asked for; there is no such host
    data = bundle.event("egress.observed", host="new.invalid")
    assert (data["reason"], data["port"], data["method"], data["path"]) == (
        "host_not_allowed",
        80,
        "GET",
        "/x",
    )
    assert bundle.event("egress.failed", host="new.invalid")["reason"] == "not_resolved"


def test_a_rule_is_let_through_to_where_its_route_leads(bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    assert request(holder, "http://one.test/a", "one.test") == 200
    assert request(holder, "http://one.test/b", "one.test") == 200
    assert bundle.event("egress.observed", path="/b")["reason"] == "path_not_allowed"
    assert bundle.event("egress.allowed", path="/a")["reason"] == "allowed"


def test_tls_is_let_through_by_its_name(bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    with holder.connect("192.0.2.1", 443) as sock:
        sock.sendall(client_hello("secret.invalid"))
        assert sock.recv(1) in (b"\x15", b"")
    assert bundle.event("egress.observed", host="secret.invalid")["protocol"] == "https"


def test_a_usual_port_of_no_http_is_let_through_by_its_address(bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    address = resolve(holder, "git.invalid")
    assert address is not None
    with contextlib.suppress(ConnectionResetError), holder.connect(address, 22) as sock:
        sock.recv(1)
    assert bundle.event("egress.observed", host="git.invalid")["protocol"] == "tcp"


@pytest.mark.parametrize(
    ("target", "host", "reason"),
    [
        ("http://192.0.2.7/", "192.0.2.7", "address_literal"),
        ("http://127.0.0.1/", "127.0.0.1", "address_literal"),
        ("http://0x7f000001/", "0x7f000001", "address_literal"),
        ("http://a_b-.invalid/", "a_b-.invalid", "not_a_host_name"),
        ("http://localhost/", "localhost", "address_not_public"),
    ],
)
def test_what_no_route_could_allow_is_refused(
    target: str, host: str, reason: str, bottle: tuple[Holder, Bundle]
) -> None:
    holder, bundle = bottle
    assert request(holder, target, host) == 403
    assert bundle.event("egress.refused", host=host)["reason"] == reason


def test_a_name_that_leads_to_this_host_is_refused(bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    name = socket.gethostname().lower()
    if name == "localhost" or resolve(holder, name) is None:
        pytest.skip("this host has no name of its own")
    assert request(holder, f"http://{name}/", name) in (403, 502)
    assert not [data for data in bundle.events("egress.closed") if data["host"] == name]


def test_an_encrypted_hello_is_refused(bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    with holder.connect("192.0.2.1", 443) as sock:
        sock.sendall(client_hello("hidden.invalid", encrypted=True))
        assert sock.recv(1) == b"\x15"
    assert bundle.event("egress.refused", host="hidden.invalid")["reason"] == "encrypted_hello"


def test_back_in_force_what_was_only_watched_ends(web: Server) -> None:
    with served(watching(web), listeners=listeners_for(watching(web))) as (holder, bundle):
        with holder.connect("127.0.0.1", 3128) as sock:
            sock.sendall(b"GET http://one.test/slow HTTP/1.1\r\nHost: one.test\r\n\r\n")
            read_head(sock)
            put(bundle, watching(web)._replace(mode="enforce"))
            with pytest.raises(ConnectionResetError):
                read_all(sock)
        assert request(holder, "http://new.invalid/", "new.invalid") == 403
        assert resolve(holder, "new.invalid") is None


def test_no_credential_goes_with_what_is_only_watched() -> None:
    route = Route("api.test", 443, credential="key", paths=("/a",))
    policy = EgressPolicy(routes=(route,), mode="observe")
    asked = {"host": "api.test", "port": 443, "protocol": "https", "method": b"GET", "headers": ()}
    allowed = let_through(policy, decide_request(policy, target=b"/a", **asked)).route
    observed = let_through(policy, decide_request(policy, target=b"/b", **asked)).route
    assert allowed is not None
    assert observed is not None
    assert (allowed.credential, observed.credential) == ("key", None)


def test_every_reason_that_is_let_through_is_one_of_the_policys() -> None:
    assert set(REASONS) >= ASKED_FOR


@given(st.text(max_size=40), st.integers(-1, 70000), st.sampled_from(["https", "http", "tcp", "gopher"]))
def test_nothing_without_a_name_is_ever_let_through(host: str, port: int, protocol: str) -> None:
    policy = EgressPolicy(mode="observe")
    before = decide(policy, host=host, port=port, protocol=protocol)
    after = let_through(policy, before)
    if before.reason in ("address_literal", "not_a_host_name"):
        assert after == before
    assert let_through(policy._replace(mode="enforce"), before) == before


def test_kept_alive_it_is_recorded_for_each_request(web: Server) -> None:
    with served(watching(web)._replace(routes=(web.http("one.test")._replace(paths=("/a",)),)),
                listeners=listeners_for(watching(web))) as (holder, bundle):  # fmt: skip
        with holder.connect("127.0.0.1", 3128) as sock:
            for path in ("/a", "/b", "/a", "/c"):
                sock.sendall(f"GET http://one.test{path} HTTP/1.1\r\nHost: one.test\r\n\r\n".encode())
                read_response(sock)
        for path in ("/b", "/c"):
            bundle.event("egress.observed", path=path)
        assert [data["path"] for data in bundle.events("egress.allowed")] == ["/a", "/a"]


def test_what_was_taken_out_of_a_request_does_not_make_it_an_allowed_one(web: Server) -> None:
    policy = watching(web)._replace(secrets=SecretsPolicy(on_match="redact"))
    with served(policy, sensitive=("correct-horse-battery-9",)) as (holder, bundle):
        assert request(holder, "http://one.test/correct-horse-battery-9", "one.test") == 200
        assert bundle.event("egress.observed", host="one.test")["reason"] == "path_not_allowed"
        assert not bundle.events("egress.allowed")
