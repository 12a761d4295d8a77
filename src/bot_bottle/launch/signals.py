"""How Ctrl-C and SIGTERM reach a run: noted at once, acted upon where it is safe.

While a run is being prepared, an interruption waits for the next checkpoint, so that no step is cut between making a thing
and remembering it; while it runs, the keeper's loop is woken. The second interruption means "at once".
"""

import os
import signal
from types import FrameType, TracebackType

from bot_bottle.errors import InterruptedRun

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Catches the signals between `with` and its end; `count` says how often, `fileno()` wakes a `select`."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "Interrupts":
        for number in CAUGHT:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.last = number
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass  # the pipe is full of the same news

    def fileno(self) -> int:
        return self._read

    def drain(self) -> None:
        """Empties the wake-up pipe; `count` stays."""
        try:
            while os.read(self._read, 512):
                pass
        except BlockingIOError:
            return

    def checkpoint(self) -> None:
        """Raises InterruptedRun when an interruption has come since the start."""
        if self.count:
            raise InterruptedRun("Interrupted; everything made so far was removed")
