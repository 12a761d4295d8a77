"""Every token and every known value is found in whatever it is wrapped in, and scanning has an answer to any bytes."""

import base64
import gzip
import json
import random
import re
import string
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bot_bottle.policy.secrets import decoders
from bot_bottle.policy.secrets import scanner as scanning
from bot_bottle.policy.secrets.formats import FORMATS
from bot_bottle.policy.secrets.known import Known, is_short
from bot_bottle.policy.secrets.scanner import Scanner, TooTangled
from bot_bottle.policy.secrets.unpack import Unreadable
from tests.support.tokens import MAKERS, crc_token

SCANNER = Scanner()
CHANCE = random.Random(7)
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]

Wrap = Callable[[bytes], bytes]
PADS = (b"", b"a", b"ab", b"x=1&y=", b'{"content": "')


def _percent(data: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in data)


def _some_percent(data: bytes) -> bytes:
    return re.sub(rb"[^A-Za-z0-9]", lambda found: b"%%%02x" % found[0][0], data)


def _escaped(data: bytes) -> bytes:
    return b"".join(b"\\u%04x" % byte for byte in data)


def _wrapped(data: bytes) -> bytes:
    return base64.encodebytes(data)


def _json_lines(data: bytes) -> bytes:
    return json.dumps(base64.encodebytes(data).decode()).encode()


ENCODINGS: dict[str, Wrap] = {
    "base64": base64.b64encode,
    "base64, in URLs, without padding": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "base64 in lines": _wrapped,
    "base64 in lines, as JSON": _json_lines,
    "base32": base64.b32encode,
    "base32, small": lambda data: base64.b32encode(data).lower(),
    "hexadecimal": lambda data: data.hex().encode(),
    "hexadecimal, capital": lambda data: data.hex().upper().encode(),
    "percent": _percent,
    "percent where needed": _some_percent,
    "escapes": _escaped,
}
BREAKS: dict[str, Wrap] = {
    "spaces": lambda data: b" ".join(data[at : at + 1] for at in range(len(data))),
    "lines": lambda data: b"\r\n".join(data[at : at + 5] for at in range(0, len(data), 5)),
    "a JSON list": lambda data: json.dumps(
        [data.decode("latin-1")[at : at + 3] for at in range(0, len(data), 3)]
    ).encode(),
    "zero-width characters": lambda data: "\u200b".join(data.decode("latin-1")).encode(),
    "joiners, escaped": lambda data: b"\\u200d".join(data[at : at + 1] for at in range(len(data))),
    "soft hyphens, in percent": lambda data: b"%C2%AD".join(data[at : at + 1] for at in range(len(data))),
    "escaped line ends": lambda data: b"\\n".join(data[at : at + 7] for at in range(0, len(data), 7)),
    "UTF-16": lambda data: data.decode("latin-1").encode("utf-16-le"),
}


def found(data: bytes, scanner: Scanner = SCANNER) -> set[str]:
    return {match.detector for match in scanner.scan(data)}


def test_every_format_has_a_made_up_token() -> None:
    assert {item.name for item in FORMATS} == set(MAKERS)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("encoding", ["plain", *ENCODINGS])
def test_a_token_is_found_in_each_encoding_at_each_place(name: str, encoding: str) -> None:
    token = MAKERS[name](random.Random(f"{name} {encoding}")).encode()
    for pad in PADS:
        data = (
            ENCODINGS[encoding](pad + token + b' and "more"') if encoding in ENCODINGS else pad + token + b" "
        )
        assert name in found(b"body " + data), (pad, data)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"discord", "jwt"}))
@pytest.mark.parametrize("way", BREAKS)
def test_a_token_is_found_in_pieces(name: str, way: str) -> None:
    token = MAKERS[name](random.Random(f"{name} {way}")).encode()
    assert name in found(b"x: " + BREAKS[way](token) + b" ."), BREAKS[way](token)


def test_a_strict_token_is_found_between_any_signs() -> None:
    token = crc_token("ghp", CHANCE)
    for sign in ".", "/", "+", " | ", "); (", "&&", '" + "':
        assert found(sign.join(token).encode()) == {"github"}


@pytest.mark.parametrize("name", ["github", "npm", "age"])
def test_one_wrong_character_makes_it_no_token(name: str) -> None:
    token = MAKERS[name](CHANCE)
    swap = {"age": "q"}.get(name, "0")
    at = next(at for at in range(20, 30) if token[at].lower() != swap)
    swap = swap.upper() if name == "age" else swap
    assert name not in found((token[:at] + swap + token[at + 1 :]).encode())


def test_what_only_looks_like_a_token_is_left_alone() -> None:
    for text in (
        b"AKIAIOSFODNN7EXAMPLE",
        b"ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        b"sk_live_" + b"x" * 24,
        b"-----BEGIN PRIVATE KEY----- is the first line of a key, and the last one says END PRIVATE KEY",
        b"the hf_ prefix is used for tokens of the hub whatever they are for",
        b"sk-ant-api03-" + b"your-key-here-" * 8,
        b"eyJhbGciOi... is how such a token begins",
        b"SECRET_ACCESS_KEY=${SECRET_ACCESS_KEY_FROM_THE_ENVIRONMENT}",
        b'"integrity": "sha512-' + base64.b64encode(bytes(range(64))) + b'"',
    ):
        assert not found(text), text


def test_base64_whose_line_ends_alone_are_escaped_is_found() -> None:
    data = _some_percent(base64.encodebytes(_escaped(b"00000000001234")))
    assert b"%0a" in data
    assert found(data, Scanner([Known("mine", b"00000000001234")], formats=False)) == {"mine"}


VALUES = st.binary(min_size=8, max_size=80)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=14, max_size=90).map(
    str.encode
)
AROUND = st.tuples(st.binary(max_size=40), st.binary(max_size=40))
DISTINCT = 5
IN_LINES = {"base64 in lines", "base64 in lines, as JSON"}


@settings(max_examples=150, suppress_health_check=SLOW, deadline=None)
@given(value=TEXTS, chain=st.lists(st.sampled_from(sorted(ENCODINGS)), max_size=3), around=AROUND)
def test_text_is_found_in_any_three_encodings(
    value: bytes, chain: list[str], around: tuple[bytes, bytes]
) -> None:
    assume(len(set(value)) >= DISTINCT)
    data = value
    for name in chain:
        data = ENCODINGS[name](around[0][:5] + data + around[1][:5])
    known = Known("mine", value)
    assert "mine" in found(around[0] + data + around[1], Scanner([known], formats=False)), (chain, data)


@settings(max_examples=150, suppress_health_check=SLOW, deadline=None)
@given(value=VALUES, encoding=st.sampled_from(["plain", *sorted(set(ENCODINGS) - IN_LINES)]), around=AROUND)
def test_any_eight_bytes_are_found_in_each_encoding(
    value: bytes, encoding: str, around: tuple[bytes, bytes]
) -> None:
    data = around[0] + value + around[1]
    assume(encoding != "escapes" or data.isascii())  # of others, escapes stand for characters, not bytes
    data = ENCODINGS[encoding](data) if encoding in ENCODINGS else data
    assert "mine" in found(data, Scanner([Known("mine", value)], formats=False))


@settings(max_examples=100, suppress_health_check=SLOW, deadline=None)
@given(
    value=st.text(string.ascii_letters + string.digits, min_size=8, max_size=60).map(str.encode),
    gaps=st.lists(
        st.text("-_./+ \n\t\"',;:|&=()[]{}<>!?*#~^$\u200b\u00ad\ufeff", max_size=4), min_size=60, max_size=60
    ),
    backwards=st.booleans(),
    chain=st.lists(st.sampled_from(("base64", "hexadecimal", "percent", "escapes")), max_size=2),
)
def test_a_value_is_found_split_by_whatever_and_backwards(
    value: bytes, gaps: list[str], backwards: bool, chain: list[str]
) -> None:
    word = value[::-1] if backwards else value
    data = b"".join(bytes([byte]) + gap.encode() for byte, gap in zip(word, gaps, strict=False))
    assume(not chain or (not is_short(value) and data.isascii() and data.decode().isprintable()))
    for name in chain:
        data = ENCODINGS[name](data)
    assert "mine" in found(data, Scanner([Known("mine", value)], formats=False)), data


def test_half_of_a_long_value_is_found() -> None:
    key = MAKERS["private-key"](CHANCE).encode()
    only = Scanner([Known("key", key)], formats=False)
    middle = key[len(key) // 3 : len(key) * 2 // 3]
    assert found(middle, only) == {"key"}
    assert found(base64.b64encode(middle), only) == {"key"}
    assert not found(b"-----BEGIN RSA PRIVATE KEY-----\n\n-----END RSA PRIVATE KEY-----", only)


def test_other_cases_are_found() -> None:
    only = Scanner([Known("mine", b"Zk3-wQx9-Lmn0")], formats=False)
    assert found(b"zk3wqx9lmn0", only) == {"mine"}
    assert found(b"zk3-wqx9.lmn0.example.org", only) == {"mine"}


def test_what_is_in_gzip_is_found_also_inside_other_things() -> None:
    token = crc_token("ghp", CHANCE).encode()
    packed = gzip.compress(b"hello " + token)
    for data in (packed, b"--part\r\n\r\n" + packed + b"\r\n--part", base64.b64encode(packed), packed[:-6]):
        assert found(data) == {"github"}
    with pytest.raises(Unreadable):
        SCANNER.scan(gzip.compress(bytes(50 << 20)))


@settings(max_examples=300, suppress_health_check=SLOW, deadline=None)
@given(st.one_of(st.binary(max_size=2000), st.text(max_size=500).map(str.encode)))
def test_scanning_has_an_answer_to_any_bytes(data: bytes) -> None:
    try:
        SCANNER.scan(data)
    except (TooTangled, Unreadable):
        pass


FRAGMENTS = st.sampled_from(
    [b"gh", b"p_", b"T3BlbkFJ", b"AKIA", b"eyJhbGciOi", b"%67", b"%25", b"\\u0067", b"\\n", b"0x", b"H4sI", b"\x1f\x8b\x08", b"=",
     b"-----BEGIN", b" ", b"\xe2\x80\x8b", b"MII", *(MAKERS[name](CHANCE).encode()[:30] for name in MAKERS)]
)  # fmt: skip
WRAPPED = st.tuples(st.sampled_from(sorted(MAKERS)), st.sampled_from([*sorted(ENCODINGS)])).map(
    lambda pair: ENCODINGS[pair[1]](MAKERS[pair[0]](CHANCE).encode())
)
PUZZLES = st.lists(st.one_of(FRAGMENTS, WRAPPED, st.binary(max_size=30)), max_size=12).map(b"".join)


@settings(max_examples=200, suppress_health_check=SLOW, deadline=None)
@given(PUZZLES)
def test_the_cheap_passes_hide_nothing_from_the_search(data: bytes) -> None:
    only = Scanner(
        [
            Known("mine", b"correct-horse-9"),
            Known("short", b"p4ss/w0rd"),
            Known("raw", bytes(range(200, 220))),
        ]
    )
    try:
        thorough = {(match.detector, match.text) for match in only.search(data, thorough=True)}
    except (TooTangled, Unreadable, scanning.Crowded):
        return
    assert {(match.detector, match.text) for match in only.scan(data)} == thorough


class Counting(Scanner):
    """Counts the bytes of the views that are looked at."""

    seen = 0

    def _matches(self, view, plain, squeezed):
        self.seen += len(view.data)
        return super()._matches(view, plain, squeezed)


@pytest.mark.parametrize(
    "unit",
    [b"AIza", b"eyJhbGciOi", b"%41", b"%2525", b"\\u0041", b"QUFB", b"\x1f\x8b\x08", b"sk_live_", b"A", b"41", b"H4sI", b"ME" * 8,
     base64.b64encode(base64.b64encode(b"some text that is not long"))],
)  # fmt: skip
def test_the_work_is_bounded_by_the_bytes(unit: bytes) -> None:
    for size in (1 << 14, 1 << 17):
        counting = Counting([Known("mine", b"correct-horse-9")])
        try:
            counting.scan(unit * (size // len(unit)))
        except (TooTangled, Unreadable):
            pass
        assert counting.seen <= max(scanning._LEAST_WORK, scanning._WORK * size)


def test_too_many_views_and_too_many_candidates_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooTangled):
        SCANNER.scan(b"AIzaSy" * 20_000)
    nested = base64.b64encode(base64.b64encode(b"some text that is not long " * 40))
    assert SCANNER.scan(nested) == []
    monkeypatch.setattr(scanning, "_LEAST_WORK", 1)
    monkeypatch.setattr(scanning, "_WORK", 2)
    with pytest.raises(TooTangled):
        SCANNER.scan(nested)


def test_what_is_found_does_not_show_itself() -> None:
    token = crc_token("ghp", CHANCE)
    (match,) = SCANNER.scan(token.encode())
    assert token[5:15] not in f"{match!r}{match}{Known('mine', token.encode())!r}"


def test_nothing_to_look_for_finds_nothing() -> None:
    assert Scanner([], formats=False).scan(MAKERS["github"](CHANCE).encode()) == []
    assert Scanner([Known("short", b"1234567")], formats=False).scan(b"1234567") == []


ESCAPES = st.sampled_from(
    [*(bytes([byte]) for byte in range(256)), b"%", b"\\", b"\\u", b"\\x", b"4", b"a", b"F", b"u", b"x", b"%41", b"%e9",
     b"\\u0041", b"\\u00e9", b"\\u20ac", b"\\ud83d", b"\\x41", b"\\xe9", b"\\x01", b"%01", b"\xc3\xa9"]
)  # fmt: skip


def _each_undone(text: bytes) -> tuple[bytes, bytes]:
    """Escapes of a URL, and of strings, undone one by one."""

    def char(found: re.Match[bytes]) -> bytes:
        digits = found[0][2:]
        if len(digits) == 2:
            return bytes([int(digits, 16)])
        return chr(int(digits, 16)).encode("utf-8", "replace")

    url = re.sub(rb"%[0-9A-Fa-f]{2}", lambda found: bytes([int(found[0][1:], 16)]), text)
    return url, re.sub(rb"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2})", char, text)


@given(st.lists(ESCAPES, max_size=30).map(b"".join))
def test_escapes_are_undone_exactly(text: bytes) -> None:
    url, string_ = _each_undone(text)
    found = decoders.unpercent(text)
    assert found == b"" if url == text else (found + b"\x1c").startswith(url + b"\x1c")
    assert decoders.unescape(text) == string_


@pytest.mark.parametrize("undo", [decoders.unpercent, decoders.unescape])
@given(
    data=st.lists(
        st.sampled_from(
            [b"%", b"%4", b"%41", b"%2541", b"\\", b"\\u", b"\\u004", b"\\u0041", b"\\x41", b"a1"]
        )
    )
)
def test_undoing_escapes_piece_by_piece_is_undoing_them_all(
    undo: Callable[[bytes], bytes], data: list[bytes]
) -> None:
    text = b"".join(data)
    with pytest.MonkeyPatch.context() as patched:
        whole = undo(text)
        for size in (7, 8, 11):
            patched.setattr(decoders, "_PIECE", size)
            assert undo(text) == whole


@pytest.mark.parametrize(("undo", "text"), [(decoders.unpercent, b"%2525"), (decoders.unescape, b"\\u0041")])
def test_undoing_escapes_takes_no_more_memory_than_a_few_times_the_text(
    undo: Callable[[bytes], bytes], text: bytes
) -> None:
    data = text * (1 << 18)
    tracemalloc.start()
    try:
        undo(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(data)
