"""A request with a secret in it waits for a person where the policy says so, and goes on as it is when it may."""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bot_bottle.bundle.egress import asking
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy
from bot_bottle.policy.secrets.scanner import MOST_MATCHES
from tests.bundle.conftest import Certificate
from tests.bundle.h2peers import Client
from tests.bundle.harness import Bundle, Holder, Server, in_header, read_response, served
from tests.bundle.opened import opened
from tests.bundle.test_asking import held, release
from tests.bundle.test_dns import ask as ask_name
from tests.bundle.test_dns import code, query
from tests.bundle.test_guard import Api, chunked, get, post
from tests.bundle.test_http2 import Recorder
from tests.bundle.test_policy_change import put
from tests.support.tokens import crc_token

PROXY = ("127.0.0.1", 3128)
TOKEN = crc_token("ghp", random.Random(1))
SENSITIVE = "correct-horse-battery-9"
PLACEHOLDER = "sk-ant-api03-placeholder-key-5d2c9a"
HOLD = SecretsPolicy(on_match="hold", limit=64 * 1024)


class Place(NamedTuple):
    holder: Holder
    bundle: Bundle
    api: Api
    policy: EgressPolicy


@pytest.fixture
def place() -> Iterator[Place]:
    api = Api()
    plain = Server(api.serve)
    routes = (plain.http("plain.test"), Route(host="*.tunnel.test", port=443, upstream=plain.upstream()))
    policy = EgressPolicy(routes=routes, secrets=HOLD)
    key = {"key": in_header("x-api-key", "s3cret-Key/4711-of-mine", placeholder=PLACEHOLDER)}
    with served(policy, credentials=key, sensitive=(SENSITIVE,), supervised=True) as (holder, bundle):
        yield Place(holder, bundle, api, policy)
    plain.close()


ZIPPED = gzip.compress(f"a {SENSITIVE}".encode())
PLACES: dict[str, tuple[bytes, str, bytes]] = {
    "the url": (get(f"/x?a={TOKEN}"), "url", TOKEN.encode()),
    "a header": (get("/x", f"X-A: {TOKEN}"), "header x-a", TOKEN.encode()),
    "a body": (post(SENSITIVE.encode()), "body", SENSITIVE.encode()),
    "a body in chunks": (chunked(SENSITIVE[:9].encode(), SENSITIVE[9:].encode()), "body", SENSITIVE.encode()),
    "a packed body": (post(ZIPPED, "Content-Encoding: gzip"), "body", ZIPPED),
}


@pytest.mark.parametrize("where", PLACES)
def test_it_waits_and_goes_on_as_it_is(where: str, place: Place) -> None:
    data, found, there = PLACES[where]
    with place.holder.connect(*PROXY) as sock:
        sock.sendall(data)
        message = place.bundle.hear(lambda one: "hold" in one)
        assert (message["kind"], message["host"], message["place"]) == ("secret", "plain.test", found)
        assert message["detector"]
        assert len(message["fingerprint"]) == 8
        assert not place.api.seen
        release(place.bundle, message["hold"], passes=True)
        assert read_response(sock)[0].startswith(b"HTTP/1.1 200 ")
    assert there in place.api.seen[0].head + place.api.seen[0].body
    told = json.dumps(place.bundle.messages)
    assert SENSITIVE not in told
    assert TOKEN not in told
    place.bundle.event("egress.released", place=found)


@pytest.mark.parametrize("where", PLACES)
def test_a_no_sends_nothing(where: str, place: Place) -> None:
    with place.holder.connect(*PROXY) as sock:
        sock.sendall(PLACES[where][0])
        release(place.bundle, held(place.bundle), passes=False, reason="held_rejected")
        head, body = read_response(sock)
        assert head.startswith(b"HTTP/1.1 403 ")
        assert json.loads(body)["reason"] == "held_rejected"
    assert not place.api.seen


def test_a_yes_is_for_one_request_and_for_what_was_shown_of_it(place: Place) -> None:
    data = post(SENSITIVE.encode(), f"X-A: {TOKEN}", f"X-B: {TOKEN}")
    with place.holder.connect(*PROXY) as sock:
        sock.sendall(data)
        first = held(place.bundle, place="header x-a")
        release(place.bundle, first, passes=True)
        second = held(
            place.bundle, place="body"
        )  # another secret: asked about as well; the same one not again
        assert not place.api.seen
        release(place.bundle, second, passes=True)
        assert read_response(sock)[0].startswith(b"HTTP/1.1 200 ")
        sock.sendall(data)  # the next request is another one
        assert held(place.bundle, place="header x-a", hold=second + 1)
    assert len(place.api.seen) == 1


def test_two_with_the_same_secret_are_two_questions(place: Place) -> None:
    with place.holder.connect(*PROXY) as one, place.holder.connect(*PROXY) as other:
        one.sendall(post(SENSITIVE.encode()))
        first = held(place.bundle)
        other.sendall(post(SENSITIVE.encode()))
        second = held(place.bundle, hold=first + 1)
        release(place.bundle, first, passes=True)
        assert read_response(one)[0].startswith(b"HTTP/1.1 200 ")
        release(place.bundle, second, passes=False, reason="held_rejected")
        assert read_response(other)[0].startswith(b"HTTP/1.1 403 ")
    assert len(place.api.seen) == 1


def test_a_placeholder_is_nothing_to_be_asked_about(place: Place) -> None:
    for data in (get("/x", f"X-A: {PLACEHOLDER}"), post(f"{PLACEHOLDER} {SENSITIVE}".encode())):
        with place.holder.connect(*PROXY) as sock:
            sock.sendall(data)
            assert json.loads(read_response(sock)[1])["reason"] == "placeholder_misused"
    assert not [one for one in place.bundle.messages if "hold" in one]


def test_a_name_waits_for_nobody(place: Place) -> None:
    name = f"{SENSITIVE}.tunnel.test"
    assert code(ask_name(place.holder, query(name))) == 3
    place.bundle.event("dns.refused", reason="secret_found")
    assert not [one for one in place.bundle.messages if "hold" in one]


def test_a_policy_that_forbids_the_place_ends_what_waits(place: Place) -> None:
    with place.holder.connect(*PROXY) as sock:
        sock.sendall(post(SENSITIVE.encode()))
        number = held(place.bundle)
        put(place.bundle, place.policy._replace(routes=place.policy.routes[1:]))
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        release(place.bundle, number, passes=True)
        assert place.bundle.hear(lambda one: "unhold" in one)["unhold"] == number
    assert not place.api.seen


def test_it_waits_on_one_stream_of_many(certificate: Certificate, tmp_path: Path) -> None:
    upstream = Recorder(certificate)
    policy = EgressPolicy(routes=(Route("ok.test", 443, upstream=upstream.server.upstream()),), secrets=HOLD)
    more: dict[str, Any] = {"supervised": True, "sensitive": (SENSITIVE,)}
    with opened(policy, certificate, tmp_path, **more) as bottle:
        client = Client(bottle.connect("ok.test", "h2"))
        waits = client.start(method="POST", body=SENSITIVE.encode())
        number = held(bottle.bundle, kind="secret", place="body")
        assert client.ask(method="POST", body=b"other").status == 200
        release(bottle.bundle, number, passes=True)
        assert client.answer(waits).body == SENSITIVE.encode()
        refused = client.start(path=f"/{TOKEN}")
        message = bottle.bundle.hear(lambda one: one.get("place") == "url" and "hold" in one)
        assert TOKEN not in message["path"]
        release(bottle.bundle, message["hold"], passes=False, reason="held_expired")
        assert client.answer(refused).status == 403
        client.sock.close()
    upstream.server.close()


def test_bodies_that_wait_are_bounded(certificate: Certificate) -> None:
    api = Api()
    plain = Server(api.serve)
    large = asking.MOST_HELD // 3 - 1000
    policy = EgressPolicy((plain.http("plain.test"),), SecretsPolicy(on_match="hold", limit=large + 1000))
    with served(policy, sensitive=(SENSITIVE,), supervised=True) as (holder, bundle):
        socks = [holder.connect(*PROXY) for _ in range(4)]
        for number, sock in enumerate(socks):
            sock.sendall(post(SENSITIVE.encode() + b" " * large))
            if number < 3:
                held(bundle, hold=number + 1)
        assert json.loads(read_response(socks[-1])[1])["reason"] == "held_crowded"
        for sock in socks:
            sock.close()
    plain.close()


def test_more_secrets_than_can_be_shown_are_not_asked_about(place: Place) -> None:
    """A yes to those that were shown would let the others go."""
    tokens = " ".join(crc_token("ghp", random.Random(at)) for at in range(MOST_MATCHES + 1))
    with place.holder.connect(*PROXY) as sock:
        sock.sendall(post(tokens.encode()))
        said = json.loads(read_response(sock)[1])
    assert (said["reason"], said["what"]["detector"]) == ("secret_found", "github")
    assert not place.api.seen
