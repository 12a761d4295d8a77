"""A run's changes, for the person: checked against the repository and put into it, all of them or none.

Git never works in the person's repository: what the patch touches is copied into a scratch folder of ours, patched there by
git with a repository of ours, and only then moved into place (`placing.py`). So no config, hook or attribute of the
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
from bot_bottle.provision.changes import ChangedFile, Changes, compute, remove_copy, save
from bot_bottle.state.model import RunRecord

__all__ = ["ChangedFile", "Changes", "apply", "compute", "remove_copy", "save"]

_SHOWN = 40
_APPLY = ("apply", "--whitespace=nowarn", "-p1")
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
    touched = _touched(changes.files)
    try:
        with placing.opened(run.workspace) as top:
            scratch = tempfile.mkdtemp(prefix="apply-", dir=run.state_path)
            try:
                before = _fetched(top, touched, scratch)
                _patched(scratch, changes.patch)
                new = [path for path in touched if os.path.lexists(f"{scratch}/tree/{path}")]
                _check_folders(top, new, before)
                if not check_only:
                    placing.place(top, f"{scratch}/tree", new=new, before=before)
            finally:
                tree.remove(scratch)
    except placing.Moved as error:
        raise _conflict([f"{path_text(error.path)}: was changed at this moment"]) from error
    except placing.Stuck as error:
        where = f"What was moved away is in {run.workspace}/{error.stage}; the file `paths` there says where it belongs."
        raise HostError(
            "applying failed half-way", details="\n".join(error.left), resolution=where
        ) from error
    except OSError as error:
        brief = "the changes can't be applied"
        raise HostError(brief, details=str(error), resolution="Nothing was changed.") from error
    return changes


def _touched(files: Sequence[ChangedFile]) -> list[str]:
    """Every path that the patch reads or writes. Raises UsageError for one that may not be."""
    paths = sorted({path for file in files for path in (file.path, file.old_path)})
    refused = [path_text(path) for path in paths if git.is_reserved(path)]
    if refused:
        raise UsageError("the changes reach for what is git's own", details="\n".join(refused))
    return paths


def _fetched(top: int, touched: Sequence[str], scratch: str) -> dict[str, os.stat_result]:
    """Copies what is at the touched paths into the scratch's `tree`; the facts of each that is there."""
    os.mkdir(f"{scratch}/tree")
    before: dict[str, os.stat_result] = {}
    wrong: list[str] = []
    for path in touched:
        try:
            with placing.folder_of(top, path) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    _copy_out(folder, name, found, f"{scratch}/tree/{path}")
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


def _copy_out(folder: int, name: str, found: os.stat_result, target: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(name, dir_fd=folder), target)
        return
    source = tree.open_file(name, within=folder)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(source, "rb") as reading, open(target, "xb") as writing:
        while block := reading.read(1 << 20):
            writing.write(block)
    os.chmod(target, 0o700 if found.st_mode & stat.S_IXUSR else 0o600)


def _patched(scratch: str, patch: bytes) -> None:
    """Lets git patch the scratch's `tree`. Raises UsageError with what does not fit."""
    work, repository = f"{scratch}/tree", f"{scratch}/git"
    git.create(repository)
    done = git.run(repository, *_APPLY, worktree=work, cwd=work, stdin=patch)
    if done.code == 0:
        return
    again = git.run(repository, *_APPLY, "--check", "--reverse", worktree=work, cwd=work, stdin=patch)
    if again.code == 0:
        raise UsageError(
            "these changes are in the workspace already", resolution="There is nothing left to apply."
        )
    raise _conflict(visible_bytes(done.stderr).replace("error: ", "").splitlines())


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
    brief = "the changes don't fit the workspace as it is now"
    return UsageError(brief, details="\n".join([*shown[:_SHOWN], *more]), resolution=_RESOLUTION)
