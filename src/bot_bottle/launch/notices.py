"""Telling an operator who is elsewhere that something waits: by a short-lived process, so that the keeper never waits."""

import os

from bot_bottle.launch.wishes import After

TOGETHER = 0.5
"""Seconds in which further proposals go into the same notice."""
AT_MOST_EVERY = 5.0
MOST = 32
PROGRAM = "bot_bottle.operate.notify"
"""Knows proposals as operators see them, so it is looked up when it is needed and only there: in the process."""


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

        def body(_: spawn.Say) -> None:
            from importlib import import_module

            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            import_module(PROGRAM).notify(told)

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
