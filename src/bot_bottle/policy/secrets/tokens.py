"""Finds tokens of known formats in a view: one automaton for all of them, then each candidate's own check."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from bot_bottle.policy.secrets.formats import FORMATS, Format
from bot_bottle.policy.secrets.shapes import Pattern, compile_pattern

__all__ = ["FORMATS", "Crowded", "Tokens", "atoms"]

_ATOM = re.compile(r"\(\?:[^)]*\)|\[[^\]]*\]|\\.|.")
_COUNT = re.compile(r"((?:\[[^\]]*\]|\\.|.))\{([0-9]+)\}")
_CANDIDATES, _BYTES_FOR_ONE = 256, 256


class Crowded(Exception):
    """More candidates than any honest text has; checking them all would take too long."""


class Tokens:
    """Finds the tokens of some formats."""

    def __init__(self, formats: Sequence[Format]) -> None:
        self._formats = formats
        self._any = compile_pattern("|".join(item.pattern for item in formats)) if formats else None

    @cached_property
    def _which(self) -> Pattern:
        return compile_pattern("|".join(f"({item.pattern})" for item in self._formats), captures=True)

    def within(self, view: bytes) -> Iterator[tuple[str, bytes]]:
        """Format and text of the tokens in `view` that are real ones. Raises Crowded."""
        if self._any is None:
            return
        left = _CANDIDATES + len(view) // _BYTES_FOR_ONE
        at = 0
        while (found := self._any.search(view, at)) is not None:
            left -= 1
            if left < 0:
                raise Crowded
            start, end = found.span()
            item = self._formats[self._which.fullmatch(view, start, end).lastindex - 1]
            text = item.check(view, start, end)
            if text is not None:
                yield item.name, text
            at = start + 1 if text is None else end


def atoms(pattern: str) -> list[str]:
    """An anchor's characters and classes, one by one; `X?` stays one, `X{n}` becomes n of them."""
    counted = _COUNT.sub(lambda found: found[1] * int(found[2]), pattern)
    found: list[str] = []
    for atom in _ATOM.findall(counted):
        if atom == "?":
            found[-1] += "?"
        else:
            found.append(atom)
    return found
