r"""What others wrote, made fit for a screen that is drawn cell by cell. Everything that is shown goes through here.

Beyond what `operate.text.visible` shows as escapes: letters written from right to left (a terminal that knows them turns the
whole line, with ours in it, around), marks that pile up or change the width of what stands before them, what is printable
and can't be seen, and what terminals do not agree about how wide it is.
"""

import re
import unicodedata

from rich.cells import get_character_cell_size

from bot_bottle.operate.text import BLANKS, MARKS, escape, visible

LONGEST_LINE = 300
LONGEST_BLOCK = 6000
MOST_LINES = 80
_UNSEEN = re.compile(f"[{BLANKS}]")
_JOINED = (range(0x1100, 0x1200), range(0xD7B0, 0xD800), range(0x1F1E6, 0x1F200), range(0x1F3FB, 0x1F400))
"""Parts of Korean syllables, of flags, and skin colours: how wide they are depends on what stands beside them."""


def clean(text: str, *, keep: str = "") -> str:
    r"""`text` with everything that could move, hide or reorder anything as its escape, but for what is in `keep`."""
    if text.isascii():
        return visible(text, keep=keep)
    parts: list[str] = []
    marks = 0
    for character in text:
        if character.isascii() or character in keep:
            marks = MARKS  # none on these
            parts.append(visible(character, keep=keep))
            marks = 0 if character.isalnum() else MARKS
        elif unicodedata.category(character) == "Mn" and marks < MARKS and _is_plain(character, 0):
            marks += 1
            parts.append(character)
        elif _is_plain(character, 2 if unicodedata.east_asian_width(character) in "WF" else 1):
            marks = 0 if character.isalpha() else MARKS
            parts.append(character)
        else:
            marks = MARKS
            parts.append(escape(character))
    return "".join(parts)


def line(text: str, most: int = LONGEST_LINE) -> str:
    """`text` on one line, and no more than `most` characters of it; says how much was left out."""
    shown = clean(text[:most])
    if len(text) <= most and len(shown) <= most:
        return shown
    return f"{shown[:most]}… ({max(len(text), len(shown)) - most} more characters)"


def cut(text: str, most: int = 40) -> str:
    """`text` where there is little room: cut without a word."""
    shown = clean(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def block(text: str, most: int = LONGEST_BLOCK) -> str:
    """`text` with its line breaks, and no more of it than a person would read; says how much was left out."""
    shown = text[:most].replace("\r\n", "\n").expandtabs(4)
    lines = shown.split("\n")
    kept = "\n".join(lines[:MOST_LINES])
    left_out = len(text) - most if len(text) > most else 0
    left_out += sum(map(len, lines[MOST_LINES:]))
    more = f"\n… ({left_out} more characters)" if left_out else ""
    return clean(kept, keep="\n") + more


def _is_plain(character: str, width: int) -> bool:
    """Whether it shows, stands for itself, and is as wide as everybody thinks it is."""
    code = ord(character)
    return (
        character.isprintable()
        and not _UNSEEN.match(character)
        and not any(code in span for span in _JOINED)
        and unicodedata.bidirectional(character) not in ("R", "AL", "AN")
        and unicodedata.category(character) not in ("Mc", "Me")
        and get_character_cell_size(character) == width
    )
