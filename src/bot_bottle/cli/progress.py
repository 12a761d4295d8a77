"""Progress while a bottle starts: a spinner on a terminal, nothing elsewhere, nothing imported before it is needed."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from bot_bottle.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

WORDS = {
    "record": "Writing the plan down",
    "bundle": "Starting the bundle",
    "workspace": "Beginning to copy the workspace",
    "sandbox": "Making the sandbox",
    "door": "Opening the door",
    "provision": "Putting the agent's files inside",
    "policy": "Waiting for the policy to be in force",
    "supervise": "Telling the agent's tool whom it can ask",
    "copy": "Copying the workspace",
    "release": "Letting the agent run",
    "end": "Putting everything away",
}
PATIENCE = 0.4
"""Seconds a start may take before anything is shown; most are over by then."""


class Progress:
    """`phase(name)` says what is being done now; leaving the `with` clears it."""

    def __init__(self, *, quiet: bool) -> None:
        self.shown = sys.stderr.isatty() and not quiet
        self.began = time.monotonic()
        self.status: Status | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def phase(self, name: str) -> None:
        """A phase begins."""
        if not self.shown or (
            time.monotonic() - self.began < PATIENCE and self.status is None and name != "copy"
        ):
            return
        if self.status is None:
            from rich.console import Console
            from rich.status import Status

            self.status = Status("", console=Console(stderr=True))
            self.status.start()
        self.status.update(WORDS.get(name, name))

    def between(self, write: Callable[[str], None]) -> Callable[[str], None]:
        """`write`, for lines that come while something is shown."""

        def cleared(text: str) -> None:
            self.clear()
            write(text)

        return cleared

    def clear(self) -> None:
        """The terminal as it was."""
        if self.status is not None:
            self.status.stop()
            self.status = None
