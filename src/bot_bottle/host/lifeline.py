"""A socket by whose end another process knows that this one has ended, whenever and however: the kernel closes it then."""

import os
import socket
from contextlib import ExitStack

_ours: set[socket.socket] | None = None


def pair(owned: ExitStack) -> tuple[socket.socket, socket.socket]:
    """A pair of sockets of which the first is in no other process: whoever is forked from this one closes it at once.

    `owned` closes it.
    """
    global _ours
    if _ours is None:
        _ours = set()
        os.register_at_fork(after_in_child=_drop)
    ours, theirs = socket.socketpair()
    _ours.add(ours)
    owned.callback(_ours.discard, ours)
    owned.callback(ours.close)
    return ours, theirs


def _drop() -> None:
    for ours in _ours or ():
        ours.close()
