"""What in a repository makes the host's own git run something: looked at before and after an agent could write it.

In a mounted workspace the agent writes the person's own `.git`. It can't be kept from that without taking commits from it,
so it is watched: a change of any of these is said when the run ends, before the person's next `git status` acts on it.
"""

import os
import stat

from bot_bottle.digest import sha256_hex
from bot_bottle.host import tree

SINGLE = ("config", "config.worktree", "commondir", "info/attributes", "objects/info/alternates", "gitdir")
FOLDERS = ("hooks", "modules", "worktrees")
LARGEST = 1 << 20
MOST = 2000


def look(workspace: str) -> dict[str, str]:
    """A fingerprint for each of them that is there, by its path below the workspace; never follows a link."""
    found: dict[str, str] = {}
    top = os.path.join(workspace, ".git")
    _note(found, workspace, ".git")
    if os.path.islink(top) or not os.path.isdir(top):
        return found
    for name in SINGLE:
        _note(found, workspace, f".git/{name}")
    for folder in FOLDERS:
        for path, folders, names in os.walk(os.path.join(top, folder)):
            folders[:] = [name for name in folders if name not in ("objects", "logs", "refs")]
            below = os.path.relpath(path, workspace)
            for name in names:
                if folder == "hooks" or name in ("config", "config.worktree", "commondir", "gitdir"):
                    _note(found, workspace, f"{below}/{name}")
            if len(found) > MOST:
                return found
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The paths that differ, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _note(found: dict[str, str], workspace: str, path: str) -> None:
    folder, _, name = os.path.join(workspace, path).rpartition("/")
    try:
        mode = os.lstat(os.path.join(folder, name)).st_mode
        if stat.S_ISLNK(mode):
            found[path] = "link " + os.readlink(os.path.join(folder, name))
        elif stat.S_ISREG(mode):
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                content = tree.read_small(name, within=opened, limit=LARGEST)
            finally:
                os.close(opened)
            found[path] = f"{mode:o} {sha256_hex(content)}"
        else:
            found[path] = "folder" if stat.S_ISDIR(mode) else "special"
    except OSError:
        return
