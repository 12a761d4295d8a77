"""Whether an operator is there to decide: somebody has an inbox open, or wants to be told where they are.

An open inbox holds a lock, which the kernel lets go of however the inbox ends. Several may be open: each has a file of its own.
"""

import os

from bot_bottle.host import locks, operator, paths

_FOLDER = "inboxes"


def folder() -> str:
    """Where the locks of open inboxes are."""
    return os.path.join(paths.state_root(), _FOLDER)


def inbox_open() -> bool:
    """Whether anybody has an inbox open now. Files that a killed inbox left are removed."""
    try:
        names = os.listdir(folder())
    except OSError:
        return False
    for name in names:
        path = os.path.join(folder(), name)
        if locks.is_held(path):
            return True
        if not _is_young(path):
            try:
                os.unlink(path)
            except OSError:
                continue
    return False


def anybody() -> bool:
    """Whether a proposal that is made now will be seen: an inbox is open, or a notifier is configured."""
    return inbox_open() or operator.notifies()


def _is_young(path: str) -> bool:
    """Whether its maker may not have come to lock it yet."""
    import time

    try:
        return time.time() - os.stat(path).st_mtime < 10
    except OSError:
        return True
