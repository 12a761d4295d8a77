"""Routes that hold for good: written into the bottle's file as its author would, whole or not at all."""

import os
from collections.abc import Sequence


def add_routes(file: str, lines: Sequence[str], run: str) -> str:
    """Adds `lines` under `egress: routes:` of the bottle's file; why it could not, else empty. What stands there already stays.

    `run` is whose keeper this is.
    """
    from bot_bottle.manifest.edit import CantEdit, edit_egress, missing
    from bot_bottle.policy.difference import bare

    target = os.path.realpath(file)
    try:
        with open(target, encoding="utf-8", newline="") as stream:
            before = stream.read()
        if routes := missing(before, [bare(line) for line in lines]):
            replace(target, before, edit_egress(before, routes=routes), run)
    except CantEdit as error:
        return str(error)
    except (OSError, UnicodeDecodeError) as error:
        return str(error)
    return ""


def forget(file: str, run: str) -> bool:
    """Removes what the killed keeper of `run` left beside the bottle's file; whether it had. Raises OSError."""
    try:
        os.unlink(_beside(os.path.realpath(file), run))
    except FileNotFoundError:
        return False
    return True


def _beside(target: str, run: str) -> str:
    return f"{target}.{run}.new"


def replace(target: str, before: str, after: str, run: str) -> None:
    """Puts `after` in the place of `target`, which must hold `before`. Raises OSError."""
    beside = _beside(target, run)
    made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(made, "w", encoding="utf-8", newline="") as stream:
            stream.write(after)
            stream.flush()
            os.fchmod(made, os.stat(target).st_mode & 0o777)
            os.fsync(made)
        with open(target, encoding="utf-8", newline="") as stream:
            if stream.read() != before:
                raise OSError("it was changed at this moment")
        os.rename(beside, target)
    except BaseException:
        os.unlink(beside)
        raise
