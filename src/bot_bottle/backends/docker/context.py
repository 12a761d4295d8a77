"""What a build is given: the files of a folder, as `.dockerignore` leaves them, their digest, and the archive that is sent.

The digest is of what is there, not of when it was written; so that nothing is read again at every start, it is remembered with
everything that tells whether a file was touched (size, times, inode), as git's index does.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from bot_bottle.errors import HostError, PlanError

LARGEST = 1 << 30
"""Bytes; what is larger is hardly meant, and an engine elsewhere would wait for it."""
MOST_FILES = 100_000
_BLOCK = 1 << 20
_FRESH = 2_000_000_000
"""Nanoseconds: a file younger than this when it was looked at can have been changed again within its own timestamp."""


class Entry(NamedTuple):
    """One file, folder or link of a context; `path` is relative to it."""

    path: str
    facts: os.stat_result

    def mark(self) -> list[object]:
        """What changes when the file is touched."""
        one = self.facts
        return [self.path, one.st_mode, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino]


class Context(NamedTuple):
    """A build's context: its folder, and what of it is sent, sorted."""

    folder: str
    entries: tuple[Entry, ...]


def gather(folder: str, dockerfile: str) -> Context:
    """What of `folder` is sent: all but what its `.dockerignore` leaves out, and always the Dockerfile.

    Raises HostError when it can't be read, PlanError when it is more than a build is given.
    """
    from docker.utils.build import exclude_paths

    patterns = _ignored(folder, dockerfile)
    inside = os.path.relpath(dockerfile, folder)
    inside = ".dockerignore" if inside.startswith("../") else inside
    try:
        paths = exclude_paths(folder, patterns, dockerfile=inside)
        entries = tuple(_entries(folder, sorted(paths)))
    except OSError as error:
        raise HostError(
            "The image's context can't be read", details=f"{error.filename}: {error.strerror}"
        ) from error
    size = sum(entry.facts.st_size for entry in entries if stat.S_ISREG(entry.facts.st_mode))
    if size > LARGEST or len(entries) > MOST_FILES:
        raise PlanError(
            "The image's context is too large",
            details=f"{folder} has {len(entries)} files, {size >> 20} MiB.",
            resolution="Leave out by a .dockerignore what is not built from, or name a smaller folder as image.context.",
        )
    return Context(folder, entries)


def _ignored(folder: str, dockerfile: str) -> list[str]:
    """The patterns, of the Dockerfile's own list where it has one."""
    for path in (f"{dockerfile}.dockerignore", os.path.join(folder, ".dockerignore")):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8-sig") as file:
            lines = (line.strip() for line in file)
            return [line for line in lines if line and not line.startswith("#")]
    return []


def _entries(folder: str, paths: Iterable[str]) -> Iterator[Entry]:
    for path in paths:
        facts = os.lstat(os.path.join(folder, path))
        if stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode) or stat.S_ISLNK(facts.st_mode):
            yield Entry(path, facts)  # sockets and the like are nothing that is built from


def digest(context: Context, remembered: str) -> str:
    """The SHA-256 of what is sent. `remembered` is the file that knows it of the last time.

    Raises HostError when a file can't be read, or changes while it is.
    """
    marks = [entry.mark() for entry in context.entries]
    mark = hashlib.sha256(json.dumps([context.folder, marks]).encode("utf-8", "surrogateescape")).hexdigest()
    if known := _recall(remembered, mark):
        return known
    found = _read(context)
    newest = max(
        (max(entry.facts.st_mtime_ns, entry.facts.st_ctime_ns) for entry in context.entries), default=0
    )
    if _now() - newest > _FRESH:
        _remember(remembered, mark, found)
    return found


def _now() -> int:
    import time

    return time.time_ns()


def _read(context: Context) -> str:
    total = hashlib.sha256()
    for path, facts in context.entries:
        full = os.path.join(context.folder, path)
        executable = facts.st_mode & 0o777
        try:
            if stat.S_ISLNK(facts.st_mode):
                what, content = "link", hashlib.sha256(os.fsencode(os.readlink(full))).hexdigest()
            elif stat.S_ISDIR(facts.st_mode):
                what, content = "folder", ""
            else:
                with open(full, "rb") as file:
                    what, content = "file", hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise HostError(
                "The image's context can't be read", details=f"{full}: {error.strerror}"
            ) from error
        total.update(f"{path!r} {what} {executable:o} {content}\n".encode())
    return total.hexdigest()


def _recall(path: str, mark: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            known: Mapping[str, str] = json.load(file)
        return known["digest"] if known["mark"] == mark else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remember(path: str, mark: str, found: str) -> None:
    """A memory that can't be written costs time, never correctness."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fresh = f"{path}.{os.getpid()}"
        with open(fresh, "w", encoding="ascii") as file:
            json.dump({"mark": mark, "digest": found}, file)
        os.replace(fresh, path)
