"""One does it, the others wait and find it done: a lock on a file that stays where it is."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def alone(path: str, waiting: Callable[[], object]) -> Iterator[None]:
    """Holds the lock of the file `path`, which is made; `waiting` is called when somebody else has it. Raises OSError."""
    import fcntl

    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
