"""The end of the chain of events, kept outside the database: without it, cutting rows off the end would not show.

The file beside the store has one line, `NUMBER DIGEST`, of an event that was committed. It is written after the commit, so
a kill in between leaves it behind, never ahead; and it only moves forward. It is always as long, below a disk sector, and
written in one call under a lock, so a reader never sees half of it.
"""

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

GENESIS = "0" * 64
_LENGTH = 20 + 1 + 64 + 1


class _Locked:
    """The head's file, open and locked while in the `with`."""

    def __init__(self, path: str, *, flags: int, lock: int) -> None:
        self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._lock = lock

    def __enter__(self) -> int:
        fcntl.flock(self._descriptor, self._lock)
        return self._descriptor

    def __exit__(self, _kind: object, _error: object, _trace: "TracebackType | None") -> None:
        os.close(self._descriptor)


def path_beside(store: str) -> str:
    """Where the head of the store in the file `store` is kept."""
    return store + ".head"


def create(path: str) -> None:
    """Makes the head of an empty chain, on the disk before this returns; leaves one that is there as it is."""
    with _Locked(path, flags=os.O_RDWR | os.O_CREAT, lock=fcntl.LOCK_EX) as file:
        if os.fstat(file).st_size == 0:
            os.pwrite(file, _line(0, GENESIS), 0)
            os.fsync(file)


def read(path: str) -> tuple[int, str] | None:
    """The number and digest of the event it names, (0, GENESIS) for none yet; None when it is missing or unreadable."""
    try:
        with _Locked(path, flags=os.O_RDONLY, lock=fcntl.LOCK_SH) as file:
            line = os.pread(file, _LENGTH + 1, 0)
        number, digest = line.decode("ascii").split()
        known = int(number), digest
    except (OSError, ValueError):
        return None
    return known if line == _line(*known) else None


def advance(path: str, number: int, digest: str) -> None:
    """Names event `number`, unless a later one is named already. A missing head is not made again: `verify` says so.

    Raises OSError.
    """
    with _Locked(path, flags=os.O_RDWR, lock=fcntl.LOCK_EX) as file:
        line = os.pread(file, _LENGTH, 0)
        if line[:20].isdigit() and int(line[:20]) < number:
            os.pwrite(file, _line(number, digest), 0)


def _line(number: int, digest: str) -> bytes:
    return f"{number:020d} {digest}\n".encode("ascii")
