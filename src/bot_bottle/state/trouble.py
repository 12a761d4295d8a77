"""What SQLite and the file system say when the store fails, turned into what happened and what to do."""

import os

from bot_bottle.errors import BusyError, StateError

_LOCKED = "Another process holds it. Try again; if that goes on, see who does: fuser -v {path}"
_FULL = "Free some space on the file system that holds {folder}; nothing that was recorded is lost."
_DAMAGED = "Move {path} and the files beside it away to begin a new record, and keep them to look into it."
_READ_ONLY = "Make {folder} and the files in it writable for your own user."
_MISSING = "See that {folder} is a folder that your user can read and write."

_BY_NAME = (
    ("SQLITE_FULL", "The disk is full", _FULL),
    ("SQLITE_BUSY", "The store is locked", _LOCKED),
    ("SQLITE_LOCKED", "The store is locked", _LOCKED),
    ("SQLITE_CORRUPT", "The store is damaged", _DAMAGED),
    ("SQLITE_NOTADB", "The store's file is not a store", _DAMAGED),
    ("SQLITE_READONLY", "The store is read-only", _READ_ONLY),
    ("SQLITE_PERM", "The store can't be opened", _READ_ONLY),
    ("SQLITE_CANTOPEN", "The store can't be opened", _MISSING),
    ("SQLITE_IOERR", "The store can't be read or written; the disk may be full or failing", _FULL),
)


def explain(error: Exception, path: str) -> StateError:
    """The StateError for an `sqlite3.Error` or `OSError` met at the store in `path`."""
    name = getattr(error, "sqlite_errorname", "")
    details = f"{path}: {error}" + (f" ({name})" if name else "")
    folder = os.path.dirname(path)
    for prefix, brief, resolution in _BY_NAME:
        if name.startswith(prefix):
            kind = BusyError if resolution is _LOCKED else StateError
            return kind(brief, details=details, resolution=resolution.format(path=path, folder=folder))
    if isinstance(error, OSError):
        return _of_the_system(error, details, path)
    return StateError(
        "The store failed", details=details, resolution="bot-bottle verify says whether it is whole."
    )


def _of_the_system(error: OSError, details: str, path: str) -> StateError:
    import errno

    folder = os.path.dirname(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StateError("The disk is full", details=details, resolution=_FULL.format(folder=folder))
    if error.errno == errno.EROFS:
        return StateError(
            "The store is read-only", details=details, resolution=_READ_ONLY.format(folder=folder)
        )
    return StateError("The store can't be opened", details=details, resolution=_MISSING.format(folder=folder))


class Explained:
    """`with Explained(path):` turns every `sqlite3.Error` and `OSError` inside into a StateError."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        import sqlite3

        if isinstance(error, sqlite3.Error | OSError):
            raise explain(error, self._path) from error
