"""The only room that writes to the terminal: stdout is data, stderr is conversation."""

import sys
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Console:
    """Writes data to stdout and conversation to stderr; `--json` asks for data as JSON, `--quiet` for no conversation."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def data(self, text: str, *, ours: bool = False) -> None:
        """A line (or lines) of data. Control characters show as escapes, but where they are `ours`."""
        sys.stdout.write((text if ours else _shown(text)) + "\n")
        sys.stdout.flush()

    @property
    def on_terminal(self) -> bool:
        """Whether data goes to a terminal: then what an agent wrote is cleaned first."""
        return sys.stdout.isatty()

    def raw(self, data: bytes) -> None:
        """Data as it is, byte for byte."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """What the person at the terminal says to a yes-or-no question; no when there is nobody to ask."""
        if not self.can_ask:
            return False
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def json(self, value: "Any") -> None:
        """One JSON document, indented for a terminal and on one line otherwise."""
        import json

        indent = 2 if sys.stdout.isatty() else None
        text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
        if not text.replace("\n", "").isprintable():
            text = json.dumps(value, indent=indent, default=str)
        self.data(text, ours=True)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns as wide as they must be; plain text, so that it pastes and greps."""
        lines = [list(headers), *[[str(cell) for cell in row] for row in rows]]
        widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
        for line in lines:
            self.data("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def say(self, text: str) -> None:
        """A line of conversation."""
        if not self.quiet:
            sys.stderr.write(_shown(text) + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """A line that is said even when quiet."""
        sys.stderr.write(f"bot-bottle: {_shown(text)}\n")
        sys.stderr.flush()


def _shown(text: str) -> str:
    """Names, paths and messages come from repositories and agents, too: none of them may talk to the terminal."""
    from bot_bottle.operate.text import visible

    return visible(text, keep="\n\t")
