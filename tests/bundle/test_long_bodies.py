"""Long conversations through a real bundle: bodies of many MiB are searched whole, in bounded memory, and nobody waits for it."""

import asyncio
import base64
import gzip
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import brotli
import pytest

from bot_bottle.bundle.egress import guard, held
from bot_bottle.bundle.egress.asking import Asking
from bot_bottle.bundle.egress.denial import Refusal
from bot_bottle.bundle.egress.guard import SecretGuard
from bot_bottle.bundle.egress.pardon import Pardon
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, OnMatch, Route, SecretsPolicy
from bot_bottle.policy.secrets.scanner import MOST_MATCHES
from bot_bottle.policy.secrets.windows import WINDOW
from tests.bundle.harness import Server, read_response, served
from tests.bundle.test_guard import PROXY, SENSITIVE, TOKEN, Api, Place, post
from tests.bundle.test_intercept import memory
from tests.support.tokens import crc_token

MIB = 1 << 20
TURN = '{"role": "user", "content": "def look(self):\\n    return self.table[name]  # \\u2019, 100%"}, '


@pytest.fixture(scope="module")
def longs() -> Iterator[Place]:
    api = Api()
    web = Server(api.serve)
    routes = (web.http("plain.test"), web.http("stars.test")._replace(on_match="redact"))
    with served(EgressPolicy(routes=routes, secrets=SecretsPolicy()), sensitive=(SENSITIVE,)) as (
        holder,
        bundle,
    ):
        yield Place(holder, bundle, api)
    web.close()


@pytest.fixture
def place(longs: Place) -> Place:
    longs.api.seen.clear()
    longs.api.answer = b"ok"
    return longs


def conversation(size: int, *said: tuple[int, str]) -> bytes:
    """So many bytes of JSON, with something said at each of some places."""
    text = TURN * (size // len(TURN))
    for at, what in sorted(said, reverse=True):
        at -= at % len(TURN)
        text = f'{text[:at]}{{"content": "{what}"}}, {text[at:]}'
    return f"[{text[:-2]}]".encode()


def test_a_long_conversation_goes_on_as_it_is(place: Place) -> None:
    body = conversation(7 * MIB)
    assert len(json.loads(body)) > 70_000
    assert place.send(post(body, "Content-Type: application/json"))[1] == b"ok"
    assert [seen.body for seen in place.api.seen] == [body]


@pytest.mark.parametrize("secret", [TOKEN, SENSITIVE, TOKEN.encode().hex(), "\u200b".join(SENSITIVE)])
@pytest.mark.parametrize("at", [0, WINDOW // 2, WINDOW, 2 * WINDOW, 5 * MIB // 2, 3 * MIB])
def test_a_secret_does_not_leave_in_one_wherever_it_stands(place: Place, secret: str, at: int) -> None:
    body = conversation(3 * MIB, (at, secret))
    assert place.refusal(post(body), "secret_found")["place"] == "body"


def test_at_no_byte_of_a_border_either(place: Place) -> None:
    body = conversation(5 * MIB // 4)
    for at in range(WINDOW - len(TOKEN), WINDOW + 1, 3):
        place.refusal(post(body[:at] + TOKEN.encode() + body[at:]), "secret_found")


def test_stars_take_its_place_where_the_route_says_so(place: Place) -> None:
    clean = conversation(4 * MIB, (WINDOW, "*" * len(TOKEN)), (3 * MIB, "*" * len(SENSITIVE)))
    body = conversation(4 * MIB, (WINDOW, TOKEN), (3 * MIB, SENSITIVE))
    assert place.send(post(body, host="stars.test"))[1] == b"ok"
    assert [seen.body for seen in place.api.seen] == [clean]


def test_nothing_goes_out_before_the_last_byte_was_looked_at(place: Place) -> None:
    request = post(conversation(3 * MIB, (3 * MIB, TOKEN)))
    with place.holder.connect(*PROXY) as sock:
        sock.sendall(request[:-1])
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert not place.api.seen
        sock.settimeout(20)
        sock.sendall(request[-1:])
        assert read_response(sock)[0].startswith(b"HTTP/1.1 403 ")
    assert not place.api.seen


def test_the_longest_takes_bounded_memory_and_one_that_is_longer_is_refused(place: Place) -> None:
    before = memory(place.bundle.pid, "VmRSS")
    assert place.send(post(conversation(31 * MIB)))[1] == b"ok"
    assert memory(place.bundle.pid, "VmHWM") - before < 160 * 1024
    place.api.seen.clear()
    with place.holder.connect(*PROXY) as sock:
        head = b"POST http://plain.test/x HTTP/1.1\r\nHost: plain.test\r\nContent-Length: %d\r\n\r\n"
        sock.sendall(head % (32 * MIB + 1))
        assert json.loads(read_response(sock)[1])["reason"] == "body_too_large"


ROUTE = Route("plain.test", 80, "http")
WANTED = Wanted("plain.test", 80, "http")
Look = Callable[[SecretGuard, bytes], Awaitable[bytes]]


async def through_a_body(guard: SecretGuard, data: bytes) -> bytes:
    asking = Asking(lambda _: None, limits=BundleLimits(), able=False)
    pardon = Pardon(asking, asyncio.Future, lambda *_: None, str)
    return await guard.collected(data, [], WANTED, ROUTE, pardon)


async def through_a_message(guard: SecretGuard, data: bytes) -> bytes:
    return await guard.frame(data, WANTED, ROUTE)


async def through_a_grpc_message(guard: SecretGuard, data: bytes) -> bytes:
    return await guard.whole(data, [], WANTED, ROUTE)


async def turns_of_others(search: Awaitable[bytes]) -> tuple[int, bytes]:
    """How often another one ran meanwhile, and what was found."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(others())
    await asyncio.sleep(0)
    before = turns
    found = await search
    other.cancel()
    return turns - before, found


def a_guard(on_match: OnMatch = "block") -> SecretGuard:
    policy = EgressPolicy((ROUTE,), secrets=SecretsPolicy(on_match=on_match))
    return SecretGuard(policy, {}, (), key=b"", note=lambda *_: None)


LOOKS = pytest.mark.parametrize("look", [through_a_body, through_a_message, through_a_grpc_message])


@LOOKS
def test_others_have_their_turn_between_the_windows_of_a_long_one(look: Look) -> None:
    def turns(size: int) -> int:
        return asyncio.run(turns_of_others(look(a_guard(), conversation(size))))[0]

    assert turns(9 * WINDOW + 9) - turns(WINDOW // 2) >= 9


@pytest.mark.parametrize("look", [through_a_body, through_a_grpc_message])
@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_others_have_it_too_while_one_is_unpacked(
    coding: str, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that is unpacked and then searched has a turn for each MiB of the one (brotli's for two) and of the other."""
    monkeypatch.setattr(guard, "_codings", lambda _: [coding])
    packed = {"gzip": gzip.compress, "br": partial(brotli.compress, quality=3)}[coding](bytes(30 * MIB))
    searched = asyncio.run(turns_of_others(through_a_message(a_guard(), bytes(30 * MIB))))[0]
    assert asyncio.run(turns_of_others(look(a_guard(), packed)))[0] >= searched + (
        29 if coding == "gzip" else 14
    )


@LOOKS
@pytest.mark.parametrize("wrap", [bytes, base64.b64encode])
def test_others_have_it_too_while_what_is_packed_in_one_is_looked_into(
    look: Look, wrap: Callable[[bytes], bytes]
) -> None:
    packed = wrap(gzip.compress(bytes(8 * MIB)))
    body = conversation(MIB)[: 900 * 1024] + b" " + packed
    assert len(body) < WINDOW
    assert asyncio.run(turns_of_others(look(a_guard(), body)))[0] >= 14


def test_what_is_packed_twice_in_a_long_one_is_found(place: Place) -> None:
    inner = gzip.compress(conversation(3 * MIB, (2 * MIB, TOKEN)))
    body = conversation(2 * MIB) + gzip.compress(b"before " + inner + b" behind") + conversation(2 * MIB)
    assert "gzip+gzip" in place.refusal(post(body), "secret_found")["encoding"]


@LOOKS
def test_others_have_it_too_while_stars_are_put_and_all_is_searched_again(look: Look) -> None:
    size = 4 * WINDOW + 9
    clean, dirty = conversation(size), conversation(size, (WINDOW, TOKEN), (3 * WINDOW, TOKEN))
    searched, _ = asyncio.run(turns_of_others(look(a_guard("redact"), clean)))
    starred, found = asyncio.run(turns_of_others(look(a_guard("redact"), dirty)))
    assert found == dirty.replace(TOKEN.encode(), b"*" * len(TOKEN))
    assert starred >= 2 * searched + 8  # all windows twice, and one for each encoding that is looked for


def test_a_body_with_more_secrets_than_are_told_of_is_refused_instead_of_taking_minutes() -> None:
    tokens = [crc_token("ghp", random.Random(number)) for number in range(MOST_MATCHES + 1)]
    places = [(number * WINDOW // 8, token) for number, token in enumerate(tokens)]
    with pytest.raises(Refusal) as refused:
        asyncio.run(through_a_message(a_guard("redact"), conversation(5 * WINDOW, *places)))
    assert refused.value.reason == "secret_found"
    body = conversation(5 * WINDOW, *places[:-1])
    assert b"*" * len(TOKEN) in asyncio.run(through_a_message(a_guard("redact"), body))


def test_a_message_that_is_being_looked_at_gives_way_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MOST", 100)
    monkeypatch.setattr(held, "PATIENCE", -1.0)  # whatever is coming has been for long enough

    async def crowd(*, whole: bool) -> None:
        first, second = held.Held(WANTED), held.Held(WANTED)
        try:
            async with first.coming():
                first.are(80)
                if whole:
                    first.whole()
                second.are(80)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        finally:
            first.nothing()
            second.nothing()

    for whole, reason in ((True, "body_too_large"), (False, "body_stalled")):
        with pytest.raises(Refusal) as refused:
            asyncio.run(crowd(whole=whole))
        assert refused.value.reason == reason
