"""What a build is given: the files of a folder, as `.dockerignore` leaves them, their digest, and the archive that is sent.

The digest is of what is there, not of when it was written; so that nothing is read again at every start, it is remembered with
everything that tells whether a file was touched (size, times, inode), as git's index does.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError, PlanError
from bot_bottle.typed import Any, NamedTuple

LARGEST = 1 << 30
"""Bytes; what is larger is hardly meant, and an engine elsewhere would wait for it."""
MOST_FILES = 100_000
_MOST_LOOKED_AT = 50_000
_FRESH = 2_000_000_000
"""Nanoseconds: a file younger than this when it was looked at can have been changed again within its own timestamp."""


class Entry(NamedTuple):
    """One file, folder or link of a context; `path` is relative to it."""

    path: str
    facts: os.stat_result


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
        raise _unreadable(error) from error
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
        try:
            with open(path, encoding="utf-8-sig") as file:
                lines = [line.strip() for line in file]
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise HostError("The image's context can't be read", details=f"{path}: {error}") from error
        return [line for line in lines if line and not line.startswith("#")]
    return []


def _entries(folder: str, paths: Iterable[str]) -> Iterator[Entry]:
    for path in paths:
        facts = os.lstat(os.path.join(folder, path))
        if stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode) or stat.S_ISLNK(facts.st_mode):
            yield Entry(path, facts)  # sockets and the like are nothing that is built from


def digest(folder: str, dockerfile: str, remembered: str) -> str:
    """The SHA-256 of what is sent. `remembered` is the file that knows it of the last time.

    Raises HostError when a file can't be read, PlanError when it is more than a build is given.
    """
    mark, newest = _mark(folder, dockerfile)
    if mark and (known := _recall(remembered, mark)):
        return known
    found = _read(gather(folder, dockerfile), dockerfile)
    if mark and _now() - newest > _FRESH:
        _remember(remembered, mark, found)
    return found


def _mark(folder: str, dockerfile: str) -> tuple[str, int]:
    """What changes when anything in there is touched, left out or not, and when that was last; empty when it is too much."""
    seen: list[Any] = [folder]
    newest = 0
    try:
        for path, one in (("", os.stat(dockerfile)), *_everything(folder)):
            seen.append([path, one.st_mode, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino])
            newest = max(newest, one.st_mtime_ns, one.st_ctime_ns)
            if len(seen) > _MOST_LOOKED_AT:
                return "", 0
    except OSError:
        return "", 0  # who reads it says what is wrong
    return sha256_hex(json.dumps(seen).encode("utf-8", "surrogateescape")), newest


def _everything(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """All that is in `folder`, sorted."""
    for path, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted([*folders, *names]):
            full = os.path.join(path, name)
            yield full, os.lstat(full)


def _raise(error: OSError) -> None:
    raise error


def _now() -> int:
    import time

    return time.time_ns()


def _read(context: Context, dockerfile: str) -> str:
    """The digest, by reading everything once."""
    import hashlib

    total = hashlib.sha256()
    outside = (
        []
        if any(os.path.join(context.folder, one.path) == dockerfile for one in context.entries)
        else [dockerfile]
    )
    try:
        for full in outside:
            total.update(f"dockerfile {_content(full)}\n".encode())
        for path, facts in context.entries:
            full = os.path.join(context.folder, path)
            if stat.S_ISLNK(facts.st_mode):
                said = "link " + sha256_hex(os.fsencode(os.readlink(full)))
            else:
                said = "folder" if stat.S_ISDIR(facts.st_mode) else "file " + _content(full)
            total.update(f"{path!r} {facts.st_mode & 0o777:o} {said}\n".encode())
    except OSError as error:
        raise _unreadable(error) from error
    return total.hexdigest()


def _content(path: str) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(error: OSError) -> HostError:
    return HostError("The image's context can't be read", details=f"{error.filename}: {error.strerror}")


def _recall(path: str, mark: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            known = json.load(file)
        return str(known["digest"]) if known["mark"] == mark else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remember(path: str, mark: str, found: str) -> None:
    """A memory that can't be written costs time, never correctness."""
    fresh = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(fresh, "w", encoding="ascii") as file:
            json.dump({"mark": mark, "digest": found}, file)
        os.replace(fresh, path)
    except OSError:
        pass
