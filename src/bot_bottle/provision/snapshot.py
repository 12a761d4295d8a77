"""What a copied workspace looked like at the start, and what is different now: as two commits in repositories of ours.

The start is one commit in the base; beside it the base keeps each file's size, times and inode, so that a later look reads
only what was touched. What `.gitignore` leaves out is left out, unless the workspace's own git tracks it. Nested
repositories and submodules are folders like any other, but for their `.git`. Nothing in the workspace is trusted: the walk
follows no link and opens no pipe, and git gets contents over a pipe of its own.
"""

import errno
import os
import stat
from collections.abc import Callable, Collection
from functools import cached_property

from bot_bottle.errors import HostError
from bot_bottle.host import files, git, ignore, tree
from bot_bottle.host.commits import Commands, Kept
from bot_bottle.provision.workspace import START
from bot_bottle.typed import NamedTuple

MAX_BYTES = 1 << 30
MAX_FILES = 200_000
_COMMANDS = "commit"
_REPOSITORY = "git"
_IN_MEMORY = 1 << 20
_IGNORE_FILE_BYTES = 1 << 20
_NO_FILE = "neither a file nor a link"

Facts = tuple[int, int, int, int, int]


class Differences(NamedTuple):
    """`start` and `now` are commits, equal when nothing changed; `links` are the targets of links that are new."""

    start: str
    now: str
    links: dict[str, str]
    left_out: tuple[str, ...]


class _Selection:
    """Which of the files on a walk count, by the ignore rules and by what is tracked anyway."""

    def __init__(
        self, exclude: bytes, tracked: "Callable[[], Collection[str]]", left_out: Callable[[str, str], None]
    ) -> None:
        self._rules: dict[str, ignore.Rules | None] = {}
        self._exclude = ignore.parse(exclude)
        self._tell_tracked = tracked
        self._left_out = left_out

    @cached_property
    def _tracked(self) -> "Collection[str]":
        """Asked for when the first path is ignored: in many workspaces none is, and git need not be started for it."""
        return self._tell_tracked()

    @cached_property
    def _tracked_folders(self) -> set[str]:
        return {path[:at] for path in self._tracked for at in range(len(path)) if path[at] == "/"}

    def enter(self, path: str, folder: int) -> bool:
        """Whether to go into the folder; asked once for each, parents first."""
        parent, _, name = path.rpartition("/")
        if name == ".git" and path:
            return False
        if path and git.is_reserved(path):
            self._left_out(path, "a name that git keeps for itself")
            return False
        rules = self._rules[parent] if path else ignore.Rules().inside(0, self._exclude)
        parts = path.split("/") if path else []
        if path and (rules is None or rules.ignores(parts, folder=True)):
            self._rules[path] = None
            return path in self._tracked_folders
        assert rules is not None
        text = tree.read_small(".gitignore", within=folder, limit=_IGNORE_FILE_BYTES)
        self._rules[path] = rules.inside(len(parts), ignore.parse(text)) if text else rules
        return True

    def takes(self, found: tree.Found) -> bool:
        """Whether the file or link counts."""
        path, mode = found.path, found.stat.st_mode
        if found.name == ".git":
            return False
        rules = self._rules[path.rpartition("/")[0]]
        ignored = rules is None or rules.ignores(path.split("/"), folder=False)
        if ignored and path not in self._tracked:
            return False
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            self._left_out(path, _NO_FILE)
        elif len(path) > tree.MAX_PATH or git.is_reserved(path, link=stat.S_ISLNK(mode)):
            self._left_out(path, "a name that git keeps for itself")
        else:
            return True
        return False


def begin(copy: str, base: str) -> None:
    """Makes the folder `base` with what `copy` looks like now, before the agent runs. Raises HostError, OSError."""
    git.must_be_there()
    os.mkdir(base, 0o700)
    top = tree.open_folder(copy)
    exclude = _own_excludes(top)
    files.write(os.path.join(base, "exclude"), exclude)
    lines: list[bytes] = []
    left_out: dict[str, str] = {}
    selection = _Selection(exclude, lambda: _tracked_by_own_git(copy, base), left_out.__setitem__)
    with Kept(os.path.join(base, _COMMANDS), "start") as into:
        for found in tree.walk(top, selection.enter, left_out.__setitem__):
            if selection.takes(found):
                facts, _ = take_in(found, into)
                lines.append(b"%o %d %d %d %d %b" % (*facts, os.fsencode(found.path)))
    # The last thing written, whole or not at all: the agent only runs after it.
    partial = os.path.join(base, "files.partial")
    files.write(partial, b"\0".join(lines))
    os.rename(partial, os.path.join(base, START))


def is_complete(base: str) -> bool:
    """Whether `begin` came to its end; if not, no agent has run in the copy."""
    return os.path.isfile(os.path.join(base, START))


def compare(copy: str, base: str, scratch: str) -> Differences:
    """What is different in `copy` since `begin`; makes the repository `scratch` for it. Raises HostError, OSError."""
    repository = _repository(base)
    start = git.head(repository)
    if not start:
        raise HostError("What the workspace looked like at the start is not known", details=base)
    git.create(scratch, objects_of=repository)
    begun, known = _recorded(base)
    left_out: dict[str, str] = {}
    selection = _known_selection(base, known, left_out)
    unseen = dict.fromkeys(known)
    links: dict[str, str] = {}
    budget = _Budget()
    with git.Import(scratch, "now", parent=start) as into:
        for found in tree.walk(tree.open_folder(copy), selection.enter, left_out.__setitem__):
            if not selection.takes(found):
                continue
            if known.get(found.path) != _facts(found.stat) or found.stat.st_ctime_ns >= begun:
                budget.spend(found, copy)
                try:
                    _, link = take_in(found, into)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    left_out[found.path] = error.strerror or "can't be read"
                    continue
                if link is not None:
                    links[found.path] = link
            unseen.pop(found.path, None)
        for path in unseen:
            if not _hidden(path, left_out):
                into.removed(path)
    return Differences(start, into.commit, links, _said(left_out))


def _repository(base: str) -> str:
    """The repository that has the start as a commit, made when there is none yet: whole, whoever else does so meanwhile."""
    there = os.path.join(base, _REPOSITORY)
    if os.path.isdir(there):
        return there
    import tempfile

    made = tempfile.mkdtemp(prefix=f"{_REPOSITORY}-", dir=base)
    try:
        git.create(made, only_import=True)
        git.take_in(made, os.path.join(base, _COMMANDS))
        os.rename(made, there)
    except OSError as error:
        tree.remove(made)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    except BaseException:
        tree.remove(made)
        raise
    return there


def unchanged(copy: str, base: str) -> tuple[str, ...] | None:
    """What could not be looked at, a line each, if nothing is different in `copy` since `begin`; else None.

    Only looks at what `lstat` says, as `compare` does to find what is worth a look, and starts no program. Raises OSError.
    """
    begun, known = _recorded(base)
    left_out: dict[str, str] = {}
    selection = _known_selection(base, known, left_out)
    unseen = dict.fromkeys(known)
    for found in tree.walk(tree.open_folder(copy), selection.enter, left_out.__setitem__):
        if not selection.takes(found):
            continue
        if known.get(found.path) != _facts(found.stat) or found.stat.st_ctime_ns >= begun:
            return None
        unseen.pop(found.path, None)
    return None if unseen else _said(left_out)


def _known_selection(base: str, known: dict[str, Facts], left_out: dict[str, str]) -> _Selection:
    return _Selection(files.read(os.path.join(base, "exclude")), lambda: known, left_out.__setitem__)


def _said(left_out: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{path or '.'}: {why}" for path, why in left_out.items())


class _Budget:
    """Stops a look at a workspace that the agent has filled without bounds."""

    def __init__(self) -> None:
        self._files, self._bytes = MAX_FILES, MAX_BYTES

    def spend(self, found: tree.Found, copy: str) -> None:
        self._files -= 1
        self._bytes -= found.stat.st_size
        if self._files < 0 or self._bytes < 0:
            raise HostError(
                "Too much was changed to show as a patch",
                details=f"more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB that .gitignore does not leave out",
                resolution=f"Look at the workspace's copy itself: {copy}",
            )


def _facts(found: os.stat_result) -> Facts:
    return found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def take_in(found: tree.Found, into: Commands) -> tuple[Facts, str | None]:
    """Puts what was found into the commit; its facts, and where it leads when it is a link. Raises HostError, OSError."""
    if stat.S_ISLNK(found.stat.st_mode):
        link = os.readlink(found.name, dir_fd=found.folder)
        into.file(found.path, mode="120000", content=os.fsencode(link))
        return _facts(found.stat), link
    descriptor = tree.open_file(found.name, within=found.folder)
    try:
        now = os.fstat(descriptor)
        mode = "100755" if now.st_mode & stat.S_IXUSR else "100644"
        if now.st_size <= _IN_MEMORY:
            into.file(found.path, mode=mode, content=os.read(descriptor, _IN_MEMORY))
        else:
            into.long_file(found.path, mode=mode, descriptor=descriptor, size=now.st_size)
    finally:
        os.close(descriptor)
    # What the permissions were before it was opened, in case opening had to change them.
    return (found.stat.st_mode, *_facts(now)[1:]), None


def _recorded(base: str) -> tuple[int, dict[str, Facts]]:
    """Since when the agent could change files, and what was known of each file at the start.

    That moment is a time of the same file system as the files' own: one with an earlier time was not changed after it, however
    coarse the file system's clock is.
    """
    start = os.path.join(base, START)
    known: dict[str, Facts] = {}
    for line in filter(None, files.read(start).split(b"\0")):
        mode, size, changed, touched, inode, path = line.split(b" ", 5)
        known[os.fsdecode(path)] = (int(mode, 8), int(size), int(changed), int(touched), int(inode))
    return os.stat(start).st_mtime_ns, known


def _hidden(path: str, left_out: dict[str, str]) -> bool:
    """Whether the file may be there still, in a folder or under a name that could not be looked at."""
    if not left_out:
        return False
    parts = path.split("/")
    reasons = (left_out.get("/".join(parts[:end]), "") for end in range(len(parts) + 1))
    return any(why not in ("", _NO_FILE) for why in reasons)


def _own_excludes(top: int) -> bytes:
    """The workspace's `.git/info/exclude`: patterns that the person keeps to themself."""
    opened: list[int] = []
    try:
        for name in (".git", "info"):
            opened.append(tree.open_folder(name, within=opened[-1] if opened else top))
        return tree.read_small("exclude", within=opened[-1], limit=_IGNORE_FILE_BYTES)
    except OSError:
        return b""
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _tracked_by_own_git(copy: str, base: str) -> set[str]:
    """What the workspace's index lists: a file that is tracked although it is ignored counts. Only names are read."""
    index = os.path.join(copy, ".git", "index")
    if not os.path.isfile(index) or os.path.islink(index) or os.path.islink(os.path.dirname(index)):
        return set()
    empty = os.path.join(base, "names")
    git.create(empty, only_import=True)
    done = git.run(empty, "ls-files", "-z", "--cached", worktree=copy, extra={"GIT_INDEX_FILE": index})
    tree.remove(empty)
    return {os.fsdecode(path) for path in done.stdout.split(b"\0") if path} if done.code == 0 else set()
