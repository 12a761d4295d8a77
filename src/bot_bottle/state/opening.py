"""Finding the store's file fit to be used: the operator's own, closed to others, of a version this program knows."""

import os
import stat

from bot_bottle.errors import StateError
from bot_bottle.state import migrations

try:
    # The module below `sqlite3`, which adds conversions of dates: they take a tenth of what `bot-bottle list` may take.
    import _sqlite3 as sqlite3
except ImportError:
    import sqlite3  # type: ignore[no-redef]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Connection

LOG_PAGES = 128
"""How long the log gets before it is moved into the database: whoever opens the store reads all of it first, in 0.3 ms."""


def connect(path: str, *, busy_seconds: float) -> "Connection":
    """A connection to the store in `path`, made or brought up to date when it has to be.

    Raises StateError when it is another user's or of a newer version; else sqlite3.Error or OSError.
    """
    _private_folder(os.path.dirname(path))
    fresh = not _private_file(path)
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, cached_statements=32)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        known = 0 if fresh else migrations.version(connection)
        if known != migrations.VERSION:
            _bring_up_to_date(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: "Connection", path: str) -> None:
    import fcntl

    from bot_bottle.state import head

    known = migrations.version(connection)
    if known > migrations.VERSION:
        raise StateError(
            "The store was made by a newer bot-bottle",
            details=f"{path} has version {known}, this program knows {migrations.VERSION}",
            resolution="Upgrade bot-bottle.",
        )

    # The change to WAL does not wait for other processes by itself, so the first ones to come take turns here.
    lock = os.open(path + ".making", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        if migrations.version(connection) == 0:
            head.create(head.path_beside(path))
        migrations.migrate(connection)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        os.close(lock)


def _private_folder(folder: str) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.stat(folder)
    _ours(found, folder)
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(folder, 0o700)


def _private_file(path: str) -> bool:
    """Whether it was there already; made, closed to others, when not. SQLite gives its side files the same mode."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return True
        return False
    _ours(found, path)
    if not stat.S_ISREG(found.st_mode):
        raise StateError(f"{path} is not a file", resolution="Move it away.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(path, 0o600)
    return True


def _ours(found: os.stat_result, path: str) -> None:
    if found.st_uid != os.geteuid():
        raise StateError(
            f"{path} belongs to another user",
            details=f"its owner is user {found.st_uid}, you are user {os.geteuid()}",
            resolution="Run bot-bottle as that user, or set XDG_STATE_HOME to a folder of your own.",
        )
