"""A run's own use of the store, which may not be to be had for a while: locked by another program, or on a disk that is full.

What happens is remembered in order and written as soon as that can be done; nothing is in the store before what came before it.
What has to be in the store before somebody is told of it fails at once instead, and is the caller's to do again.
"""

import time

from bot_bottle.errors import StateError
from bot_bottle.events import NewEvent
from bot_bottle.state.store import BUSY_SECONDS, Store
from bot_bottle.typed import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from bot_bottle.events import Event
    from bot_bottle.state.model import RunRecord

WAITS = 2.0
"""Seconds that a write waits for other processes while the run's loop has to go on."""
WAITS_AGAIN = 0.05
"""The same once one was in vain: until the next that is not, nothing is to stand still."""
TRY_EACH = 1.0
MOST = 20_000
"""Events that wait; what comes beyond them is counted, and the count is recorded."""


class Failed(NamedTuple):
    """Since when nothing could be written, and why."""

    at: float
    why: str


class PatientStore(Store):
    """The store of one run. `begin_loop` and `end_loop` are around the time in which it must not keep its process waiting."""

    def __init__(self, path: str, connection: "sqlite3.Connection", run: str) -> None:
        super().__init__(path, connection)
        self._run = run
        self._waiting: list[NewEvent] = []
        self._lost = 0
        self._failed: Failed | None = None
        self._try_at = 0.0
        self._taken = 0
        self._looping = False
        self._busy = float(BUSY_SECONDS)

    @classmethod
    def over(cls, store: Store, run: str) -> "PatientStore":
        """`store`, as `run` uses it from now on."""
        return cls(store.path, store._connection, run)

    def begin_loop(self) -> None:
        """From now on a write gives up soon."""
        self._looping = True

    def end_loop(self) -> None:
        """A write may take its time again, and is tried."""
        self._looping = False
        self._try_at = 0.0

    def append(self, events: "Sequence[NewEvent]") -> "tuple[Event, ...]":
        """Puts `events` at the end of the chain now, or as soon as that can be done; never raises StateError.

        Gives nothing back: where they stand may not be known yet.
        """
        room = max(0, MOST - len(self._waiting))
        self._waiting += events[:room]
        self._lost += len(events) - len(events[:room])
        self.tick()
        return ()

    def record(self, events: "Sequence[NewEvent]", run: "RunRecord | str", **fields: object) -> bool:
        return bool(self._writes(lambda: super(PatientStore, self).record(events, run, **fields)))

    def transact(self, work: "Callable[[sqlite3.Connection], tuple[Any, Sequence[NewEvent]]]") -> "Any":
        return self._writes(lambda: super(PatientStore, self).transact(work))

    def tick(self) -> float | None:
        """Writes what waits, when it is time to try; in how many seconds it is again, or None."""
        if self._waiting and time.monotonic() >= self._try_at:
            try:
                self._writes(lambda: super(PatientStore, self).append(self._waiting))
            except StateError:
                pass  # it is noted, and tried again
        return max(0.0, self._try_at - time.monotonic()) if self._waiting else None

    def _writes(self, write: "Callable[[], Any]") -> "Any":
        """What `write` gives, with what waits written before it."""
        self._taken = 0
        self._wait_at_most(WAITS_AGAIN if self._failed else WAITS)
        try:
            done = write()
        except StateError as error:
            self._failed = self._failed or Failed(time.time(), error.brief)
            self._try_at = time.monotonic() + TRY_EACH
            raise
        if self._taken:
            del self._waiting[: self._taken]
            self._lost = 0
        if not self._waiting:
            self._failed = None
        return done

    def _wait_at_most(self, seconds: float) -> None:
        seconds = seconds if self._looping else float(BUSY_SECONDS)
        if seconds != self._busy:
            self._rows(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
            self._busy = seconds

    def _chain(
        self, connection: "sqlite3.Connection", events: "Iterable[NewEvent]"
    ) -> "tuple[tuple[Event, ...], bool]":
        """What waits comes first, whatever is written; an event more says that it waited."""
        first = list(self._waiting)
        self._taken = len(first)
        if self._failed and first:
            data = {
                "why": self._failed.why,
                "since": self._failed.at,
                "events": len(first),
                "lost": self._lost,
            }
            first.append(NewEvent(self._run, time.time(), "record.late", data))
        return super()._chain(connection, first if events is self._waiting else [*first, *events])
