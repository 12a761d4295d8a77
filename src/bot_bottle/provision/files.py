"""Which files may be put into a bottle's home. Pure."""

from collections.abc import Sequence

from bot_bottle.errors import PlanError
from bot_bottle.plan.model import INSIDE_HOME, File

_PREFIX = INSIDE_HOME + "/"


def checked(files: Sequence[File]) -> tuple[File, ...]:
    """`files`, each once.

    Raises PlanError for a target that is not plainly below the agent's home, or named twice with different
    content.
    """
    chosen: dict[str, File] = {}
    for file in files:
        _must_be_plain(file)
        if chosen.setdefault(file.target, file) != file:
            raise PlanError(f"Two different files are to be written to {file.target}")
    return tuple(chosen.values())


def _must_be_plain(file: File) -> None:
    parts = file.target.split("/")
    plain = file.target.startswith(_PREFIX) and "\0" not in file.target
    if not plain or any(part in ("", ".", "..") for part in parts[1:]):
        raise PlanError(
            f"{file.target!r} can't be written", details=f"it does not lie plainly below {INSIDE_HOME}"
        )
