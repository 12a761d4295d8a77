"""Which process a number means: a process id together with its start time, since ids are used again."""

from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """A process that was seen: `started` is in clock ticks since boot."""

    pid: int
    started: int


def identify(pid: int) -> Identity | None:
    """The identity of the process that `pid` means now; None when there is none, or only its remains (a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else Identity(pid, int(fields[19]))


def is_alive(process: Identity) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process
