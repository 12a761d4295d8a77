"""What hides a text keeps every length and every other byte, whatever the pieces; what unpacks has an end."""

import base64
import gzip
import html
import json
import random
import zlib
from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar
from urllib.parse import quote, quote_plus

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.policy.secrets.hiding import Reflection, Words, spellings, without
from bot_bottle.policy.secrets.known import Known
from bot_bottle.policy.secrets.scanner import Scanner
from bot_bottle.policy.secrets.unpack import STEP, Unreadable, embedded, unpack

T = TypeVar("T")

SECRET = b"sk-ant-Zk3/wQx9+Lmn0_4711"
FORMS = {
    "plain": SECRET,
    "URL": b"sk-ant-Zk3%2FwQx9%2BLmn0_4711",
    "URL, small": b"sk-ant-Zk3%2fwQx9%2bLmn0_4711",
    "JSON": b"sk-ant-Zk3\\/wQx9+Lmn0_4711",
    "hexadecimal": SECRET.hex().encode(),
    "hexadecimal, capital": SECRET.hex().upper().encode(),
}
WORDS = spellings(SECRET)


def reflected(pieces: list[bytes]) -> bytes:
    stream = Reflection(Words(WORDS))
    return b"".join([*(stream.feed(piece) for piece in pieces), stream.end()])


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_becomes_stars_wherever_the_pieces_are_cut(form: str) -> None:
    data = b'{"you sent": "' + FORMS[form] + b'"}'
    hidden = data.replace(FORMS[form], b"*" * len(FORMS[form]))
    for first in range(len(data)):
        for second in (first, first + 1, first + 7, len(data)):
            assert reflected([data[:first], data[first:second], data[second:]]) == hidden
    assert reflected([data[at : at + 1] for at in range(len(data))]) == hidden


SPECIAL = "aB+cD/eF=gH\"i&j<k>l'm 9x:y@z"
IN_JSON = json.dumps(SPECIAL)[1:-1]


def escaped(text: str, characters: str, code: str) -> str:
    return "".join(code % ord(one) if one in characters else one for one in text)


WRITTEN = {
    "urllib.parse.quote": quote(SPECIAL),
    "urllib.parse.quote_plus": quote_plus(SPECIAL),
    "encodeURI": quote(SPECIAL, safe=";,/?:@&=+$-_.!~*'()#"),
    "encodeURIComponent": quote(SPECIAL, safe="-_.!~*'()"),
    "JSON": IN_JSON,
    "PHP's JSON": IN_JSON.replace("/", "\\/"),
    "Go's JSON": escaped(IN_JSON, "<>&", "\\u%04x"),
    ".NET's JSON": escaped(SPECIAL, "<>&'\"+`", "\\u%04X"),
    "Python's HTML": html.escape(SPECIAL),
    "Go's HTML": escaped(html.escape(SPECIAL, quote=False), "\"'+", "&#%d;"),
}


@pytest.mark.parametrize("writer", WRITTEN)
def test_a_secret_with_signs_in_it_becomes_stars_as_programs_write_it(writer: str) -> None:
    written = WRITTEN[writer].encode()
    stream = Reflection(Words(spellings(SPECIAL.encode())))
    assert (
        stream.feed(b"you sent: " + written + b" .") + stream.end()
        == b"you sent: " + b"*" * len(written) + b" ."
    )


def test_an_ordinary_secret_is_looked_for_in_no_more_forms_than_it_has() -> None:
    assert len(spellings(b"sk-ant-api03-0123456789abcdef")) == len(
        spellings(b"skxantxapi03x0123456789abcdef")
    )


@pytest.mark.parametrize("before", [b"", b"a", b"me:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.b32encode])
def test_it_becomes_stars_within_base64_as_well(before: bytes, encode) -> None:
    data = encode(before + SECRET + b"!?")
    hidden = reflected([data])
    assert len(hidden) == len(data)
    padded = hidden.replace(b"*", b"A")
    decoded = (base64.b32decode if encode is base64.b32encode else base64.urlsafe_b64decode)(
        padded.replace(b"+", b"-").replace(b"/", b"_")
    )
    assert SECRET[2:-2] not in decoded
    assert hidden.count(b"*") > len(data) * 2 // 3


@given(
    st.lists(
        st.binary(max_size=50) | st.sampled_from([SECRET, SECRET[:9], SECRET[9:], SECRET[:-1]]), max_size=12
    )
)
def test_other_bytes_pass_as_they_are(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    passed = reflected(pieces)
    assert len(passed) == len(whole)
    assert SECRET not in passed
    assert all(one == other or one == ord("*") for one, other in zip(passed, whole, strict=True))
    if SECRET not in whole:
        assert passed == whole


@settings(max_examples=300)
@given(
    st.text("abcdefghijkXYZ0189-_+/.=", min_size=8, max_size=90).map(str.encode),
    st.integers(0, 40_000),
    st.integers(0, 60),
    st.sampled_from([b"\0", b"a", b"Zm9v", b"0123456789abcdef"]),
    st.data(),
)
def test_it_is_found_in_much_text_as_in_little_wherever_it_lies(
    secret: bytes, before: int, behind: int, filler: bytes, data: st.DataObject
) -> None:
    words = Words(spellings(secret))
    written = data.draw(st.sampled_from(spellings(secret)))
    text = (filler * before)[:before] + written + (filler * behind)[:behind]
    if len(written) >= 8:
        assert written not in words.starred(text)
        assert len(words.starred(text)) == len(text)


@settings(max_examples=300)
@given(
    st.text("ab+/", min_size=8, max_size=20).map(str.encode), st.text("ab+/2%", max_size=60).map(str.encode)
)
def test_exactly_what_may_be_a_beginning_is_held_back(secret: bytes, text: bytes) -> None:
    words = [word for word in spellings(secret) if len(word) >= 8]
    starts = [
        at
        for at in range(len(text))
        if any(len(text) - at <= len(word) and word.startswith(text[at:]) for word in words)
    ]
    assert Words(words).beginning(text) == min(starts, default=len(text))


def test_what_can_not_be_a_beginning_is_not_held_back() -> None:
    stream = Reflection(Words(WORDS))
    assert stream.feed(b"data: {}\n\n") == b"data: {}\n\n"
    assert stream.feed(b"data: sk-ant") == b"data: "
    assert stream.feed(b"-other\n\n") == b"sk-ant-other\n\n"


@pytest.mark.parametrize("form", [*FORMS, "base64", "base32"])
def test_what_is_redacted_keeps_its_length_and_is_found_no_more(form: str) -> None:
    encoders = {"base64": base64.b64encode, "base32": base64.b32encode}
    shown = encoders[form](b"x" + SECRET) if form in encoders else FORMS[form]
    data = b"before " + shown + b" behind"
    changed = without(data, SECRET)
    assert len(changed) == len(data)
    assert changed.startswith(b"before ")
    assert changed.endswith(b" behind")
    if form != "JSON":
        assert b"*" in changed
        assert not Scanner([Known("mine", SECRET)], formats=False).scan(changed)


PLAIN = random.Random(3).randbytes(5000) + bytes(5000)
RAW = zlib.compressobj(wbits=-15)
PACKED = {
    "gzip": gzip.compress(PLAIN),
    "x-gzip": gzip.compress(PLAIN[:5000]) + gzip.compress(PLAIN[5000:]),
    "deflate": zlib.compress(PLAIN),
    "br": brotli.compress(PLAIN),
}


def unpacked(data: bytes, codings: list[str], *, limit: int) -> bytes:
    return driven(unpack(data, codings, limit=limit))[0]


def driven(steps: Generator[int, None, T]) -> tuple[T, list[int]]:
    """What `steps` come to, and how much each of them did."""
    done: list[int] = []
    while True:
        try:
            done.append(next(steps))
        except StopIteration as end:
            return end.value, done


@pytest.mark.parametrize("coding", PACKED)
def test_each_coding_is_undone(coding: str) -> None:
    assert unpacked(PACKED[coding], [coding], limit=10000) == PLAIN


def test_deflate_is_undone_without_its_frame_too() -> None:
    assert unpacked(RAW.compress(PLAIN) + RAW.flush(), ["deflate"], limit=10000) == PLAIN


def test_codings_are_undone_in_turn() -> None:
    assert unpacked(brotli.compress(gzip.compress(PLAIN)), ["gzip", "identity", "br"], limit=20000) == PLAIN


@pytest.mark.parametrize("coding", PACKED)
def test_too_much_a_cut_and_anything_behind_are_refused(coding: str) -> None:
    data = PACKED[coding]
    for wrong in (data[:-1], data[: len(data) // 2], data + b"x", b"", b"no"):
        with pytest.raises(Unreadable):
            unpacked(wrong, [coding], limit=10000)
    with pytest.raises(Unreadable):
        unpacked(data, [coding], limit=9999)


def test_a_bomb_is_given_up_early() -> None:
    million = bytes(64 << 20)
    for coding, packed in (("gzip", gzip.compress(million)), ("br", brotli.compress(million, quality=3))):
        with pytest.raises(Unreadable):
            unpacked(packed, [coding], limit=1 << 20)


def test_what_is_not_known_or_nested_too_deep_is_refused() -> None:
    for codings in (["zstd"], ["gzip", "compress"], ["gzip"] * 4, ["*"], ["dcb"]):
        with pytest.raises(Unreadable):
            unpacked(PLAIN, codings, limit=10000)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.sampled_from(sorted(PACKED)))
def test_unpacking_has_an_answer_to_any_bytes(data: bytes, coding: str) -> None:
    try:
        assert len(unpacked(data, [coding], limit=1000)) <= 1000
    except Unreadable:
        pass


@pytest.mark.parametrize("plain", [bytes(20 << 20), random.Random(9).randbytes(3 << 20) + bytes(9 << 20)])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", partial(brotli.compress, quality=3))],
)
def test_no_step_of_unpacking_does_much(coding: str, pack: Callable[[bytes], bytes], plain: bytes) -> None:
    found, steps = driven(unpack(pack(plain), [coding], limit=len(plain)))
    assert found == plain
    assert max(steps) <= (2 if coding == "br" else 1) * STEP + 16 * 1024
    assert sum(steps) >= len(plain)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 40_000), st.binary(max_size=40))
def test_what_is_embedded_is_unpacked_as_far_as_it_goes(text: bytes, cut: int, behind: bytes) -> None:
    plain = text * 60 + random.Random(len(text)).randbytes(20_000)
    packed = gzip.compress(plain, mtime=0)[: max(cut, 12)]
    found, steps = driven(embedded(b"before " + packed + behind, limit=1 << 20))
    whole = zlib.decompressobj(31)
    expected = whole.decompress(packed)
    assert (found or b"").startswith(expected)
    assert len(steps) <= 20


def test_what_is_before_the_break_of_an_embedded_stream_is_seen() -> None:
    packed = bytearray(gzip.compress(b"secret " + random.Random(1).randbytes(100_000)))
    packed[60_000:60_100] = bytes(100)
    packed[90_000:90_100] = bytes(100)
    found, _ = driven(embedded(b"x" + bytes(packed), limit=1 << 20))
    assert found is not None
    assert found.startswith(b"secret ")


def test_a_stream_of_very_many_members_is_refused_and_one_of_many_is_not() -> None:
    """Each of them costs as much as a piece of it: by the end of 32 MiB it would have been hours."""
    part = gzip.compress(b"a", mtime=0)
    assert unpacked(part * 4096, ["gzip"], limit=1 << 20) == b"a" * 4096
    with pytest.raises(Unreadable, match="parts"):
        unpacked(part * 4097, ["gzip"], limit=1 << 20)
