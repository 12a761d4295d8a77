"""Trees of files that something hostile may be changing meanwhile: walked and removed without following a link.

Every step goes from an open folder to a name in it (`O_NOFOLLOW`), never by a whole path, so a folder that becomes a link
in the middle leads nowhere. Pipes, sockets and devices are not opened. Paths are text with surrogate escapes, relative to
the top, parts joined by `/`.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator

from bot_bottle.errors import HostError
from bot_bottle.typed import NamedTuple

MAX_DEPTH = 100
MAX_PATH = 3_000
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Found(NamedTuple):
    """A file or link on a walk; `folder` is its folder's descriptor, open until the walk goes on."""

    path: str
    name: str
    folder: int
    stat: os.stat_result


def open_folder(name: str, *, within: int | None = None) -> int:
    """A folder's descriptor; one closed to its owner is opened first. Raises OSError, ELOOP or ENOTDIR for a link."""
    try:
        return os.open(name, FOLDER, dir_fd=within)
    except PermissionError:
        with _Reopened(name, within, stat.S_IRWXU):
            return os.open(name, FOLDER, dir_fd=within)


def open_file(name: str, *, within: int) -> int:
    """A regular file's descriptor, for reading; one that is closed to its owner is opened for as long as that takes.

    Raises OSError, also for a link, a pipe or anything else that is not a file.
    """
    try:
        descriptor = os.open(name, FILE, dir_fd=within)
    except PermissionError:
        with _Reopened(name, within, stat.S_IRUSR, again=True):
            descriptor = os.open(name, FILE, dir_fd=within)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor


class _Reopened:
    """Adds permissions to what the operator owns, by descriptor; `again` takes them away afterwards."""

    def __init__(self, name: str, within: int | None, mode: int, *, again: bool = False) -> None:
        self._descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
        self._before = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
        self._mode, self._again = mode, again

    def __enter__(self) -> None:
        try:
            self._set(self._before | self._mode)
        except OSError:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._again:
                self._set(self._before)
        finally:
            os.close(self._descriptor)

    def _set(self, mode: int) -> None:
        if not stat.S_ISLNK(os.fstat(self._descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{self._descriptor}", mode)


def read_small(name: str, *, within: int, limit: int) -> bytes:
    """The first `limit` bytes of a regular file; nothing when there is none."""
    try:
        descriptor = open_file(name, within=within)
    except OSError:
        return b""
    try:
        content = bytearray()
        while len(content) < limit and (block := os.read(descriptor, min(limit - len(content), 1 << 20))):
            content += block
        return bytes(content)
    finally:
        os.close(descriptor)


# -- walking -----------------------------------------------------------------------------------------------------------


class _Level(NamedTuple):
    folder: int
    prefix: str
    names: Iterator[tuple[str, os.stat_result]]


def walk(
    top: int, enter: Callable[[str, int], bool], left_out: Callable[[str, str], None]
) -> Iterator[Found]:
    """Every file and link below the open folder `top`, in the order of their names.

    `enter(path, descriptor)` says whether to go into a folder (it is asked for the top, too, with an empty path);
    `left_out(path, why)` is told of what can't be looked at. Closes `top`.
    """
    levels: list[_Level] = []
    try:
        if enter("", top):
            levels.append(_Level(top, "", _listed(top, "", left_out)))
        else:
            os.close(top)
        while levels:
            level = levels[-1]
            name, found = next(level.names, ("", None))
            if found is None:
                os.close(levels.pop().folder)
                continue
            path = level.prefix + name
            if not stat.S_ISDIR(found.st_mode):
                yield Found(path, name, level.folder, found)
            elif len(levels) > MAX_DEPTH or len(path) > MAX_PATH:
                left_out(path, "too deep")
            elif (folder := _entered(path, name, level.folder, enter, left_out)) is not None:
                levels.append(_Level(folder, path + "/", _listed(folder, path, left_out)))
    finally:
        for level in levels:
            os.close(level.folder)


def _entered(
    path: str, name: str, within: int, enter: Callable[[str, int], bool], left_out: Callable[[str, str], None]
) -> int | None:
    try:
        folder = open_folder(name, within=within)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            left_out(path, error.strerror or "can't be read")
        return None
    if enter(path, folder):
        return folder
    os.close(folder)
    return None


def _listed(
    folder: int, path: str, left_out: Callable[[str, str], None]
) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        left_out(path, error.strerror or "can't be read")
        return
    for name in names:
        try:
            yield name, os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            continue


# -- removing ----------------------------------------------------------------------------------------------------------


def remove(path: str) -> None:
    """Removes the tree at `path`, however deep and whatever its permissions; succeeds when there is none.

    Folders are moved up to the top before they are emptied, so depth costs nothing. Raises HostError.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        top = open_folder(path)
        try:
            os.fchmod(top, 0o700)
            empty(top)
        finally:
            os.close(top)
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(
            f"{path} could not be removed", details=str(error), resolution=f"rm -rf {path}"
        ) from error


def empty(top: int) -> None:
    """Removes everything in the open folder `top`. Raises OSError."""
    moved = 0
    while names := os.listdir(top):
        for name in names:
            try:
                os.unlink(name, dir_fd=top)
                continue
            except (IsADirectoryError, PermissionError):
                folder = open_folder(name, within=top)
            try:
                os.fchmod(folder, 0o700)
                for inner in os.listdir(folder):
                    try:
                        os.unlink(inner, dir_fd=folder)
                    except (IsADirectoryError, PermissionError):
                        moved = _moved_up(inner, folder, top, moved)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)


def _moved_up(name: str, folder: int, top: int, moved: int) -> int:
    """Moves the folder to the top under a number that is free there; the number."""
    descriptor = open_folder(name, within=folder)
    os.fchmod(descriptor, 0o700)
    os.close(descriptor)
    while True:
        moved += 1
        try:
            os.stat(str(moved), dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, str(moved), src_dir_fd=folder, dst_dir_fd=top)
            return moved
