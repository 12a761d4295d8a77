"""Telling an operator who is elsewhere that something waits: by a short-lived process, so that the keeper never waits."""

import os
import sys
from collections.abc import Sequence

from bot_bottle.launch.wishes import After

TOGETHER = 0.5
"""Seconds in which further proposals go into the same notice."""
AT_MOST_EVERY = 5.0
MOST = 32
_START = (
    "import sys; at = sys.argv.index('--'); sys.path[:0] = sys.argv[1:at];"
    " from bot_bottle.operate.notify import notify; notify(sys.argv[at + 1:])"
)
"""Knows proposals as operators see them, so it is looked up there and only there: in the process."""


def argv(proposals: Sequence[str]) -> list[str]:
    """The command line of the process that tells of `proposals`."""
    return [sys.executable, "-I", "-c", _START, *filter(None, sys.path), "--", *proposals]


class Notices:
    """Those of one run."""

    def __init__(self, after: After) -> None:
        self._after = after
        self._new: list[str] = []
        self._running: list[int] = []
        self._due = False

    def tell(self, proposal: str) -> None:
        """`proposal` was made."""
        from bot_bottle.host import operator

        if not operator.notifies():
            return
        self._new.append(proposal)
        if not self._due:
            self._due = True
            self._after(TOGETHER, self._send)

    def _send(self) -> None:
        self._collect()
        self._due = False
        if self._running:
            self._again()
            return
        if not self._new:
            return
        from bot_bottle.host import spawn

        told, self._new = self._new[:MOST], []
        program = spawn.Program(sys.executable, argv(told), os.environ)

        def body(_: spawn.Say) -> None:
            # Not in a fork alone: SQLite knows of the keeper's store, and would wait for locks that nobody lets go of.
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            os.chdir("/")
            os.execve(program.executable, list(program.argv), program.env)  # noqa: S606

        pid, report = spawn.fork(body, keep=(), outlives=True)
        os.close(report)
        self._running.append(pid)
        self._again()

    def _again(self) -> None:
        self._due = True
        self._after(AT_MOST_EVERY, self._send)

    def _collect(self) -> None:
        """Lets go of those that have ended."""
        for pid in list(self._running):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._running.remove(pid)
