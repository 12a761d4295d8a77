"""The store: the runs and the record of events, in one SQLite file that only the operator's own user can open.

Every write is one transaction that is on the disk before the call returns (WAL, synchronous=FULL); writers of any number of
processes wait for each other. This room has the only SQL. Every failure is a StateError that says what to do.
"""

import os

from bot_bottle.errors import NotFoundError, StateError
from bot_bottle.state.model import RunRecord
from bot_bottle.state.trouble import Explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Self

    from bot_bottle.events import Event, NewEvent
    from bot_bottle.state.verify import Verification

BUSY_SECONDS = 30
_left: "list[sqlite3.Connection]" = []
"""What Python would close if nobody knew of it any more."""
FILE_NAME = "store.db"

_COLUMNS = RunRecord._fields
_CHANGEABLE = frozenset({"state", "ended_at", "exit_code", "outcome", "traces"})
_BEFORE = {"starting": (), "running": ("starting",), "stopping": ("starting", "running")}
"""Which states may precede each; `ended` may follow all of them and nothing follows it."""


class Store:
    """An open store; made by `Store.open`. For one process and thread: after a fork, the child opens its own."""

    def __init__(self, path: str, connection: "sqlite3.Connection") -> None:
        self.path = path
        self._connection = connection
        self._owner = os.getpid()

    @classmethod
    def open(cls, path: str) -> "Self":
        """Opens the store in the file `path`, made (its folder, too) or brought up to date when it has to be.

        Raises StateError when it is of a newer version or another user's, or can't be used.
        """
        from bot_bottle.state import opening

        with Explained(path):
            return cls(path, opening.connect(path, busy_seconds=BUSY_SECONDS))

    def close(self) -> None:
        """Closes it; nothing happens when it is closed already."""
        if self._owner == os.getpid():
            self._connection.close()

    def leave(self) -> None:
        """Ends the use of it in a process that is about to end.

        Closing the last connection moves the whole log into the database, which waits for the disk twice and makes the next one
        that writes wait twice more, for a new log. All of it is on the disk already, and whoever opens the store next finds it.
        """
        _left.append(self._connection)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, _kind: object, _error: object, _trace: object) -> None:
        self.close()

    # -- runs ----------------------------------------------------------------------------------------------------------

    def add_run(self, run: "RunRecord") -> None:
        """Remembers a new run. Raises StateError when its id is taken."""
        self.record((), run)

    def update_run(self, run_id: str, **fields: object) -> bool:
        """Changes `fields` of a run; False, and nothing changed, when its state does not allow it (someone was first).

        A run goes `starting → running → stopping → ended` and may skip, but never return; once ended it does not change.
        Raises NotFoundError when there is no such run.
        """
        return self.record((), run_id, **fields)

    def run(self, reference: str, *, latest: bool = False) -> "RunRecord":
        """The run whose id is `reference`, or begins with it, or whose agent it is, if that is only one.

        When it fits several and exactly one of them has not ended, that one is meant; with `latest`, when all runs of an agent
        have ended, the one that began last. Raises NotFoundError.
        """
        fitting = "id = ?1 OR agent = ?1 OR substr(id, 1, length(?1)) = ?1" if reference else "0 AND ?1"
        rows = self._rows(f"{_SELECT_RUNS} WHERE {fitting} ORDER BY started_at DESC, id", reference)
        runs = [RunRecord(*row) for row in rows]
        exact = [run for run in runs if run.id == reference]
        named = [run for run in runs if run.agent == reference] or runs
        alive = [run for run in named if run.state != "ended"]
        for choice in (exact, named, alive):
            if len(choice) == 1:
                return choice[0]
        if latest and named and named[0].agent == reference and not alive:
            return named[0]
        if not runs:
            raise NotFoundError(
                f"There is no run {reference!r}", resolution="bot-bottle list --all shows them."
            )
        ids = "\n".join(f"{run.id}  {run.state}" for run in named[:20])
        raise NotFoundError(f"{reference!r} fits several runs", details=ids, resolution="Name one of them.")

    def runs(self, states: "Sequence[str] | None" = None, *, outcome: str | None = None) -> "list[RunRecord]":
        """The runs in any of `states` (None: all) that ended with `outcome` (None: whatever it is), the oldest first."""
        chosen = tuple(states) if states is not None else ("starting", "running", "stopping", "ended")
        marks = ",".join("?" * len(chosen))
        where = f"state IN ({marks}) AND (?{len(chosen) + 1} IS NULL OR outcome = ?{len(chosen) + 1})"
        rows = self._rows(f"{_SELECT_RUNS} WHERE {where} ORDER BY started_at, id", *chosen, outcome)
        return [RunRecord(*row) for row in rows]

    def forget_run(self, run_id: str) -> None:
        """Removes the run; its events stay in the record. Succeeds when it is gone; raises StateError while it runs."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM runs WHERE id = ? AND state = 'ended'", (run_id,))
            if connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone():
                raise StateError(f"{run_id} has not ended", resolution=f"bot-bottle stop {run_id}")

    # -- events --------------------------------------------------------------------------------------------------------

    def append(self, events: "Sequence[NewEvent]") -> "tuple[Event, ...]":
        """Puts `events` at the end of the chain, all or none, on the disk before this returns."""
        if not events:
            return ()
        with self._transaction() as connection:
            chained, whole = self._chain(connection, events)
        if whole:
            self._advance_head(chained[-1])
        return chained

    def record(self, events: "Sequence[NewEvent]", run: "RunRecord | str", **fields: object) -> bool:
        """`append` and `add_run` (a RunRecord) or `update_run` (an id and fields) in one transaction.

        False, and neither done, when the run's state does not allow the change.
        """
        with self._transaction() as connection:
            done = (
                self._update(connection, run, fields) if isinstance(run, str) else self._add(connection, run)
            )
            chained, whole = self._chain(connection, events) if done and events else ((), False)
        if whole:
            self._advance_head(chained[-1])
        return done

    def events(
        self, run: str | None = None, *, after: int = 0, limit: int | None = None, kinds: "Sequence[str]" = ()
    ) -> "list[Event]":
        """The events of `run` (an id; None: of all) with a number above `after`, in order, `limit` at most, of `kinds`."""
        where, values = "number > ?", [after, *kinds]
        if kinds:
            where += f" AND kind IN ({','.join('?' * len(kinds))})"
        if run is not None:
            where, values = f"run = ? AND {where}", [run, *values]
        rows = self._rows(
            f"SELECT number, previous, run, at, kind, data, digest FROM events WHERE {where} ORDER BY number LIMIT ?",  # noqa: S608
            *values, -1 if limit is None else limit,
        )  # fmt: skip
        return self._events(rows)

    def latest(self, run: str, *, kinds: "Sequence[str]", limit: int) -> "list[Event]":
        """The last events of `run` of these kinds, the latest first."""
        marks = ",".join("?" * len(kinds))
        rows = self._rows(
            "SELECT number, previous, run, at, kind, data, digest FROM events "  # noqa: S608
            f"WHERE run = ? AND kind IN ({marks}) ORDER BY number DESC LIMIT ?",
            run, *kinds, limit,
        )  # fmt: skip
        return self._events(rows)

    def data_since(
        self, run: str, *, after: int, kinds: "Sequence[str]", most: int
    ) -> "list[tuple[int, str, Any]]":
        """Number, kind and data of the events of `run` of these kinds above `after`, in order: the latest `most`."""
        import json

        marks = ",".join("?" * len(kinds))
        rows = self._rows(
            f"SELECT number, kind, data FROM events WHERE run = ? AND number > ? AND kind IN ({marks}) "  # noqa: S608
            "ORDER BY number DESC LIMIT ?",
            run, after, *kinds, most,
        )[::-1]  # fmt: skip
        try:
            data = json.loads(
                f"[{','.join(row[2] for row in rows)}]"
            )  # at once, which takes a third of one by one
        except ValueError as error:
            raise StateError(
                "An event can't be read", details=str(error), resolution="bot-bottle verify"
            ) from error
        return [(row[0], row[1], each) for row, each in zip(rows, data, strict=True)]

    @staticmethod
    def _events(rows: "list[Any]") -> "list[Event]":
        import json

        from bot_bottle.events import Event

        try:
            return [Event._make((*row[:5], json.loads(row[5]), row[6])) for row in rows]
        except ValueError as error:
            raise StateError(
                "An event can't be read", details=str(error), resolution="bot-bottle verify"
            ) from error

    def transact(self, work: "Callable[[sqlite3.Connection], tuple[Any, Sequence[NewEvent]]]") -> "Any":
        """What `work` answers, done in one transaction with the events that it gives; all or none. For this room."""
        with self._transaction() as connection:
            done, events = work(connection)
            chained, whole = self._chain(connection, events) if events else ((), False)
        if whole:
            self._advance_head(chained[-1])
        return done

    def rows(self, sql: str, *values: object) -> "list[Any]":
        """What a SELECT finds. For this room."""
        return self._rows(sql, *values)

    def data_version(self) -> int:
        """A number that changes when another process has written; cheap enough to ask ten times a second."""
        return int(self._rows("PRAGMA data_version")[0][0])

    def verify(self) -> "Verification":
        """Checks the whole record (see `state/verify.py`); what it finds is a result."""
        from bot_bottle.state import head, verify

        with Explained(self.path):
            return verify.verify(self._mine(), head.path_beside(self.path))

    # -- below ---------------------------------------------------------------------------------------------------------

    def _mine(self) -> "sqlite3.Connection":
        if self._owner != os.getpid():
            raise StateError(
                "A store was used across a fork", resolution="This is a bug in bot-bottle; report it."
            )
        return self._connection

    def _rows(self, sql: str, *values: object) -> "list[Any]":
        with Explained(self.path):
            return self._mine().execute(sql, values).fetchall()

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._mine(), self.path)

    def _add(self, connection: "sqlite3.Connection", run: "RunRecord") -> bool:
        marks = ",".join("?" * len(_COLUMNS))
        try:
            connection.execute(f"INSERT INTO runs ({','.join(_COLUMNS)}) VALUES ({marks})", tuple(run))  # noqa: S608
        except connection.IntegrityError as error:
            raise StateError(f"The run {run.id} can't be added", details=str(error)) from error
        return True

    def _update(self, connection: "sqlite3.Connection", run_id: str, fields: "dict[str, object]") -> bool:
        unknown = set(fields) - _CHANGEABLE
        if unknown or not fields:
            raise TypeError(f"of a run, these can be changed: {sorted(_CHANGEABLE)}; not {sorted(unknown)}")
        current = connection.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()
        if current is None:
            raise NotFoundError(f"There is no run {run_id!r}", resolution="bot-bottle list --all shows them.")
        target = fields.get("state")
        if current[0] == "ended" or (
            target != "ended" and "state" in fields and current[0] not in _BEFORE[str(target)]
        ):
            return False
        assignments = ", ".join(f"{name} = ?" for name in fields)
        connection.execute(f"UPDATE runs SET {assignments} WHERE id = ?", (*fields.values(), run_id))  # noqa: S608
        return True

    def _chain(
        self, connection: "sqlite3.Connection", events: "Iterable[NewEvent]"
    ) -> "tuple[tuple[Event, ...], bool]":
        """The events with their place, inserted; and whether the chain before them holds what the head names."""
        from bot_bottle.events import chain
        from bot_bottle.state import head
        from bot_bottle.state.intake import settled

        last = connection.execute("SELECT number, digest FROM events ORDER BY number DESC LIMIT 1").fetchone()
        number, previous = last or (0, head.GENESIS)
        sealed = head.read(head.path_beside(self.path))
        chained = []
        for event in events:
            number += 1
            place = chain(number, previous, settled(event))
            previous = place.digest
            chained.append(place)
        connection.executemany(
            "INSERT INTO events VALUES (?,?,?,?,?,?,?)", [_row(event) for event in chained]
        )
        return tuple(chained), sealed is not None and self._holds(connection, *sealed)

    @staticmethod
    def _holds(connection: "sqlite3.Connection", number: int, digest: str) -> bool:
        if number == 0:
            return True
        kept = connection.execute("SELECT digest FROM events WHERE number = ?", (number,)).fetchone()
        return kept is not None and kept[0] == digest

    def _advance_head(self, last: "Event") -> None:
        from bot_bottle.state import head

        try:
            head.advance(head.path_beside(self.path), last.number, last.digest)
        except OSError:
            # The events are committed, so this is no failure to record; a head that is behind is caught up by the next.
            return


_SELECT_RUNS = f"SELECT {','.join(_COLUMNS)} FROM runs"  # noqa: S608


def _row(event: "Event") -> tuple[object, ...]:
    from bot_bottle.state.intake import text_of

    return (*event[:5], text_of(event.data), event.digest)


class _Transaction:
    """`with`: BEGIN IMMEDIATE, then COMMIT, or ROLLBACK on any exception; failures of the store become StateErrors."""

    def __init__(self, connection: "sqlite3.Connection", path: str) -> None:
        self._connection = connection
        self._path = path

    def __enter__(self) -> "sqlite3.Connection":
        with Explained(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        with Explained(self._path):
            try:
                if error is None:
                    self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if error is not None:
                raise error
