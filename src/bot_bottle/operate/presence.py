"""An inbox that is open: while it is, agents that ask are told that somebody is there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bot_bottle.errors import HostError
from bot_bottle.host import locks, presence


@contextmanager
def present() -> Iterator[None]:
    """While in it, somebody is there. Raises HostError when that can't be said."""
    path = os.path.join(presence.folder(), f"{os.getpid()}-{os.urandom(4).hex()}")
    try:
        os.makedirs(presence.folder(), mode=0o700, exist_ok=True)
        held = locks.hold(path)
    except OSError as error:
        raise HostError("The inbox can't be opened", details=str(error)) from error
    assert held is not None, "nobody else knows of this file yet"
    try:
        yield
    finally:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        held.release()
