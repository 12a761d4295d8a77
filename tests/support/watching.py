"""How much memory processes take while something is done."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path


def private(pid: int) -> int:
    """A process's own memory in KiB: what is mapped from files is not counted. 0 for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon:"))


class Peak:
    """The most, in KiB, that all of `pids()` together had while the block lasted, looked at ten times a second."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self.kib = 0
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.kib = max(self.kib, sum(map(private, self._pids())))
