"""kill -9 at a random moment of a process's work: when it has used so much processor time, however fast the machine is."""

import contextlib
import os
import select
import signal
import threading
from pathlib import Path


def used(pid: int) -> int:
    """The nanoseconds of processor time that all threads of a process have had; 0 when it is gone."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except (OSError, IndexError):
        return 0
    return total


def alive(pid: int) -> bool:
    """Whether the process lives: not when it is only not buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Killer:
    """Kills `pid` once it has used `after` more nanoseconds; or when `now` says so, whichever comes first."""

    def __init__(self, pid: int, after: int) -> None:
        self._pid = pid
        self._process = os.pidfd_open(pid)  # a number may be used again
        self._until = used(pid) + after
        self._now = threading.Event()
        self.early = False
        """Whether it died in the middle of its work."""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._now.wait(0.0002):
            if used(self._pid) >= self._until:
                self.early = True
                break
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        select.select([self._process], [], [])

    def now(self) -> None:
        """Kills it, if it lives yet, and waits until it is gone."""
        self._now.set()
        self._thread.join()
        os.close(self._process)
