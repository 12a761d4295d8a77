"""The store's schema, as the steps that lead to it; its version is how many ran. A released step never changes."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3

_FIRST = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        agent TEXT NOT NULL,
        bottle TEXT NOT NULL,
        backend TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('starting', 'running', 'stopping', 'ended')),
        workspace TEXT NOT NULL,
        workspace_mode TEXT NOT NULL,
        run_path TEXT NOT NULL,
        state_path TEXT NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL,
        exit_code INTEGER,
        outcome TEXT NOT NULL,
        traces TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        previous TEXT NOT NULL,
        run TEXT NOT NULL,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL,
        digest TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX events_by_run ON events (run, number)",
    """
    CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'the record of events is append-only'); END
    """,
    """
    CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'the record of events is append-only'); END
    """,
)

STEPS: tuple[tuple[str, ...], ...] = (_FIRST,)
VERSION = len(STEPS)


def version(connection: "sqlite3.Connection") -> int:
    """How many steps this store has behind it."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: "sqlite3.Connection") -> None:
    """Runs the steps that are missing; inside a transaction of the caller's, so all of them or none."""
    for step in STEPS[version(connection) :]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def shape(connection: "sqlite3.Connection") -> frozenset[tuple[object, ...]]:
    """Every table, index, trigger and view there is, as its SQL; equal for two stores of the same version."""
    return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
