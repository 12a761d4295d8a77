"""Finding a skill's folder and holding it to what may be copied into a bottle. No heavy import.

A skill is copied into the bottle whole, so a link in it that leads elsewhere would carry a file of the host's
with it.
"""

import os
import stat

from bot_bottle.manifest.source import UnreadableError, lies_within

ENTRY_LIMIT = 2000
DEPTH_LIMIT = 16
SKILL_FILE = "SKILL.md"


def find_skill(name: str, places: tuple[tuple[str, str], ...]) -> str | None:
    """The real folder of skill `name` in the first of `places` that has it; None when none does.

    Raises UnreadableError.
    """
    for folder, within in places:
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            return _checked(path, within)
    return None


def _checked(path: str, within: str) -> str:
    real = os.path.realpath(path)
    if not lies_within(real, os.path.realpath(within)):
        raise UnreadableError(
            f"skill folder {path} is a link that leads out of {within}; put the folder itself there"
        )
    if not os.path.isdir(real):
        raise UnreadableError(f"skill {path} is not a folder; a skill is a folder with {SKILL_FILE} in it")
    if not os.path.isfile(os.path.join(real, SKILL_FILE)):
        raise UnreadableError(
            f"skill folder {path} has no {SKILL_FILE}; write one that says when to use the skill"
        )
    _walk(real, real, [0], 0)
    return real


def _walk(folder: str, top: str, count: list[int], depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise UnreadableError(f"skill folder {top} is nested more than {DEPTH_LIMIT} deep")
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                count[0] += 1
                if count[0] > ENTRY_LIMIT:
                    raise UnreadableError(
                        f"skill folder {top} holds more than {ENTRY_LIMIT} files; a skill is smaller"
                    )
                if entry.is_dir(follow_symlinks=False):
                    _walk(entry.path, top, count, depth + 1)
                else:
                    _check_file(entry, top)
    except OSError as error:
        raise UnreadableError(f"skill folder {top} can't be read: {error.strerror}") from error


def _check_file(entry: os.DirEntry[str], top: str) -> None:
    if entry.is_symlink() and not lies_within(os.path.realpath(entry.path), top):
        raise UnreadableError(f"{entry.path} is a link that leads out of the skill; copy what it leads to")
    if not stat.S_ISREG(entry.stat().st_mode):
        raise UnreadableError(f"{entry.path} is not a regular file; a skill has files and folders only")
