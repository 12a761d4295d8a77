"""An agent's skills, read from the host as files for the bottle.

A skill is a folder with a `SKILL.md`. Its files are read once, before anything starts, and copied; the
folder itself is never shown inside. Folders come from whoever wrote the agent, so nothing is followed out
of them and everything is bounded.
"""

import os
import stat
from collections.abc import Iterator, Sequence

from bot_bottle.errors import ManifestError, NotFoundError
from bot_bottle.manifest.document import SkillDocument
from bot_bottle.plan.model import File

MOST_FILES = 2000
MOST_BYTES = 8 << 20
MOST_DEPTH = 16

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_skills(skills: Sequence[SkillDocument], folder: str) -> tuple[File, ...]:
    """Every file of `skills`, to be written below `folder` inside (each skill in a folder of its name).

    Raises NotFoundError when a skill's folder or its SKILL.md is not there, and ManifestError when it holds
    a symlink or a special file, is too large, or can't be read.
    """
    return tuple(file for skill in skills for file in _read(skill, folder))


def _read(skill: SkillDocument, folder: str) -> Sequence[File]:
    """The files of one skill. Everything below its folder is opened relative to it, and no symlink is
    followed, so that nobody who can write there gets a file from elsewhere copied, not even by being
    quick."""
    name, root = skill["name"], skill["folder"]
    try:
        top = os.open(root, _FOLDER)
    except OSError as error:
        raise NotFoundError(f"Skill {name} was not found", details=f"{root}: {error.strerror}") from error
    try:
        files = []
        left = MOST_BYTES
        for relative, content, executable in _walk(top, "", root):
            files.append(
                File(
                    target=f"{folder}/{name}/{relative}", content=content, mode=0o755 if executable else 0o644
                )
            )
            left -= len(content)
            if left < 0 or len(files) > MOST_FILES:
                raise ManifestError(
                    f"Skill {name} is too large",
                    details=f"{root} has more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB",
                )
    finally:
        os.close(top)
    if not any(file.target == f"{folder}/{name}/SKILL.md" for file in files):
        raise NotFoundError(f"Skill {name} has no SKILL.md", details=f"looked in {root}")
    return files


def _walk(at: int, prefix: str, root: str) -> Iterator[tuple[str, bytes, bool]]:
    """Path, content and executability of every file below the open folder `at`, in a fixed order; `.git` is
    left out."""
    if prefix.count("/") > MOST_DEPTH:
        raise ManifestError(
            f"A skill is nested more than {MOST_DEPTH} folders deep", details=f"{root}/{prefix}"
        )
    with os.scandir(at) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in found:
        relative = prefix + name
        if name == ".git":
            continue
        try:
            opened = os.open(name, _FOLDER if is_folder else _FILE, dir_fd=at)
        except OSError as error:
            raise ManifestError(
                "A skill holds something that can't be read",
                details=f"{root}/{relative}: {error.strerror}",
                resolution="A skill is made of plain files and folders; symlinks are not followed.",
            ) from error
        try:
            if is_folder:
                yield from _walk(opened, relative + "/", root)
            else:
                yield relative, *_content(opened, f"{root}/{relative}")
        finally:
            os.close(opened)


def _content(opened: int, path: str) -> tuple[bytes, bool]:
    """What the open file holds, one byte more than a skill may have at most, and whether it can be
    executed."""
    mode = os.fstat(opened).st_mode
    if not stat.S_ISREG(mode):
        raise ManifestError("A skill holds something that is no plain file", details=path)
    with os.fdopen(opened, "rb", closefd=False) as source:
        return source.read(MOST_BYTES + 1), bool(mode & 0o100)
