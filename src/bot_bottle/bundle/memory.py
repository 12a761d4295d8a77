"""Giving back memory that only starting needed: pages of programs' code that nobody runs any more, and freed heap.

A library that is mapped for one function has most of its code resident from being loaded. What is given back is in the page
cache still and comes back by itself when it is used.
"""

import ctypes
import os

from bot_bottle.host import files
from bot_bottle.typed import NamedTuple

_DONTNEED = 4


class Mapping(NamedTuple):
    start: int
    size: int


def code() -> list[Mapping]:
    """The mappings of libraries and of the program itself that are as in their files: they can be read from there again."""
    program = os.readlink("/proc/self/exe")
    found: list[Mapping] = []
    current: Mapping | None = None
    for line in files.read("/proc/self/smaps").decode(errors="replace").splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            path = words[5] if len(words) == 6 else ""
            is_code = words[1] in ("r-xp", "r--p") and (path == program or ".so" in os.path.basename(path))
            start, end = (int(number, 16) for number in words[0].split("-"))
            current = Mapping(start, end - start) if is_code else None
        elif words[0] == "Anonymous:" and words[1] == "0" and current is not None:
            found.append(current)
    return found


def give_back(mappings: list[Mapping]) -> None:
    """Gives `mappings` (from `code`, still mapped) and free heap back to the system; without any, leaves all as it is."""
    if not mappings:
        return
    libc = ctypes.CDLL(None)
    for mapping in mappings:
        libc.madvise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.size), _DONTNEED)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
