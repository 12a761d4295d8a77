"""The parts of HTTP/2 by themselves, against everything: what they let through is what was judged, and nothing breaks them."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.bundle.egress import held
from bot_bottle.bundle.egress.denial import Refusal
from bot_bottle.bundle.egress.heads import BadMessage
from bot_bottle.bundle.egress.held import Held
from bot_bottle.bundle.egress.http2 import grpc
from bot_bottle.bundle.egress.http2.frames import PREFACE, BadFrames, Bucket, Flood, Frames
from bot_bottle.bundle.egress.http2.heads import read_request, read_response, read_trailers
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.conftest import Certificate
from tests.bundle.h2peers import Asked, Client, Serving
from tests.bundle.harness import Server
from tests.bundle.opened import Opened, opened, with_tls

PIECES = st.lists(st.integers(1, 30), max_size=40)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


# Frames


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.binary(max_size=60)), max_size=6), PIECES
)
def test_frames_are_cut_apart_alike_however_they_come(
    frames: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    data = b"".join(
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + bytes(4) + payload
        for kind, flags, payload in frames
    )
    reader = Frames(from_client=True)
    read = [frame for part in cut(PREFACE + data, sizes) for frame in reader.feed(part)]
    assert [(frame.kind, frame.flags, frame.payload) for frame in read] == frames
    assert b"".join(frame.data for frame in read) == data


@given(st.binary(max_size=300))
def test_nothing_but_the_preface_begins_it(data: bytes) -> None:
    reader = Frames(from_client=True)
    with contextlib.suppress(BadFrames):
        assert not list(reader.feed(data)) or data.startswith(PREFACE)


def test_a_head_has_an_end_however_many_frames_it_comes_in() -> None:
    def frame(kind: int, size: int, flags: int = 0) -> bytes:
        return size.to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, 1)) + bytes(size)

    reader = Frames(from_client=False)
    assert list(reader.feed(frame(1, 16000) + frame(9, 16000) * 4 + frame(9, 0, 4)))
    assert list(reader.feed(frame(1, 16000) + frame(9, 16000) * 4))
    with pytest.raises(BadFrames):
        list(reader.feed(frame(9, 16000)))


def test_an_allowance_comes_back_with_time_and_no_further_than_it_was() -> None:
    now = [0.0]
    bucket = Bucket(3, 2.0, lambda: now[0])
    for _ in range(3):
        bucket.take()
    with pytest.raises(Flood):
        bucket.take()
    now[0] = 0.5
    bucket.take()
    with pytest.raises(Flood):
        bucket.take()
    now[0] = 1000.0
    bucket.give(50)
    for _ in range(3):
        bucket.take()
    with pytest.raises(Flood):
        bucket.take()


# Heads

TEXT = st.binary(max_size=12)
FIELDS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(
                [
                    b":method",
                    b":path",
                    b":scheme",
                    b":authority",
                    b"host",
                    b"x",
                    b"te",
                    b"connection",
                    b"upgrade",
                    b"transfer-encoding",
                ]
            ),
            TEXT,
        ),
        TEXT,
    ),
    max_size=4,
)
GOOD = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"ok.test"), (b":path", b"/a")]


@settings(max_examples=1000)
@given(FIELDS, FIELDS)
def test_a_head_that_is_taken_has_one_meaning_in_http_1_as_well(before: Any, behind: Any) -> None:
    try:
        head = read_request([*before, *GOOD, *behind], most=200)
    except BadMessage:
        return
    assert (head.method, head.authority, head.path) == (b"GET", b"ok.test", b"/a")
    assert not {name for name, _ in [*before, *behind]} & {b"connection", b"upgrade", b"transfer-encoding"}
    for name, value in head.headers:
        assert name == name.lower()
        assert name
        assert not set(name) & set(b" :\r\n\0\t")
        assert not set(value) & set(b"\r\n\0")
        assert value == value.strip(b" \t")
        assert name not in (
            b"connection",
            b"transfer-encoding",
            b"upgrade",
            b"host",
            b"te",
            b"content-length",
        )


@settings(max_examples=500)
@given(FIELDS)
def test_responses_and_trailers_are_read_or_refused(fields: Any) -> None:
    for read in (read_response, read_trailers):
        with contextlib.suppress(BadMessage):
            read(fields, most=3)
            assert len(fields) <= 3


# gRPC


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=50)), max_size=6), PIECES, st.integers(0, 40))
def test_every_message_is_looked_at_before_a_byte_of_it_goes_on(
    messages: list[tuple[int, bytes]], sizes: list[int], limit: int
) -> None:
    data = b"".join(bytes((flag,)) + len(text).to_bytes(4, "big") + text for flag, text in messages)
    seen: list[tuple[int, bytes]] = []

    async def look(text: bytes, compressed: bool) -> bytes:
        seen.append((int(compressed), text))
        return text

    reader = grpc.Messages(look, limit)
    out = bytearray()
    for part in cut(data, sizes):
        out += asyncio.run(reader.feed(part))
        done = b"".join(
            bytes((flag,)) + len(text).to_bytes(4, "big") + text for flag, text in messages[: len(seen)]
        )
        assert len(out) <= len(done)
    reader.end()
    assert bytes(out) == data
    for (flag, text), (flag_seen, text_seen) in zip(messages, seen, strict=True):
        assert flag == flag_seen
        assert (
            text_seen == text if len(text) <= limit else text.startswith(text_seen) and len(text_seen) > limit
        )


@given(st.binary(max_size=60), PIECES)
def test_what_are_no_grpc_messages_goes_no_further(data: bytes, sizes: list[int]) -> None:
    async def look(text: bytes, _: bool) -> bytes:
        return text

    reader = grpc.Messages(look, 20)
    out = bytearray()
    with contextlib.suppress(BadMessage):
        for part in cut(data, sizes):
            out += asyncio.run(reader.feed(part))
        reader.end()
        assert bytes(out) == data
    assert data.startswith(bytes(out))


def test_what_all_streams_hold_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MOST", 100)
    place = Wanted("ok.test", 443, "https")
    first, second = Held(place), Held(place)
    first.are(60)
    second.are(40)
    with pytest.raises(Refusal):
        second.are(41)
    first.are(0)
    second.are(100)
    second.are(0)
    assert Held.total == 0


# A whole bundle

RAW = st.builds(
    lambda kind, flags, stream, payload, lie: (
        (len(payload) if lie is None else lie).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 7, 0x80000001]), st.binary(max_size=40),
    st.one_of(st.none(), st.integers(0, 20000)),
)  # fmt: skip
ACTS = st.lists(
    st.one_of(
        RAW,
        st.tuples(
            st.sampled_from(["/a", "/b", "/a/../b", "/a/%2e%2e/b", "//b", "/a\r\n", "*"]), st.booleans()
        ),
        st.binary(max_size=30),
    ),
    min_size=1,
    max_size=8,
)


class Fuzzed:
    def __init__(self, certificate: Certificate) -> None:
        self.asked: list[Asked] = []
        self.server = Server(with_tls(certificate, lambda sock: Serving(sock, self._reply).run(), "h2"))

    def _reply(self, serving: Serving, number: int, asked: Asked) -> None:
        self.asked.append(asked)
        serving.say(number, b"fine")


@pytest.fixture(scope="module")
def fuzzed(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Opened, Fuzzed]]:
    upstream = Fuzzed(certificate)
    policy = EgressPolicy((Route("ok.test", 443, upstream=upstream.server.upstream(), paths=("/a",)),))
    limits = BundleLimits(first_bytes_seconds=2.0, idle_seconds=2.0)
    with opened(policy, certificate, tmp_path_factory.mktemp("trusted"), limits=limits) as bottle:
        yield bottle, upstream
    upstream.server.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTS)
def test_whatever_is_sent_the_upstream_sees_only_what_is_allowed_and_others_are_served(
    fuzzed: tuple[Opened, Fuzzed], acts: list[Any]
) -> None:
    bottle, upstream = fuzzed
    with bottle.connect("ok.test", "h2") as sock:
        client = Client(sock)
        with contextlib.suppress(Exception):
            for act in acts:
                if isinstance(act, bytes):
                    sock.sendall(act)
                else:
                    client.start(path=act[0], end=act[1])
            sock.settimeout(0.02)
            client.take()
    with bottle.connect("ok.test", "h2") as sock:
        assert Client(sock).ask().body == b"fine"
    assert {dict(asked.headers)[b":path"] for asked in upstream.asked} == {b"/a"}
    assert not [data for data in bottle.bundle.events("egress.failed") if data["reason"] == "internal"]
