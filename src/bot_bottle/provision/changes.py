"""What a run changed in its copy of the workspace: computed while it runs, saved when it ends."""

import json
import os
from collections.abc import Iterator

from bot_bottle.errors import HostError, NotFoundError, StateError, UsageError
from bot_bottle.host import files, git, tree
from bot_bottle.plan.model import BASE_FOLDER, COPY_FOLDER
from bot_bottle.provision import flagged, snapshot
from bot_bottle.provision.flagged import Flag
from bot_bottle.state.model import RunRecord
from bot_bottle.typed import NamedTuple

PATCH = "changes.patch"
LISTED = "changes.json"
_FORMAT = ("--no-color", "--no-ext-diff", "--no-textconv", "-r", "--no-commit-id")
_PATCH_FORMAT = ("-p", "--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/")


class ChangedFile(NamedTuple):
    """One file. `status` is A(dded), M(odified), D(eleted), R(enamed, from `old_path`) or T(ype changed).

    Lines are None for a binary file; modes are git's (`100644`, `100755`, `120000`, and `000000` for no file).
    """

    path: str
    old_path: str
    status: str
    old_mode: str
    new_mode: str
    insertions: int | None
    deletions: int | None


class Changes(NamedTuple):
    """`patch` is what `git apply` takes; `flagged` what to look at first; `left_out` what could not be looked at."""

    patch: bytes = b""
    files: tuple[ChangedFile, ...] = ()
    insertions: int = 0
    deletions: int = 0
    flagged: tuple[Flag, ...] = ()
    left_out: tuple[str, ...] = ()


def copy_path(run: RunRecord) -> str:
    """The run's copy of the workspace."""
    return os.path.join(run.state_path, COPY_FOLDER)


def compute(run: RunRecord) -> Changes:
    """The run's changes: as saved if it has ended, else as they are in its copy now.

    Raises UsageError when it works in the workspace itself, NotFoundError when nothing is kept of it, HostError.
    """
    if run.workspace_mode == "clone":
        raise UsageError(
            f"{run.id} works in a clone of its own",
            resolution=f"bot-bottle fetch {run.id} brings its branches.",
        )
    if run.workspace_mode != "copy":
        raise UsageError(
            f"{run.id} works in the workspace itself, not in a copy",
            resolution=f"What it changed is there already: git -C {run.workspace} diff",
        )
    if os.path.exists(os.path.join(run.state_path, PATCH)):
        return _saved(run)
    if not snapshot.is_complete(os.path.join(run.state_path, BASE_FOLDER)):
        raise NotFoundError(f"{run.id} has no copy of the workspace", details=run.state_path)
    return _computed(run)


def save(run: RunRecord) -> Changes | None:
    """Keeps the changes of a run that has ended, for `compute`; None when there is no copy. Does nothing the second time.

    Raises HostError or StateError; the copy is the only place that has the work then, and must stay.
    """
    if run.workspace_mode != "copy":
        return None
    if os.path.exists(os.path.join(run.state_path, PATCH)):
        return _saved(run)
    if not os.path.isdir(copy_path(run)) or not snapshot.is_complete(
        os.path.join(run.state_path, BASE_FOLDER)
    ):
        return None
    changes = _looked_at(run)
    listed = changes._replace(patch=b"")._asdict() | {"patch": None}
    try:
        # The patch comes last: once it is there, so is the list.
        lasting = bool(changes.patch)
        _write_whole(os.path.join(run.state_path, LISTED), json.dumps(listed).encode(), lasting=lasting)
        _write_whole(os.path.join(run.state_path, PATCH), changes.patch, lasting=lasting)
    except OSError as error:
        where = f"The work is in {copy_path(run)}"
        raise StateError("The changes can't be saved", details=str(error), resolution=where) from error
    return changes


def remove_copy(run: RunRecord) -> None:
    """Removes the copy and what is known of its start; succeeds when they are gone. Raises HostError."""
    for folder in (COPY_FOLDER, BASE_FOLDER):
        tree.remove(os.path.join(run.state_path, folder))


def _saved(run: RunRecord) -> Changes:
    try:
        patch = files.read(os.path.join(run.state_path, PATCH))
        listed = json.loads(files.read(os.path.join(run.state_path, LISTED)))
        return Changes(
            patch=patch,
            files=tuple(ChangedFile(*file) for file in listed["files"]),
            insertions=listed["insertions"],
            deletions=listed["deletions"],
            flagged=tuple(Flag(*flag) for flag in listed["flagged"]),
            left_out=tuple(listed["left_out"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"The saved changes of {run.id} can't be read", details=str(error)) from error


def _looked_at(run: RunRecord) -> Changes:
    """The quick answer where nothing was changed, else `_computed`."""
    try:
        left_out = snapshot.unchanged(copy_path(run), os.path.join(run.state_path, BASE_FOLDER))
    except OSError as error:
        raise HostError("The changes can't be computed", details=str(error)) from error
    return _computed(run) if left_out is None else Changes(left_out=left_out)


def _computed(run: RunRecord) -> Changes:
    import shutil
    import tempfile

    base = os.path.join(run.state_path, BASE_FOLDER)
    try:
        scratch = tempfile.mkdtemp(prefix="diff-", dir=run.state_path)
    except OSError as error:
        raise HostError("The changes can't be computed", details=str(error)) from error
    try:
        found = snapshot.compare(copy_path(run), base, scratch)
        return _described(scratch, found)
    except OSError as error:
        raise HostError("The changes can't be computed", details=str(error)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _described(scratch: str, found: snapshot.Differences) -> Changes:
    if found.now == found.start:
        return Changes(left_out=found.left_out)
    renames = "-M"
    files = _listed(scratch, found, renames)
    if not files:
        return Changes(left_out=found.left_out)
    if any(_is_odd_rename(file) for file in files):
        renames = "--no-renames"
        files = _listed(scratch, found, renames)
    patch = git.run(scratch, "diff-tree", *_FORMAT, *_PATCH_FORMAT, renames, found.start, found.now)
    return Changes(
        patch=patch.or_raise("Git could not write the patch").stdout,
        files=files,
        insertions=sum(file.insertions or 0 for file in files),
        deletions=sum(file.deletions or 0 for file in files),
        flagged=tuple(_flags(files, found.links)),
        left_out=found.left_out,
    )


def _listed(scratch: str, found: snapshot.Differences, renames: str) -> tuple[ChangedFile, ...]:
    asked = git.run(
        scratch, "diff-tree", *_FORMAT, "--raw", "--numstat", "-z", renames, found.start, found.now
    )
    return tuple(_files(asked.or_raise("Git could not list the changes").stdout))


def _is_odd_rename(file: ChangedFile) -> bool:
    """Whether git could not apply the rename it found: of a link, or of a file into a folder of its own name and back."""
    nested = file.path.startswith(file.old_path + "/") or file.old_path.startswith(file.path + "/")
    return file.status == "R" and (nested or file.new_mode == "120000")


def _files(listed: bytes) -> Iterator[ChangedFile]:
    """From `--raw --numstat -z`: first `:OLD NEW HASH HASH STATUS`, NUL, names; then `ADDED TAB REMOVED TAB`, names."""
    words = iter(os.fsdecode(listed).split("\0"))
    raw: dict[str, tuple[str, str, str, str]] = {}
    for word in words:
        if word.startswith(":"):
            old_mode, new_mode, _, _, status = word[1:].split(" ")
            old_path = next(words)
            path = next(words) if status[0] == "R" else old_path
            raw[path] = (old_path, status[0], old_mode, new_mode)
        elif word:
            added, removed, path = word.split("\t", 2)
            if not path:
                next(words)
                path = next(words)
            lines = (None if count == "-" else int(count) for count in (added, removed))
            yield ChangedFile(path, *raw[path], *lines)


def _flags(files: tuple[ChangedFile, ...], links: dict[str, str]) -> Iterator[Flag]:
    for file in files:
        why = flagged.reason(file.path) or flagged.reason(file.old_path)
        if not why and file.path in links and flagged.leads_out(file.path, links[file.path]):
            why = flagged.LEADS_OUT
        if why:
            yield Flag(file.path, why)


def _write_whole(path: str, content: bytes, *, lasting: bool) -> None:
    """Writes a file so that it is there in full or not at all; when it is to be `lasting`, on the disk."""
    temporary = f"{path}.partial-{os.getpid()}"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if lasting:
                os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
