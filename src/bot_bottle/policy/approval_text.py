"""An agent's text as it may be kept and shown: one paragraph, bounded, with nothing in it that hides, moves or reorders. Pure."""

import unicodedata

WORDS, FIELD = 2000, 200
"""Characters of a reason, and of a name or another short thing that an agent gives."""
_REPLACED = "\ufffd"
_MARKS = 2
"""Combining marks that may stand on one letter; more of them paint over the lines above."""
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f\u1cbb")
"""Letters, marks and symbols by category that show as nothing."""


def clean(text: object, longest: int = WORDS) -> str:
    """`text` in one paragraph of at most `longest` characters; what is no text is none.

    Line ends and spaces of every kind become one space. Control, format (bidi, zero-width, tags), surrogate, private-use and
    unassigned characters, blanks that pass for letters, and variation selectors become U+FFFD.
    """
    if isinstance(text, (bytes, bytearray)):
        text = bytes(text[: 8 * longest]).decode("utf-8", "replace")
    if not isinstance(text, str):
        return ""
    cut = text[: 4 * longest]
    plain = cut.isascii() and cut.isprintable()
    shown = " ".join((cut if plain else _visible(cut)).split())
    if len(shown) > longest or len(text) > len(cut):
        shown = shown[: longest - 1] + "\u2026"
    return shown


def _visible(text: str) -> str:
    found: list[str] = []
    marks = 0
    for character in text:
        if character.isspace():
            found.append(" ")
            marks = 0
            continue
        mark = unicodedata.combining(character) != 0 or unicodedata.category(character) in ("Mn", "Me")
        marks = marks + 1 if mark else 0
        found.append(character if _is_plain(character) and marks <= _MARKS else _REPLACED)
    return "".join(found)


def _is_plain(character: str) -> bool:
    if not character.isprintable() or character in _BLANK:
        return False
    code = ord(character)
    return not (0xFE00 <= code <= 0xFE0F or 0xE0000 <= code <= 0xE0FFF)
