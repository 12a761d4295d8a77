"""A lock that says "I live": held by a process as long as it runs, and let go by the kernel however it ends.

It is an flock, so it belongs to the open file: a child forked without exec holds it, too, and has to `release` it.
"""

import fcntl
import os


class Held:
    """A lock that is held; `release()` lets go of it, as does the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def hold(path: str) -> Held | None:
    """Takes the lock in the file `path`, made when it has to be; None when another process has it. Raises OSError."""
    import time

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    # Whoever asks `is_held` has the lock shared for an instant; only someone who still has it later really holds it.
    for pause in (0.0, 0.002, 0.01, 0.05):
        time.sleep(pause)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return Held(descriptor)
    os.close(descriptor)
    return None


def is_held(path: str) -> bool:
    """Whether a living process holds the lock in `path`; False when there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def keeper_lock(run_path: str) -> str:
    """The lock that a run's keeper holds as long as it lives."""
    return run_path + "/lock"


def keeper_alive(run_path: str) -> bool:
    """Whether the keeper of the run whose folder is `run_path` lives."""
    return is_held(keeper_lock(run_path))
