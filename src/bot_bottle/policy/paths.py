"""Which path a request means, and whether a route's pattern names it. Pure and total, in linear time.

Servers disagree on what some spellings mean: encoded slashes, dot segments, empty segments, `;params`, double encoding.
Nothing is guessed: a path that two servers could read differently has no canonical form, and no path rule allows it.
"""

import re
from functools import lru_cache

MAX_PATH = 16 * 1024
_UNREADABLE = re.compile(
    rb"[\x00-\x20\x7f-\xff\\#;]"  # never in a path, or read as a separator by somebody
    rb"|%(?![0-9A-Fa-f]{2})"
    rb"|%(?:2[35Ff]|3[BbFf]|5[Cc])"  # `# % / ; ? \` behind one more decoding
)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPED_IN_CANONICAL = re.compile(rb"[^A-Za-z0-9\-._~!$&'()+,=:@/]")
_LOOKALIKES = re.compile(
    "[\xa5\u037e\u2024-\u2026\u2044\u2047-\u2049\u2100\u2101\u2105\u2106\u2215\u2216\u2236\u29f5\u29f8"
    "\u2488-\u249b\u20a9\u33c2\u33c7\u33d8\ufe10-\ufe19\ufe30\ufe52-\ufe56\ufe5f\ufe68\ufe6a\uff03\uff05\uff0e\uff0f\uff1a\uff1b"
    "\uff1f\uff3c\uff61\U0001f100]"
)
"""What some servers' conversions turn into one of `/ \\ . % ; ? #`."""

Segment = tuple[str, ...] | None
"""The literal pieces around each `*`; None is `**`: any number of segments."""


def canonical_path(target: bytes) -> str | None:
    """The one spelling of a request target's path, without its query; None when servers could read it differently."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") or len(path) > MAX_PATH or _UNREADABLE.search(path):
        return None
    decoded = _unescape(path)
    if decoded is None or _LOOKALIKES.search(decoded) or not decoded.isprintable():
        return None
    inner = decoded[1:].removesuffix("/")
    if inner and not all(segment.strip(". ") for segment in inner.split("/")):
        return None
    return None if decoded == "//" else _spell(decoded)


def canonical_path_pattern(text: str) -> str | None:
    """A route's path pattern in its one spelling; None for what is no pattern.

    `*` stands for any characters within one segment, `**` as a whole segment for any segments, none included.
    """
    raw = b"*".join(_escape_foreign(piece) for piece in text.split("*"))
    if canonical_path(raw.replace(b"*", b"x")) is None:
        return None
    if any(b"**" in segment and segment != b"**" for segment in raw.split(b"/")):
        return None
    pieces = [_unescape(piece) for piece in raw.split(b"*")]
    return "*".join(_spell(piece) for piece in pieces if piece is not None) if None not in pieces else None


def path_matches(pattern: str, path: str) -> bool:
    """Whether the canonical `path` is what the canonical `pattern` names. A final slash makes no difference."""
    return _match(_compiled(pattern), _segments(path))


def literal_length(pattern: str) -> int:
    """How many characters of `pattern` are spelled out: the more, the more exact it is."""
    return len(pattern) - pattern.count("*")


def glob_matches(pieces: tuple[str, ...], text: str) -> bool:
    """Whether `text` is `pieces` with anything between them. From left to right, never back."""
    if len(pieces) == 1:
        return text == pieces[0]
    first, last = pieces[0], pieces[-1]
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in pieces[1:-1]:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _match(pattern: tuple[Segment, ...], path: list[str]) -> bool:
    """The groups of segments around each `**`: the first at the start, the last at the end, the others as early as can be."""
    groups = _groups(pattern)
    first, last = groups[0], groups[-1]
    if len(groups) == 1:
        return len(path) == len(first) and _fits(first, path, 0)
    end = len(path) - len(last)
    if end < len(first) or not _fits(first, path, 0) or not _fits(last, path, end):
        return False
    at = len(first)
    for group in groups[1:-1]:
        while at + len(group) <= end and not _fits(group, path, at):
            at += 1
        if at + len(group) > end:
            return False
        at += len(group)
    return True


def _fits(group: list[tuple[str, ...]], path: list[str], at: int) -> bool:
    return all(glob_matches(pieces, path[at + index]) for index, pieces in enumerate(group))


def _groups(pattern: tuple[Segment, ...]) -> list[list[tuple[str, ...]]]:
    groups: list[list[tuple[str, ...]]] = [[]]
    for segment in pattern:
        if segment is None:
            groups.append([])
        else:
            groups[-1].append(segment)
    return groups


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> tuple[Segment, ...]:
    return tuple(
        None if segment == "**" else tuple(_plain(piece) for piece in segment.split("*"))
        for segment in _split(pattern)
    )


def _segments(path: str) -> list[str]:
    return [_plain(segment) for segment in _split(path)]


def _split(path: str) -> list[str]:
    inner = path[1:].removesuffix("/")
    return inner.split("/") if inner else []


def _plain(text: str) -> str:
    """Canonical text without its escapes; canonical text always has a plain form."""
    return _unescape(text.encode("ascii")) or "" if "%" in text else text


def _unescape(raw: bytes) -> str | None:
    """None for what is not UTF-8: overlong forms are how dots and slashes hide."""
    try:
        return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), raw).decode()
    except UnicodeDecodeError:
        return None


def _spell(text: str) -> str:
    return _ESCAPED_IN_CANONICAL.sub(lambda match: b"%%%02X" % match[0][0], text.encode()).decode("ascii")


def _escape_foreign(text: str) -> bytes:
    """What a person may write in a file, as it may stand in a request: letters beyond ASCII escaped."""
    raw = text.encode("utf-8", "replace")
    return b"".join(bytes((byte,)) if byte < 128 else b"%%%02X" % byte for byte in raw)
