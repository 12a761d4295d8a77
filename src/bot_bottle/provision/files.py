"""Files for a bottle as one tar stream. Pure."""

import io
from collections.abc import Sequence

from bot_bottle.errors import PlanError
from bot_bottle.plan.model import INSIDE_HOME, File

_PREFIX = INSIDE_HOME + "/"


def archive(files: Sequence[File]) -> bytes:
    """A tar stream of `files`, relative to `/`: files only, so that folders that exist keep their owner and
    mode.

    Raises PlanError for a target that is not plainly below the agent's home, or named twice with different
    content.
    """
    import tarfile

    chosen: dict[str, File] = {}
    for file in files:
        name = _name(file)
        if chosen.setdefault(name, file) != file:
            raise PlanError(f"Two different files are to be written to {file.target}")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as stream:
        for name, file in chosen.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(file.content), file.mode & 0o777
            stream.addfile(entry, io.BytesIO(file.content))
    return out.getvalue()


def _name(file: File) -> str:
    """The target as it stands in the stream."""
    parts = file.target.split("/")
    plain = file.target.startswith(_PREFIX) and "\0" not in file.target
    if not plain or any(part in ("", ".", "..") for part in parts[1:]):
        raise PlanError(
            f"{file.target!r} can't be written", details=f"it does not lie plainly below {INSIDE_HOME}"
        )
    return file.target[1:]
