"""What encoded text looks like, as patterns for RE2: the part that decides cheaply what is worth decoding.

Text is bytes from 0x20 to 0x7e, and each encoding shows that in some bits of its characters: one random group of four base64
characters in nineteen could be text. So "four groups that could be" is rare in pictures and prose alike, and certain
wherever 14 characters of text were encoded, whatever stands before and behind them.

Between two characters may stand what people and programs put between the parts of one word: space, quotes, commas,
backslashes, control characters, everything that is not ASCII (and so every zero-width character), and their escapes.
"""

import string
from collections.abc import Callable, Iterable
from typing import Any

import re2

Pattern = Any
"""A compiled RE2 pattern; the package has no types."""

_MEMORY = 6 << 20
"""What RE2 counts for one pattern (its automaton takes at most a third of it); beyond it states are thrown away."""
HARD = 0x1C
"""The byte that is put between things that are not to be joined."""
_SPACES = bytes(byte for byte in range(0x21) if byte != HARD)
SKIPPED = _SPACES + b"\"'`,\\" + bytes(range(0x7F, 0x100))
"""Bytes that may stand between two characters of one word."""
SKIPPED_IN_HEX = b":-"
ESCAPES = (b"\\n", b"\\r", b"\\t")
_CODES = r"\\[nrt]|\\u[0-9A-Fa-f]{4}|%[0189A-Fa-f][0-9A-Fa-f]"
BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
BASE32 = string.ascii_uppercase + "234567"
TEXT = 14
"""How many characters of text in a row show in every encoding, wherever they lie in it."""
GROUPS64, GROUPS32, GROUPS16 = 4, 2, 8
"""The groups of three, five and one characters that so much text has at least."""


def compile_pattern(pattern: str, *, captures: bool = False) -> Pattern:
    """`pattern`, over bytes; its groups are only told apart with `captures`."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = not captures
    options.dot_nl = True
    options.log_errors = False
    options.max_mem = _MEMORY
    return re2.compile(pattern.encode("latin-1"), options)


def one_of(characters: Iterable[str | int]) -> str:
    """The class of these characters or bytes, in ranges: a pattern has hundreds of such classes, and RE2 keeps its text."""
    numbers = sorted({ord(item) if isinstance(item, str) else item for item in characters})
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return (
        "["
        + "".join(escaped(low) + (f"-{escaped(high)}" if high > low else "") for low, high in ranges)
        + "]"
    )


def escaped(number: int) -> str:
    """The byte as a pattern has it."""
    return f"\\x{number:02x}"


def between(skipped: bytes = SKIPPED, *more: str) -> str:
    """What may stand between two characters: any number of `skipped` bytes, and escapes."""
    return "(?:" + "|".join([one_of(skipped), _CODES, *more]) + ")*"


BETWEEN = between()
BETWEEN_HEX = between(SKIPPED + SKIPPED_IN_HEX, "0x")
_WORD = string.ascii_letters + string.digits + "_-"
BETWEEN_WORDS = between(bytes(byte for byte in range(256) if chr(byte) not in _WORD and byte != HARD))
BETWEEN_ALNUM = between(
    bytes(byte for byte in range(256) if not chr(byte).isascii() or not chr(byte).isalnum())
)


def spread(characters: Iterable[str], gap: str) -> str:
    """The characters (or classes) one after the other, with `gap` between each two."""
    return gap.join(characters)


def base64_text(*, gap: str = "") -> str:
    """Four groups of base64 that are each three characters of text."""
    return spread([_base64_group(gap, lines=False)] * GROUPS64, gap)


def base64_stretch() -> str:
    """The same, and all groups behind them that are text, line ends and tabs included."""
    return base64_text() + f"(?:{_base64_group('', lines=True)})*"


def _base64_group(gap: str, *, lines: bool) -> str:
    """Three characters of text in base64; with `lines`, bytes below 0x10 are text, too."""
    any_one = _class(BASE64, lambda _: True)
    first = _class(BASE64, lambda bits: 8 <= bits < 32 or (lines and bits < 4))
    second = _class(BASE64, lambda bits: (not bits & 8 and bool(bits & 6)) or (lines and not bits & 15))
    odd = _class(BASE64, lambda bits: not bits & 2 and bool(bits & 1))
    even = _class(BASE64, lambda bits: not bits & 2 and not bits & 1)
    low = _class(BASE64, lambda bits: bits >= 32 or (lines and bits < 16))
    third = f"(?:{odd}{gap}{any_one}|{even}{gap}{low})"
    return spread((first, second, third), gap)


def base32_text(alphabet: str, *, gap: str = "", repeat: str = "") -> str:
    """Two groups of base32 that are each five characters of text; `repeat` may follow the last one (`,` for more)."""
    tests: tuple[Callable[[int], bool], ...] = (
        lambda bits: 4 <= bits < 16,
        lambda bits: not bits & 2,
        lambda _: True,
        lambda bits: not bits & 8 and bool(bits & 6),
        lambda bits: not bits & 1,
        lambda bits: bool(bits & 24),
        lambda bits: not bits & 4 and bool(bits & 3),
        lambda _: True,
    )
    return _groups(spread((_class(alphabet, test) for test in tests), gap), GROUPS32, gap, repeat)


def hex_text(*, gap: str = "", repeat: str = "") -> str:
    """Eight characters of text in hexadecimal."""
    return _groups(spread(("[2-7]", "[0-9A-Fa-f]"), gap), GROUPS16, gap, repeat)


def _groups(group: str, count: int, gap: str, repeat: str) -> str:
    if repeat:
        return f"(?:{group}){{{count}{repeat}}}"
    return spread([group] * count, gap)


def _class(alphabet: str, test: Callable[[int], bool]) -> str:
    chosen = [char for bits, char in enumerate(alphabet) if test(bits)]
    more = {"+": "-", "/": "_"}  # the alphabet that is safe in URLs
    return one_of([*chosen, *(more[char] for char in chosen if char in more)])
