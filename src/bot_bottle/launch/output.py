"""Where the agent's output goes: the run's log always; this process's own streams when it is in the foreground."""

import os
import select
from collections.abc import Callable

LARGEST_LOG = 64 << 20
"""Bytes; then the log becomes `output.log.1` and a new one begins, so an agent that prints for ever fills no disk."""
SAFE_WRITE = 4096
"""What a pipe that polls writable takes without blocking (PIPE_BUF, pipe(7))."""


class Log:
    """The run's output as it came, bounded."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = self._open()
        self._size = 0
        self.broken = ""

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Appends `data`; a disk that is full loses log lines, never the run (`broken` says why)."""
        try:
            if self._size + len(data) > LARGEST_LOG:
                os.close(self._file)
                os.replace(self.path, self.path + ".1")
                self._file, self._size = self._open(), 0
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            self._size += len(data)
        except OSError as error:
            self.broken = str(error)

    def tail(self, size: int = 65536) -> bytes:
        """The last `size` bytes, for whoever attaches late."""
        with open(self.path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read()

    def close(self) -> None:
        os.close(self._file)


Shown = Callable[[bytes], bytes]
"""What of the agent's output goes to a terminal instead; it is told the parts in order."""


class Outlet:
    """One of this process's own streams, written without ever blocking the keeper; to a terminal goes what `shown` makes of it.

    While `pending` is not empty, the keeper does not read more from the agent, so a slow reader slows the agent down.
    """

    def __init__(self, descriptor: int, shown: Callable[[], Shown] | None = None) -> None:
        self.descriptor = descriptor
        self._shown = shown() if shown and os.isatty(descriptor) else None
        self.pending = b""
        self.gone = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, data: bytes) -> None:
        """Takes `data` and writes what goes now."""
        if not self.gone:
            self.pending += self._shown(data) if self._shown else data
            self.flush()

    def flush(self, timeout: float = 0) -> None:
        """Writes what goes; with `timeout` (seconds) waits that long for the reader."""
        while self.pending and not self.gone:
            ready = self._poll.poll(timeout * 1000)
            if not ready:
                return
            try:
                self.pending = self.pending[os.write(self.descriptor, self.pending[:SAFE_WRITE]) :]
            except BlockingIOError:
                return
            except OSError:
                # Whoever read it went away; the agent's work goes on, and the log has it all.
                self.gone, self.pending = True, b""
