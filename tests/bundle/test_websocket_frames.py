"""The reader of WebSocket frames against everything: it reads what was written, and nothing that it refuses goes on."""

import asyncio
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Frame
from websockets.streams import StreamReader

from bot_bottle.bundle.egress.denial import Refusal
from bot_bottle.bundle.egress.held import Held
from bot_bottle.bundle.egress.websocket.frames import (
    BINARY,
    PING,
    PONG,
    TEXT,
    BadFrame,
    Control,
    FrameReader,
    Piece,
    masked,
    written,
)
from bot_bottle.bundle.egress.websocket.looking import Looking, Starring
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.secrets.hiding import Reflection, Words

CONTROLS = st.builds(Control, st.sampled_from((PING, PONG)), st.binary(max_size=125))
MESSAGES = st.tuples(
    st.sampled_from((TEXT, BINARY)), st.lists(st.binary(max_size=300), min_size=1, max_size=4)
)


def frames_of(kind: int, parts: list[bytes], between: list[Control]) -> list[Piece | Control]:
    made: list[Piece | Control] = []
    for at, part in enumerate(parts):
        made.append(Piece(kind, part, at == 0, at == len(parts) - 1))
        made += between
    return made


def cut(data: bytes, sizes: list[int]) -> Iterable[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def messages_in(items: Iterable[Piece | Control]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    under_way = False
    for item in items:
        if isinstance(item, Control):
            found.append(tuple(item))
            continue
        assert item.first is not under_way
        if item.first:
            whole, under_way = b"", True
        whole += item.data
        if item.final:
            found.append((item.kind, whole))
            under_way = False
    return found


@given(
    st.lists(MESSAGES, max_size=5),
    st.lists(CONTROLS, max_size=2),
    st.lists(st.integers(1, 40), max_size=60),
    st.booleans(),
)
def test_what_is_written_is_read_however_it_is_cut(
    messages: list[tuple[int, list[bytes]]], between: list[Control], sizes: list[int], mask: bool
) -> None:
    items = [item for kind, parts in messages for item in frames_of(kind, parts, between)]
    data = b"".join(written(item, mask=mask) for item in items)
    reader = FrameReader(masked=mask, deflate=False)
    read = [item for part in cut(data, sizes) for item in reader.feed(part)]
    assert sorted(messages_in(read)) == sorted(messages_in(items))
    again = FrameReader(masked=False, deflate=False)
    anew = b"".join(written(item, mask=False) for item in read)
    assert messages_in(again.feed(anew)) == messages_in(read)


@settings(max_examples=2000)
@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_anything_else_is_read_or_refused_and_nothing_else_happens(
    data: bytes, mask: bool, deflate: bool
) -> None:
    reader = FrameReader(masked=mask, deflate=deflate)
    try:
        for item in reader.feed(data):
            assert len(written(item, mask=False)) <= len(data) + 10
    except BadFrame:
        return


FRAME = st.builds(
    lambda first, second, more: bytes((first, second)) + more,
    st.sampled_from([bits | kind for bits in (0, 0x80, 0x40, 0xC0, 0x20) for kind in range(16)]),
    st.sampled_from([mask | size for mask in (0, 0x80) for size in (0, 1, 5, 125, 126, 127)]),
    st.binary(max_size=20),
)


@settings(max_examples=3000)
@given(st.lists(FRAME, min_size=1, max_size=4))
def test_what_it_takes_another_reader_takes_as_well_and_understands_alike(frames: list[bytes]) -> None:
    data = b"".join(frames)
    ours: list[Piece | Control] = []
    try:
        for item in FrameReader(masked=True, deflate=False).feed(data):
            ours.append(item)
    except BadFrame:
        pass
    theirs = list(frames_by_another_reader(data))
    at = 0
    for kind, payload, final in theirs:
        if at == len(ours):
            return  # refused, or cut
        item = ours[at]
        at += 1
        if isinstance(item, Piece):
            assert (item.kind if item.first else 0, item.final) == (kind, final)
        else:
            assert item.kind == kind
        assert item.data == payload
    assert len(ours) - at <= 1  # the beginning of one more


def frames_by_another_reader(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """What the `websockets` library makes of it, until it refuses."""
    stream = StreamReader()
    stream.feed_data(data)
    while True:
        parsing = Frame.parse(stream.read_exact, mask=True)
        try:
            next(parsing)
        except StopIteration as read:
            yield int(read.value.opcode), bytes(read.value.data), read.value.fin
        except ProtocolError:
            return
        else:
            return


@given(st.binary(max_size=500), st.binary(min_size=4, max_size=4))
def test_masking_is_its_own_opposite(data: bytes, key: bytes) -> None:
    once = masked(data, key)
    assert masked(once, key) == data
    assert once == bytes(byte ^ key[at % 4] for at, byte in enumerate(data))


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=12), st.integers(0, 100))
def test_a_message_is_looked_at_whole_or_goes_nowhere(parts: list[bytes], limit: int) -> None:
    seen: list[bytes] = []

    async def look(data: bytes) -> bytes:
        seen.append(data)
        if len(data) > limit:
            raise Refusal(403, "body_too_large", "")
        return data

    counted = Held(Wanted("a.test", 443, "https"))
    looking = Looking(look, limit, counted)
    out: list[Piece | Control] = []
    whole = b"".join(parts)
    try:
        for item in frames_of(BINARY, parts, []):
            out += asyncio.run(looking.take(item))
    except Refusal:
        assert len(whole) > limit
        assert out == []
    else:
        assert seen == [whole]
        assert messages_in(out) == [(BINARY, whole)]
    finally:
        counted.nothing()


@given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.integers(1, 9), max_size=20))
def test_a_credential_is_starred_across_fragments_and_the_length_stays(
    before: bytes, behind: bytes, sizes: list[int]
) -> None:
    secret = b"the-secret-of-the-route"
    message = before + secret + behind
    starring = Starring(lambda: Reflection(Words([secret])))
    pieces = frames_of(TEXT, list(cut(message, sizes)), [Control(PING, b"p")])
    out = [one for item in pieces for one in asyncio.run(starring.take(item))]
    (text,) = [data for kind, data in messages_in(out) if kind == TEXT]
    assert secret not in text
    assert len(text) == len(message)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_every_length_is_written_in_its_shortest_form(size: int) -> None:
    data = written(Piece(BINARY, bytes(size), True, True), mask=True)
    assert messages_in(FrameReader(masked=True, deflate=False).feed(data)) == [(BINARY, bytes(size))]
