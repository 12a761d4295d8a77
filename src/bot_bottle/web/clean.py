r"""What others wrote, made fit for the page: nothing in it hides, moves, reorders, or paints over what stands beside it.

Beyond what `operate.text.visible` shows as escapes: what counts as printable and shows as nothing, and marks piled on a letter.
Letters from right to left stay only in the agent's own words, which stand by themselves.
"""

import re
import unicodedata

from bot_bottle.operate.text import BLANKS, MARKS, escape, visible

LINE = 300
WORDS = 8000
"""Characters that are shown of a line, and of an agent's words."""

_BLANK = re.compile(f"[{BLANKS}\u1cbb\U000e0000-\U000e0fff]")
_RIGHT_TO_LEFT = ("R", "AL", "AN")


def line(text: str, most: int = LINE) -> str:
    """`text` on one line, the first `most` characters of it (0: all); says how much was left out."""
    shown, more = _cut(text, most)
    shown = _plain(shown)
    if not shown.isascii():
        shown = "".join(escape(c) if unicodedata.bidirectional(c) in _RIGHT_TO_LEFT else c for c in shown)
    return shown + more


def block(text: str, most: int = WORDS) -> str:
    """`text` with its line ends, the first `most` characters of it; says how much was left out."""
    shown, more = _cut(text, most)
    return _plain(shown.replace("\r\n", "\n").expandtabs(4), keep="\n") + more


def _cut(text: str, most: int) -> tuple[str, str]:
    over = len(text) - most if most else 0
    return (text[:most], f" … ({over} more characters)") if over > 0 else (text, "")


def _plain(text: str, *, keep: str = "") -> str:
    shown = visible(text, keep=keep)
    if shown.isascii():
        return shown
    kept = []
    marks = 0
    for character in _BLANK.sub(lambda found: escape(found[0]), shown):
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= MARKS:
            kept.append(character)
    return "".join(kept)
