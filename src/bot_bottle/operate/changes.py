"""A run's changes, for the person: checked against the repository and put into it, all of them or none.

Git never works in the person's repository: what the patch touches is taken into a repository of ours, patched there, and
only then moved into place (`placing.py`). So no config, hook or attribute of the
repository is read, no link is followed, and `.git` is never touched.
"""

import os
import stat
import tempfile
from collections.abc import Sequence

from bot_bottle.errors import HostError, UsageError
from bot_bottle.host import git, tree
from bot_bottle.operate import placing
from bot_bottle.operate.text import path_text, visible_bytes
from bot_bottle.provision import snapshot
from bot_bottle.provision.changes import ChangedFile, Changes, compute, remove_copy, save
from bot_bottle.state.model import RunRecord

__all__ = ["ChangedFile", "Changes", "apply", "compute", "remove_copy", "save"]

_SHOWN = 40
_APPLY = ("apply", "--cached", "--whitespace=nowarn", "-p1")
_RESOLUTION = (
    "Nothing was changed. Put aside what you did there meanwhile, or take parts of bot-bottle diff by hand."
)


def apply(run: RunRecord, *, changes: Changes | None = None, check_only: bool = False) -> Changes:
    """Puts the run's changes (as shown before, or computed now) into its workspace; `check_only` says whether they fit.

    Raises UsageError with the files that don't fit, HostError when a step failed; then everything is as it was.
    """
    changes = changes or compute(run)
    if not changes.files:
        return changes
    try:
        with placing.opened(run.workspace) as top:
            scratch = tempfile.mkdtemp(prefix="apply-", dir=run.state_path)
            try:
                _apply(top, scratch, changes, check_only=check_only)
            finally:
                tree.remove(scratch)
    except placing.Moved as error:
        raise _conflict([f"{path_text(error.path)}: was changed at this moment"]) from error
    except placing.Stuck as error:
        where = f"What was moved away is in {run.workspace}/{error.stage}; the file `paths` there says where it belongs."
        raise HostError(
            "Applying failed half-way", details="\n".join(error.left), resolution=where
        ) from error
    except OSError as error:
        brief = "The changes can't be applied"
        raise HostError(brief, details=str(error), resolution="Nothing was changed.") from error
    return changes


def _apply(top: int, scratch: str, changes: Changes, *, check_only: bool) -> None:
    touched = _touched(changes.files)
    repository, work = f"{scratch}/git", f"{scratch}/tree"
    git.create(repository)
    with git.Import(repository, "start") as into:
        before = _fetched(top, touched, into)
    there = _patched(repository, changes.patch, work)
    new = [path for path in touched if path in there]
    _check_folders(top, new, before)
    if not check_only:
        placing.place(top, work, new=new, before=before)


def _touched(files: Sequence[ChangedFile]) -> list[str]:
    """Every path that the patch reads or writes. Raises UsageError for one that may not be."""
    paths = sorted({path for file in files for path in (file.path, file.old_path)})
    refused = [path_text(path) for path in paths if git.is_reserved(path)]
    if refused:
        raise UsageError("The changes reach for what is git's own", details="\n".join(refused))
    return paths


def _fetched(top: int, touched: Sequence[str], into: git.Import) -> dict[str, os.stat_result]:
    """Takes what is at the touched paths into git; the facts of each that is there. Raises UsageError, OSError."""
    before: dict[str, os.stat_result] = {}
    wrong: list[str] = []
    for path in touched:
        try:
            with placing.folder_of(top, path) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    snapshot.take_in(tree.Found(path, name, folder, found), into)
                    before[path] = found
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            # A file or link stands where a folder should be; no obstacle if the patch removes it first.
            if not any(path.startswith(other + "/") for other in before):
                wrong.append(f"{path_text(path)}: the way there is no folder")
        except OSError as error:
            wrong.append(f"{path_text(path)}: {error.strerror}")
    if wrong:
        raise _conflict(wrong)
    return before


def _patched(repository: str, patch: bytes, work: str) -> set[str]:
    """Lets git patch what it has taken in, and puts the outcome into the folder `work`; the paths that are there then.

    Raises UsageError, HostError.
    """
    os.mkdir(work)
    git.run(repository, "read-tree", "start").or_raise("Git could not read the workspace's files")
    done = git.run(repository, *_APPLY, stdin=patch)
    if done.code:
        again = git.run(repository, *_APPLY, "--check", "--reverse", stdin=patch)
        if again.code == 0:
            raise UsageError(
                "These changes are in the workspace already", resolution="There is nothing left to apply."
            )
        raise _conflict(visible_bytes(done.stderr).replace("error: ", "").splitlines())
    written = git.run(repository, "checkout-index", "--all", worktree=work, cwd=work)
    written.or_raise(
        "Git could not write the changed files", resolution="Nothing was changed. See that the disk has room."
    )
    listed = git.run(repository, "ls-files", "-z").or_raise("Git could not list the changed files").stdout
    return {os.fsdecode(path) for path in listed.split(b"\0") if path}


def _check_folders(top: int, new: Sequence[str], before: dict[str, os.stat_result]) -> None:
    """Refuses a file that would take the place of a folder in which the person has other files."""
    wrong = []
    for path in new:
        try:
            with placing.folder_of(top, path) as (folder, name):
                inside = os.open(name, tree.FOLDER, dir_fd=folder)
        except OSError:
            continue
        others = tree.walk(inside, lambda _path, _folder: True, lambda _path, _why: None)
        if any(f"{path}/{found.path}" not in before for found in others):
            wrong.append(f"{path_text(path)}: is a folder, with files that the run did not know")
    if wrong:
        raise _conflict(wrong)


def _conflict(wrong: Sequence[str]) -> UsageError:
    shown = [line for line in wrong if line.strip()]
    more = [f"… and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    brief = "The changes don't fit the workspace as it is now"
    return UsageError(brief, details="\n".join([*shown[:_SHOWN], *more]), resolution=_RESOLUTION)
