"""What stops a machine whose keeper was killed while it started.

smolvm detaches the machine that it starts, so nothing of it ends with us. Until the carrier of the bottle's line is there, which
does it from then on, a process of its own waits for the keeper's end and for that of the start, and then becomes smolvm's `stop`.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from functools import partial

from bot_bottle.host import spawn


class Guard:
    """Waits until `over` is called; when it never will be, the process `start` ends first, and then `stop` is run."""

    def __init__(self, start: int, stop: Sequence[str], env: Mapping[str, str], *, seconds: float) -> None:
        """`seconds` are those that the start may take. Raises OSError."""
        process = os.pidfd_open(start)
        reader, self._line = os.pipe()
        try:
            body = partial(_wait, reader, process, tuple(stop), dict(env), seconds)
            self._pid, report = spawn.fork(body, keep=(reader, process), outlives=True)
            os.close(report)
        except OSError:
            os.close(self._line)
            raise
        finally:
            os.close(reader)
            os.close(process)

    def over(self) -> None:
        """Idempotent."""
        if self._line >= 0:
            with contextlib.suppress(OSError):
                os.write(self._line, b".")
            os.close(self._line)
            self._line = -1
            os.waitpid(self._pid, 0)


def _wait(
    reader: int, process: int, stop: Sequence[str], env: Mapping[str, str], seconds: float, _say: object
) -> None:
    os.setsid()
    with open(os.devnull, "r+b") as nothing:
        for standard in (
            0,
            1,
            2,
        ):  # whoever waits for the end of what the keeper wrote to doesn't wait for this
            os.dup2(nothing.fileno(), standard)
    if os.read(reader, 1):
        return
    spawn.readable(process, seconds)
    os.execve(stop[0], tuple(stop), env)  # noqa: S606 - as everything here, without a shell
