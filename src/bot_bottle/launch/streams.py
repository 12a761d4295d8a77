"""The agent's standard streams, as the keeper has them: a pseudo-terminal, or pipes with nothing to read."""

import os

from bot_bottle.backends.base import Stdio


class Streams:
    """The agent's standard streams: a pseudo-terminal, or pipes with nothing to read."""

    def __init__(self, tty: bool) -> None:
        self.master: int | None = None
        self.outside: list[tuple[int, int]] = []
        if tty:
            self.master, slave = os.openpty()
            self._inside = [slave]
            self.inside = Stdio(slave, slave, slave, tty=True)
            self.outside = [(self.master, 1)]
        else:
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            out, out_inside = os.pipe()
            err, err_inside = os.pipe()
            self._inside = [nothing, out_inside, err_inside]
            self.inside = Stdio(nothing, out_inside, err_inside)
            self.outside = [(out, 1), (err, 2)]

    def close_inside(self) -> None:
        """After the sandbox has them: so that the end of the output is seen."""
        for descriptor in self._inside:
            os.close(descriptor)
        self._inside = []

    def close(self) -> None:
        self.close_inside()
        for descriptor, _ in self.outside:
            os.close(descriptor)
        self.outside = []
