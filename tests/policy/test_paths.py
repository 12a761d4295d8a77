"""Paths: one spelling, patterns that name exactly what they say, and nothing that a server could read as something else."""

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot_bottle.policy.paths import canonical_path, canonical_path_pattern, glob_matches, path_matches

PATTERNS = (
    "/public/**",
    "/a/*",
    "/f/*.txt",
    "/x/**/y",
    "/exact",
    "/slash/",
    "/m/a*b*c",
    "/wiki/Z%C3%BCrich/**",
)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/a/b", "/a/b"),
        (b"/a/b/", "/a/b/"),
        (b"/a?b=/../c#", "/a"),
        (b"/%61%2d%5F%7E%2E%62", "/a-_~.b"),
        (b"/%40scope/%28x%29", "/@scope/(x)"),
        (b"/a%20b", "/a%20b"),
        (b"/a%c3%bc", "/a%C3%BC"),
        (b'/{x}"<>^`|', "/%7Bx%7D%22%3C%3E%5E%60%7C"),
        (b"/*", "/%2A"),
        (b"/.git/..a/a..", "/.git/..a/a.."),
    ],
)
def test_a_path_has_one_spelling(target: bytes, path: str) -> None:
    assert canonical_path(target) == path
    assert canonical_path(path.encode()) == path


@pytest.mark.parametrize(
    "target",
    [
        b"", b"a", b"*", b"http://a.test/", b"//", b"//a.test/x", b"/a//b", b"/a//", b"/.", b"/..", b"/a/..", b"/a/../b",
        b"/a/./b", b"/%2e%2e/b", b"/%2E/b", b"/.%2e/b", b"/..%20/b", b"/%20/b", b"/.../b", b"/a/%2e%2e%20/b",
        b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a\\b", b"/..\\b", b"/a%252fb", b"/%252e%252e/b", b"/a%25b", b"/a;x/b", b"/..;/b",
        b"/a%3bx", b"/a%00", b"/a\0", b"/a%0d%0a", b"/a%7f", b"/a b", b"/a#b", b"/a%23b", b"/a%3fb", b"/a%", b"/a%2", b"/a%zz",
        b"/a%u002fb", b"/\xc3\xbc", b"/%c0%ae%c0%ae/b", b"/a%c0%afb", b"/a%e0%80%afb", b"/a%fc", b"/a%ed%a0%80",
        b"/a%EF%BC%8Fb", b"/%EF%BC%8E%EF%BC%8E/b", b"/%E2%80%A5/b", b"/%E2%80%8B../b", b"/a%E2%80%AEb",
        b"/" + b"a" * 20000,
    ],
)  # fmt: skip
def test_a_path_that_servers_read_differently_has_none(target: bytes) -> None:
    assert canonical_path(target) is None


def test_every_character_that_a_server_could_fold_into_a_separator_is_refused() -> None:
    for number in range(0x80, 0x110000):
        if 0xD800 <= number < 0xE000:
            continue
        forms = {unicodedata.normalize(form, chr(number)) for form in ("NFC", "NFKC", "NFD", "NFKD")}
        if any(set(form) & set("/\\.%;?#") for form in forms):
            escaped = "".join(f"%{byte:02X}" for byte in chr(number).encode())
            assert canonical_path(f"/a{escaped}b".encode()) is None, hex(number)


@given(st.binary(max_size=60) | st.text("/.%2eEfF5cC;?#a\\ \0", max_size=40).map(str.encode))
def test_every_target_gets_an_answer_that_is_its_own_spelling(target: bytes) -> None:
    path = canonical_path(target)
    if path is not None:
        assert canonical_path(path.encode("ascii")) == path
        assert canonical_path_pattern(path) == path
        assert path_matches(path, path)


@given(st.text(max_size=30) | st.text("/*a.%2A\u00fc", max_size=12))
def test_every_pattern_gets_an_answer_that_is_its_own_spelling(text: str) -> None:
    pattern = canonical_path_pattern(text)
    if pattern is not None:
        assert canonical_path_pattern(pattern) == pattern
        path_matches(pattern, "/a/b")


@pytest.mark.parametrize(
    ("pattern", "named", "not_named"),
    [
        ("/**", ["/", "/a", "/a/b/"], []),
        ("/3/**", ["/3", "/3/", "/3/a", "/3/a/b"], ["/", "/30", "/2/3/a"]),
        ("/a/*", ["/a/b", "/a/b/"], ["/a", "/a/", "/a/b/c", "/A/b"]),
        ("/f/*.txt", ["/f/a.txt", "/f/.txt"], ["/f/a.txtx", "/f/a/b.txt"]),
        ("/x/**/y", ["/x/y", "/x/1/y", "/x/1/2/y/"], ["/x", "/y", "/x/1/y/2", "/xy"]),
        ("/**/b/*/d/**", ["/b/c/d", "/a/b/c/d/e", "/b/b/c/d"], ["/b/d", "/b/c/c/d"]),
        ("/a", ["/a", "/a/"], ["/", "/aa", "/a/b"]),
        ("/m/a*b*c", ["/m/abc", "/m/a1b2c", "/m/abbcbc"], ["/m/ab", "/m/acb", "/m/bc"]),
        ("/%2A", ["/%2A"], ["/a"]),
        ("/a%20*", ["/a%20b", "/a%20"], ["/a"]),
        ("/*0", ["/10"], ["/a%20"]),
        ("/wiki/Zürich", ["/wiki/Z%C3%BCrich"], ["/wiki/Zurich"]),
    ],
)
def test_a_pattern_names_what_it_says(pattern: str, named: list[str], not_named: list[str]) -> None:
    canonical = canonical_path_pattern(pattern)
    assert canonical is not None
    assert [path for path in named + not_named if path_matches(canonical, path)] == named


@pytest.mark.parametrize(
    "text", ["", "a", "/a/../b", "/a//b", "/a**", "/**a/b", "/a%2f*", "/a;*", "/%*", "/%C3*%BC", "/*%"]
)
def test_what_is_no_pattern_is_none(text: str) -> None:
    assert canonical_path_pattern(text) is None


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.text("ab", max_size=12))
def test_a_star_stands_for_any_run_of_characters(pieces: list[str], text: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pieces)), text) is not None
    assert glob_matches(tuple(pieces), text) == expected


def test_no_pattern_takes_long_on_any_path() -> None:
    """With backtracking none of these would end."""
    segment = "*".join("a" * 30) + "*b"
    assert not path_matches("/" + segment, "/" + "a" * 16000)
    assert not path_matches("/**" + "/a/**" * 30 + "/b", "/a" * 8000)
    assert not path_matches("/**" + "/*a*/**" * 30 + "/b", "/a" * 8000)


# What servers make of a path. Each takes decoded or undecoded text (one character a byte) and gives another.


def decode(text: str) -> str:
    return re.sub("%([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), text)


def lenient_utf8(text: str) -> str:
    """With overlong forms."""
    text = re.sub("[\xc0\xc1]([\x80-\xbf])", lambda match: chr(ord(match[1]) & 0x7F), text)
    try:
        return text.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text


def resolve_dots(text: str) -> str:
    out: list[str] = []
    for segment in text.split("/")[1:]:
        if segment == "..":
            out = out[:-1]
        elif segment != ".":
            out.append(segment)
    return "/" + "/".join(out)


def trim_segments(text: str) -> str:
    return "/".join(segment.rstrip(". ") or segment for segment in text.split("/"))


READINGS: tuple[Callable[[str], str], ...] = (
    decode,
    lenient_utf8,
    resolve_dots,
    lambda text: text.replace("\\", "/"),
    lambda text: re.sub("/+", "/", text),
    lambda text: "/".join(segment.partition(";")[0] for segment in text.split("/")),
    lambda text: text.partition("\0")[0],
    lambda text: text.partition("?")[0].partition("#")[0],
    lambda text: unicodedata.normalize("NFKC", text),
    lambda text: text.removesuffix("/") or "/",
    lambda text: "".join(char for char in text if char.isprintable()),
    lambda text: text.strip(),
    lambda text: "/" + text.split("/", 3)[3] if text.startswith("//") and text.count("/") > 2 else text,
    trim_segments,
    lambda text: re.sub("%u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), text),
)
NASTY = st.sampled_from(
    "/ // . .. ... %2e %2E . %2f %2F %5c \\ ; %3b ;a ;/ %00 \0 %252e %252f %25 %3f ? # %23 %20 %09 %c0%ae %c0%af %e2%80%a5 "
    "%ef%bc%8f %ef%bc%8e %u002f %u002e %u2215 %e2%88%95 public a f x y m abc exact slash wiki Z%C3%BCrich secret secret.txt "
    ".txt txt %70ublic PUBLIC public. %2A * ** b c".split()
)
TARGETS = st.lists(NASTY, max_size=9).map(lambda parts: "/" + "".join(parts)) | st.lists(
    NASTY, max_size=6
).map(lambda parts: "/" + "/".join(parts))


def named_by(pattern: str, path: str) -> bool:
    """The same question, answered by a regular expression; a final slash makes no difference."""
    segments = [segment for segment in pattern.split("/") if segment]
    regex = ""
    for segment in segments:
        inner = "[^/]*".join(re.escape(decode(piece)) for piece in segment.split("*"))
        regex += "(?:/[^/]+)*" if segment == "**" else f"/(?=[^/]){inner}"
    readings = {path, lenient_utf8(path), decode(path), lenient_utf8(decode(path))}
    regex = lenient_utf8(regex)
    return any(re.fullmatch(regex + "/?", reading, re.DOTALL) for reading in readings)


def is_allowed(path: str) -> bool:
    return any(named_by(pattern, path) for pattern in PATTERNS)


@settings(max_examples=1500)
@given(TARGETS, st.lists(st.sampled_from(READINGS), max_size=5))
@example("/public/%2e%2e/secret", [decode, resolve_dots])
@example("/public/..%2fsecret", [decode, resolve_dots])
@example("/public/..;/secret", [READINGS[5], resolve_dots])
@example("/f/secret;.txt", [READINGS[5]])
@example("/f/secret%00.txt", [decode, READINGS[6]])
@example("/f/secret%3f.txt", [decode, READINGS[7]])
@example("/a/b%252fc", [decode, decode])
@example("/a/b%c0%afc", [decode, lenient_utf8])
@example("/a/b%ef%bc%8fc", [decode, lenient_utf8, READINGS[8]])
@example("/public/%e2%80%a5/secret", [decode, lenient_utf8, READINGS[8], resolve_dots])
@example("/public/...%20/secret", [decode, trim_segments, resolve_dots])
def test_no_reading_of_an_allowed_path_is_a_refused_one(
    target: str, readings: list[Callable[[str], str]]
) -> None:
    path = canonical_path(target.encode("latin-1"))
    if path is None or not any(path_matches(pattern, path) for pattern in PATTERNS):
        return
    read = target.partition("?")[0]
    for reading in readings:
        read = reading(read)
    assert is_allowed(read), (target, read)


@given(st.sampled_from(PATTERNS), TARGETS)
def test_a_pattern_names_what_a_plain_reader_of_it_says(pattern: str, target: str) -> None:
    path = canonical_path(target.encode("latin-1"))
    if path is not None:
        assert path_matches(pattern, path) == named_by(pattern, decode(path))
