"""The bundle and the supervise server of a run that has a place for them (`backends.base.Place`): the same lines, started there."""

import contextlib
import socket
from collections.abc import Mapping

from bot_bottle.backends.base import Place
from bot_bottle.bundle.model import BundleConfig
from bot_bottle.door.model import Hatch
from bot_bottle.launch.sidecar import Sidecar
from bot_bottle.launch.supervise_process import Ends


class PlacedSidecar(Sidecar):
    """A bundle there. `pid` is its channel."""

    def __init__(self, place: Place, config: BundleConfig) -> None:
        """Starts it, and gives it its config. Raises SandboxError."""
        self._blank(None)
        self._place = place
        self.pid, self.sock = place.bundle()
        self.door = Hatch(self.pid)
        self._ended = False
        try:
            self.give(config)
        except BaseException:
            self.discard()
            raise

    def kill(self) -> None:
        self.reap()

    def reap(self) -> int | None:
        if not self._ended:
            self._ended = True
            code = self._place.end(self.pid)
            self.code = 255 if code is None else code  # the place is gone, and nobody knows
        return self.code


class _Child:
    """The supervise server there, as `Process` ends it."""

    def __init__(self, place: Place, channel: int) -> None:
        self.pid = channel
        self._place = place
        self._code: int | None = None
        self._ended = False

    def kill(self) -> None:
        if not self._ended:
            self._ended = True
            self._code = self._place.end(self.pid)

    def wait(self) -> int | None:
        return self._code

    def close(self) -> None:
        """Nothing of it is here."""


def begin_server(
    place: Place, listener: socket.socket, order: Mapping[str, object]
) -> "tuple[socket.socket, Ends]":
    """Starts the supervise server there. `listener` is what told of who comes. Raises SandboxError."""
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        listener.recv(64)
    channel, line = place.server(order)
    return line, _Child(place, channel)
