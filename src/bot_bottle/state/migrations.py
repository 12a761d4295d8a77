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

_SECOND = (
    """
    CREATE TABLE proposals (
        id TEXT PRIMARY KEY,
        run TEXT NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        words TEXT NOT NULL,
        content TEXT NOT NULL,
        routes TEXT NOT NULL,
        state TEXT NOT NULL CHECK (
            state IN ('pending', 'approved', 'applied', 'failed', 'rejected', 'expired', 'withdrawn')
        ),
        made_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        decided_at REAL NOT NULL,
        ended_at REAL NOT NULL,
        reason TEXT NOT NULL,
        repeats INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX proposals_open ON proposals (run, content) WHERE state IN ('pending', 'approved')",
    "CREATE INDEX proposals_by_state ON proposals (state, made_at)",
    "CREATE INDEX proposals_by_run ON proposals (run, made_at)",
    """
    CREATE TABLE decisions (
        proposal TEXT PRIMARY KEY REFERENCES proposals (id),
        verdict TEXT NOT NULL CHECK (verdict IN ('approved', 'rejected')),
        at REAL NOT NULL,
        who TEXT NOT NULL,
        digest TEXT NOT NULL,
        policy TEXT NOT NULL,
        scope TEXT NOT NULL,
        seconds INTEGER NOT NULL,
        routes TEXT NOT NULL,
        added TEXT NOT NULL,
        removed TEXT NOT NULL,
        reason TEXT NOT NULL,
        again INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE grants (
        id TEXT PRIMARY KEY,
        proposal TEXT NOT NULL UNIQUE REFERENCES proposals (id),
        run TEXT NOT NULL,
        scope TEXT NOT NULL,
        routes TEXT NOT NULL,
        since REAL NOT NULL,
        until REAL NOT NULL,
        used INTEGER NOT NULL,
        used_at REAL NOT NULL,
        ended TEXT NOT NULL,
        ended_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX grants_by_run ON grants (run, since)",
    """
    CREATE TABLE standings (
        run TEXT PRIMARY KEY,
        document TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TRIGGER proposals_that_ended_stay BEFORE UPDATE ON proposals
    WHEN OLD.state NOT IN ('pending', 'approved')
    BEGIN SELECT RAISE(ABORT, 'what became of a proposal does not change'); END
    """,
    """
    CREATE TRIGGER proposals_are_not_removed BEFORE DELETE ON proposals
    BEGIN SELECT RAISE(ABORT, 'proposals are kept'); END
    """,
    """
    CREATE TRIGGER decisions_are_not_changed BEFORE UPDATE ON decisions
    BEGIN SELECT RAISE(ABORT, 'a decision does not change'); END
    """,
    """
    CREATE TRIGGER decisions_are_not_removed BEFORE DELETE ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are kept'); END
    """,
    """
    CREATE TRIGGER grants_that_ended_stay BEFORE UPDATE ON grants WHEN OLD.ended <> ''
    BEGIN SELECT RAISE(ABORT, 'a grant that ended does not hold again'); END
    """,
    """
    CREATE TRIGGER grants_are_not_removed BEFORE DELETE ON grants
    BEGIN SELECT RAISE(ABORT, 'grants are kept'); END
    """,
)

STEPS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND)
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
