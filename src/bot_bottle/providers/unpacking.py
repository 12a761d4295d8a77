"""Taking a tool out of npm's archive: exactly the files that are named, and no path, link or mode of the archive's choosing."""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bot_bottle.errors import HostError
from bot_bottle.providers.packages import Part

_MOST_BYTES = 2 << 30
_MOST_FILES = 5_000


def unpack(archive: Path, part: Part, target: Path) -> None:
    """Puts what is taken of `part` below the folder `target`. Raises HostError."""
    wanted = {source for source, _ in part.taken}
    left, count = _MOST_BYTES, 0
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member, place, source in _chosen(members, part):
                content = members.extractfile(member) if member.isreg() else None
                left, count = left - member.size, count + 1
                if content is None or left < 0 or count > _MOST_FILES:
                    raise HostError(f"{member.name} in the package is not a plain file of a sensible size")
                _write(content, target, place, executable=bool(member.mode & 0o100))
                wanted.discard(source)
    except (tarfile.TarError, EOFError) as error:
        raise HostError(f"The package holds no readable {part.taken[0][0]}", details=str(error)) from error
    if wanted:
        raise HostError(f"The package holds no readable {', '.join(sorted(wanted))}")


def _chosen(members: tarfile.TarFile, part: Part) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """What is taken, where it goes, and for the sake of which entry."""
    for member in members:
        for source, place in part.taken:
            if member.name == source:
                yield member, place, source
            elif source.endswith("/") and member.name.startswith(source) and not member.isdir():
                rest = member.name.removeprefix(source)
                if any(piece in ("", ".", "..") for piece in rest.split("/")):
                    raise HostError(f"The package has a file with the name {member.name!r}")
                yield member, place + rest, source


def _write(content: IO[bytes], target: Path, place: str, *, executable: bool) -> None:
    path = target / place
    for folder in reversed(path.relative_to(target).parents):
        made = target / folder
        made.mkdir(mode=0o755, exist_ok=True)
        made.chmod(0o755)
    with path.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())
    path.chmod(0o755 if executable else 0o644)
