"""Moving finished files into the person's repository: all of them, or back to how it was.

Everything goes from an open folder to a name in it, so a folder that becomes a link meanwhile leads nowhere. New files are
first written beside the others, in a folder of ours in the repository; then what they replace is moved there, and they are
moved into place. If this program is killed in between, that folder holds what was replaced, and `paths` says where it was.
"""

import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from bot_bottle.host import tree

_STAGE = ".bot-bottle-apply-"
_SAME = ("st_ino", "st_size", "st_mtime_ns", "st_mode")


class Moved(Exception):
    """The file at `path` was changed after it had been read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Stuck(Exception):
    """A step failed, and so did moving back some of what had been moved; `stage` is the folder that still has it."""

    def __init__(self, stage: str, left: Sequence[str]) -> None:
        super().__init__(", ".join(left))
        self.stage = stage
        self.left = tuple(left)


@contextmanager
def opened(folder: str) -> Iterator[int]:
    """The open folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def folder_of(top: int, path: str) -> Iterator[tuple[int, str]]:
    """The open folder that `path` is in, reached without following a link, and the name there. Raises OSError."""
    *parts, name = path.split("/")
    folder = os.dup(top)
    try:
        for part in parts:
            inner = os.open(part, tree.FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def place(top: int, source: str, *, new: Sequence[str], before: Mapping[str, os.stat_result]) -> None:
    """Makes the tree `top` have the files `new` as they are in `source`, and no other one of those in `before`.

    Raises Moved when one of them is not as it was; else OSError. Either way, everything is as it was then; if not even
    that can be done, raises Stuck.
    """
    name = _STAGE + secrets.token_hex(4)
    os.mkdir(name, 0o700, dir_fd=top)
    stage = os.open(name, tree.FOLDER, dir_fd=top)
    stuck = False
    try:
        _Placement(top, stage, name).run(source, new, before)
    except Stuck:
        stuck = True
        raise
    finally:
        if not stuck:
            tree.empty(stage)
            os.rmdir(name, dir_fd=top)
        os.close(stage)


class _Placement:
    def __init__(self, top: int, stage: int, name: str) -> None:
        self._top, self._stage, self._name = top, stage, name
        self._owner = os.fstat(top)
        self._undo: list[Callable[[], None]] = []

    def run(self, source: str, new: Sequence[str], before: Mapping[str, os.stat_result]) -> None:
        for number, path in enumerate(new):
            self._write(f"{source}/{path}", f"new-{number}", before.get(path))
        replaced = sorted(before, reverse=True)
        self._note(replaced)
        try:
            for number, path in enumerate(replaced):
                self._take_away(path, f"old-{number}", before[path])
            for number, path in enumerate(new):
                self._put(f"new-{number}", path)
        except BaseException as error:
            if left := self._undone():
                raise Stuck(self._name, left) from error
            raise
        for path in replaced:
            if path not in new:
                self._remove_empty(path)

    def _undone(self) -> list[str]:
        """Takes back every step; what could not be taken back."""
        left = []
        for step in reversed(self._undo):
            try:
                step()
            except (OSError, Moved) as error:
                left.append(str(error))
        return left

    def _note(self, replaced: Sequence[str]) -> None:
        listed = {f"old-{number}": path for number, path in enumerate(replaced)}
        with open(self._create("paths"), "w", encoding="ascii") as file:
            json.dump(listed, file)

    def _create(self, name: str) -> int:
        return os.open(
            name,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o666,
            dir_fd=self._stage,
        )

    def _write(self, source: str, name: str, earlier: os.stat_result | None) -> None:
        """Puts a finished file or link on the stage, with the owner and permissions that it will have."""
        found = os.lstat(source)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), name, dir_fd=self._stage)
        else:
            executable = bool(found.st_mode & stat.S_IXUSR)
            with open(source, "rb") as reading, open(self._create(name), "wb") as writing:
                while block := reading.read(1 << 20):
                    writing.write(block)
                plain = os.fstat(writing.fileno()).st_mode
                if earlier is not None and stat.S_ISREG(earlier.st_mode):
                    plain = earlier.st_mode
                # Whoever may read it may run it, if it is to be run at all.
                os.fchmod(writing.fileno(), plain & 0o666 | ((plain & 0o444) >> 2 if executable else 0))
        self._own(name, self._stage, earlier or self._owner)

    def _own(self, name: str, folder: int, like: os.stat_result) -> None:
        if os.geteuid() == 0:
            os.chown(name, like.st_uid, like.st_gid, dir_fd=folder, follow_symlinks=False)

    def _take_away(self, path: str, name: str, before: os.stat_result) -> None:
        with folder_of(self._top, path) as (folder, here):
            now = os.stat(here, dir_fd=folder, follow_symlinks=False)
            if any(getattr(now, fact) != getattr(before, fact) for fact in _SAME):
                raise Moved(path)
            os.rename(here, name, src_dir_fd=folder, dst_dir_fd=self._stage)
        self._undo.append(lambda: self._move(name, path))

    def _put(self, name: str, path: str) -> None:
        self._make_folders(path)
        self._clear(path)
        self._move(name, path)
        self._undo.append(lambda: self._move_back(path, name))

    def _move(self, name: str, path: str) -> None:
        """From the stage to `path`, where nothing may be."""
        with folder_of(self._top, path) as (folder, here):
            try:
                os.stat(here, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(name, here, src_dir_fd=self._stage, dst_dir_fd=folder)
                return
        raise Moved(path)

    def _move_back(self, path: str, name: str) -> None:
        with folder_of(self._top, path) as (folder, here):
            os.rename(here, name, src_dir_fd=folder, dst_dir_fd=self._stage)

    def _make_folders(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            part = "/".join(parts[:end])
            with folder_of(self._top, part) as (folder, name):
                try:
                    os.mkdir(name, dir_fd=folder)
                except FileExistsError:
                    continue
                self._own(name, folder, self._owner)
            self._undo.append(lambda part=part: self._remove_folder(part))  # type: ignore[misc]

    def _clear(self, path: str) -> None:
        """Removes the folder at `path`, if there is one, and folders in it, if they are all empty."""
        with folder_of(self._top, path) as (folder, name):
            try:
                inside = os.open(name, tree.FOLDER, dir_fd=folder)
            except OSError:
                return
        try:
            found = os.fstat(inside)
            for inner in os.listdir(inside):
                self._clear(f"{path}/{inner}")
        finally:
            os.close(inside)
        self._remove_folder(path)
        self._undo.append(lambda: self._make_again(path, found))

    def _remove_folder(self, path: str) -> None:
        with folder_of(self._top, path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def _make_again(self, path: str, found: os.stat_result) -> None:
        with folder_of(self._top, path) as (folder, name):
            os.mkdir(name, dir_fd=folder)
            self._own(name, folder, found)
            inside = os.open(name, tree.FOLDER, dir_fd=folder)
            os.fchmod(inside, stat.S_IMODE(found.st_mode))
            os.close(inside)

    def _remove_empty(self, path: str) -> None:
        """Removes the folders above a file that went, as far as they are empty now, as git does."""
        parts = path.split("/")[:-1]
        while parts:
            try:
                self._remove_folder("/".join(parts))
            except OSError:
                return
            parts.pop()
