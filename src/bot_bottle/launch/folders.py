"""The run folder and its lock: who holds the lock is the living keeper of the run.

A kernel lock ends with its process, whatever ended it, and can't be confused by a process id that is used again. Folders
are made and scanned under one short lock of the runtime root, so a scan never sees a folder whose lock is not held yet.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from bot_bottle.errors import HostError
from bot_bottle.host import locks

CONTROL = "keeper.sock"
METRICS = "metrics.sock"


@contextmanager
def exclusive(runtime_root: str) -> Iterator[None]:
    """Holds the runtime root's own lock for the few system calls that make or scan run folders."""
    os.makedirs(runtime_root, mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(runtime_root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(runtime_root: str) -> Iterator[bool]:
    """Whether nobody else reaps now; if so, nobody does until the end."""
    os.makedirs(runtime_root, mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(runtime_root, ".reap"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def make(path: str) -> locks.Held:
    """Makes the run folder `path` and takes its lock; it must be held for as long as the run lives.

    Raises HostError when it can't be made, FileExistsError when another run has the name.
    """
    try:
        with exclusive(os.path.dirname(path)):
            os.mkdir(path, 0o700)
            held = locks.hold(locks.keeper_lock(path))
            assert held, "nobody else knows of this folder yet"
            return held
    except FileExistsError:
        raise
    except OSError as error:
        remove(path)
        raise HostError(f"The run folder {path} can't be made", details=str(error),
                        resolution="Check the space and the permissions there.") from error  # fmt: skip


def dead(runtime_root: str) -> list[str]:
    """The run folders that nobody keeps any more."""
    if not os.path.isdir(runtime_root):
        return []
    with exclusive(runtime_root):
        folders = [entry.path for entry in os.scandir(runtime_root) if entry.is_dir(follow_symlinks=False)]
        return sorted(path for path in folders if not locks.keeper_alive(path))


def remove(path: str) -> None:
    """Removes a folder of ours and everything in it, however deep and closed; succeeds when it is not there."""
    from bot_bottle.host import tree

    if os.path.islink(path):
        raise HostError(
            f"{path} is a link where a folder of bot-bottle's was", resolution="Look who put it there."
        )
    tree.remove(path)
