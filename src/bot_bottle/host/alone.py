"""One does it, the others wait and find it done: a lock on a file that stays where it is."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def alone(path: str, waiting: Callable[[], object], *, shared: bool = False) -> Iterator[None]:
    """Holds the lock of the file `path`, which is made; `waiting` is called when somebody else has it. Raises OSError.

    Any number can hold it `shared` at once, and then nobody holds it alone.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, kind)
        yield
    finally:
        os.close(lock)


@contextmanager
def alone_at_once(path: str) -> Iterator[bool]:
    """Whether the lock of `path` could be had without waiting; if so, it is held. Raises OSError."""
    import fcntl

    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            had = True
        except BlockingIOError:
            had = False
        yield had
    finally:
        os.close(lock)
