"""Fetching a provider's tool: by npm, checked against the hash in `packages.py`, put in place in one rename.

    DATA/providers/claude/2.1.330/claude      the program, readable by the users that agents run as
    DATA/providers/claude/current -> 2.1.330  the version that runs use
    DATA/providers/codex/0.169.0/codex -> bin/codex      where a tool has several files

Everything before the rename happens in `.incoming`, held by a lock: an interrupted install leaves at most
that folder, and the next one removes it.
"""

import base64
import hashlib
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bot_bottle.errors import HostError, NotFoundError, UsageError
from bot_bottle.host.alone import alone
from bot_bottle.providers import npm
from bot_bottle.providers.packages import TOOLS, Part, Tool
from bot_bottle.providers.place import folder
from bot_bottle.providers.unpacking import unpack

_VERSION = re.compile(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}(?:-[0-9A-Za-z.]{1,32})?")

Report = Callable[[str], None]
"""Hears what is being done, one sentence at a time."""


class Installed(NamedTuple):
    """A tool on this host. `fetched` is False when it was there already; `recorded` when our source has its
    hash."""

    tool: str
    version: str
    program: str
    integrity: str
    fetched: bool
    recorded: bool


def versions(data_root: str, tool: str) -> tuple[str, ...]:
    """Every installed version of `tool`, sorted as text."""
    here = Path(folder(data_root, tool))
    found = here.iterdir() if here.is_dir() else ()
    return tuple(sorted(one.name for one in found if _VERSION.fullmatch(one.name) and (one / tool).is_file()))


def install(
    data_root: str, name: str, *, version: str | None = None, report: Report = lambda _: None
) -> Installed:
    """Installs `name` at `version` (default: the pinned one) and makes it the current one; a second time
    changes nothing.

    Raises NotFoundError for an unknown tool, UsageError for what is no version, and HostError when it can't
    be had: no npm, offline, no such version, disk full, a hash that is wrong. Then nothing was installed.
    """
    tool = TOOLS.get(name)
    if tool is None:
        raise NotFoundError(
            f"{name} has nothing to install", resolution=f"One of: {', '.join(sorted(TOOLS))}."
        )
    wanted = version or tool.version
    if not _VERSION.fullmatch(wanted):
        raise UsageError(f"{wanted!r} is not an exact version", resolution=f"Write it like {tool.version}.")
    place = Path(folder(data_root, name))
    try:
        with _alone(place, report):
            return _install(place, tool, wanted, report)
    except OSError as error:
        raise HostError(f"{name} {wanted} could not be installed", details=str(error)) from error


def _install(place: Path, tool: Tool, version: str, report: Report) -> Installed:
    parts = tool.build(platform.machine())
    recorded = version == tool.version
    expected = parts[0].integrity if recorded else ""
    final = place / version
    there = (final / tool.name).is_file()
    if not there:
        incoming = place / ".incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        try:
            incoming.mkdir(mode=0o700)
            new = incoming / "new"
            new.mkdir(mode=0o755)
            new.chmod(0o755)
            expected, *_ = [_fetch(part, version, recorded, incoming, report) for part in parts]
            if tool.program:
                (new / tool.name).symlink_to(tool.program)
            new.rename(final)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    _point(place, version)
    return Installed(tool.name, version, str(final / tool.name), expected, not there, recorded)


def _fetch(part: Part, version: str, recorded: bool, incoming: Path, report: Report) -> str:
    """Puts what is taken out of one package below `incoming`/new, and answers the integrity that it has."""
    wanted = part.version or version + part.suffix
    report(f"fetching {part.package} {wanted}")
    known = recorded or part.version
    expected = part.integrity if known else npm.integrity(part.package, wanted, incoming)
    archive = npm.pack(part.package, wanted, incoming)
    report("checking its hash")
    check(archive, expected)
    report("unpacking")
    unpack(archive, part, incoming / "new")
    archive.unlink()
    return expected


@contextmanager
def _alone(place: Path, report: Report) -> Iterator[None]:
    """Holds the tool's lock; a second installer waits, and then finds the work done."""
    place.mkdir(parents=True, exist_ok=True)
    for one in (place, place.parent):
        one.chmod(0o755)
    with alone(str(place / ".lock"), lambda: report("waiting for another install of it")):
        yield


def check(archive: Path, expected: str) -> None:
    """Raises HostError unless the bytes of `archive` have the hash `expected` (`sha512-BASE64`)."""
    with archive.open("rb") as source:
        digest = hashlib.file_digest(source, "sha512").digest()
    found = "sha512-" + base64.b64encode(digest).decode()
    if found != expected:
        raise HostError(
            "The package is not the one that was expected; nothing was installed",
            details=f"expected {expected}\nfound    {found}",
            resolution="Try again; if it stays so, somebody on the way to the registry changed it: ask them.",
        )


def _point(place: Path, version: str) -> None:
    link = place / "current"
    if link.is_symlink() and str(link.readlink()) == version:
        return
    fresh = place / ".current"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(version)
    fresh.rename(link)
