"""Copying a tree of files as `cp -a --reflink=auto` would, but for what must not come along.

Links stay links and are never followed, each step goes from an open folder to a name in it; pipes, sockets and devices are
left out, setuid and the like dropped.
"""

import errno
import os
import stat

from bot_bottle.host.tree import FILE, FOLDER, MAX_DEPTH

_FICLONE = 0x40049409


class Copier:
    """Copies a tree: links as links, times and permissions kept, setuid and the like dropped, no pipes or devices.

    `owner` (uid, gid) becomes the copy's when given. `skip` are folders, by (device, inode), that are left out. What can't
    be read is left out, too, and listed in `left_out`.
    """

    def __init__(
        self, *, owner: tuple[int, int] | None = None, skip: frozenset[tuple[int, int]] = frozenset()
    ) -> None:
        self.left_out: list[str] = []
        self._owner = owner
        self._skip = skip
        self._clones = True

    def copy(self, source: str, target: str) -> None:
        """Copies what is in the folder `source` into the empty folder `target`, which becomes like it.

        Raises OSError; what was made then stays.
        """
        come_from = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            go_to = os.open(target, FOLDER)
            try:
                self._folder(come_from, go_to, "", 0)
            finally:
                os.close(go_to)
        finally:
            os.close(come_from)

    def copy_file(self, source: str, target: str) -> None:
        """Copies the plain file `source` to `target`, where nothing is yet. Raises OSError."""
        folder, _, name = target.rpartition("/")
        come_from = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            go_to = os.open(folder, FOLDER)
            try:
                self._file(come_from, go_to, name)
            finally:
                os.close(go_to)
        finally:
            os.close(come_from)

    @property
    def shares(self) -> bool:
        """Whether every copy so far shares its blocks with what it was made of; so also when there was none."""
        return self._clones

    def _folder(self, come_from: int, go_to: int, prefix: str, depth: int) -> None:
        found = os.fstat(come_from)
        with os.scandir(come_from) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            self._entry(come_from, go_to, name, prefix, depth)
        self._settle(go_to, found)

    def _entry(self, come_from: int, go_to: int, name: str, prefix: str, depth: int) -> None:
        try:
            found = os.stat(name, dir_fd=come_from, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                source = os.open(name, FILE, dir_fd=come_from)
            elif stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) not in self._skip:
                if depth >= MAX_DEPTH:
                    raise OSError(errno.ENAMETOOLONG, "too deep")
                source = os.open(name, FOLDER, dir_fd=come_from)
            elif stat.S_ISLNK(found.st_mode):
                link = os.readlink(name, dir_fd=come_from)
                source = -1
            else:
                return
        except OSError as error:
            self.left_out.append(f"{prefix}{name}: {error.strerror}")
            return
        if source < 0:
            self._link(link, go_to, name, found)
            return
        try:
            if stat.S_ISDIR(found.st_mode):
                self._subfolder(source, go_to, name, prefix, depth)
            else:
                self._file(source, go_to, name)
        finally:
            os.close(source)

    def _subfolder(self, source: int, go_to: int, name: str, prefix: str, depth: int) -> None:
        os.mkdir(name, 0o700, dir_fd=go_to)
        target = os.open(name, FOLDER, dir_fd=go_to)
        try:
            self._folder(source, target, f"{prefix}{name}/", depth + 1)
        finally:
            os.close(target)

    def _link(self, link: str, go_to: int, name: str, found: os.stat_result) -> None:
        os.symlink(link, name, dir_fd=go_to)
        if self._owner:
            os.chown(name, *self._owner, dir_fd=go_to, follow_symlinks=False)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=go_to, follow_symlinks=False)

    def _file(self, source: int, go_to: int, name: str) -> None:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            return
        target = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=go_to
        )
        try:
            if found.st_size and not self._cloned(source, target):
                _copy_content(source, target, found)
            self._settle(target, found)
        finally:
            os.close(target)

    def _cloned(self, source: int, target: int) -> bool:
        """Shares the blocks where the file system can; once it can't, it is not asked again."""
        import fcntl

        if self._clones:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError:
                self._clones = False
        return self._clones

    def _settle(self, target: int, found: os.stat_result) -> None:
        if self._owner:
            os.fchown(target, *self._owner)
        os.fchmod(target, stat.S_IMODE(found.st_mode) & 0o777)
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def can_share(folder: str) -> bool:
    """Whether files of the file system that `folder` is on can share blocks; False where nothing can be written there."""
    import fcntl
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
            one.write(b"x")
            one.flush()
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
    except OSError:
        return False
    return True


def _copy_content(source: int, target: int, found: os.stat_result) -> None:
    """The bytes; holes stay holes, so a sparse file takes no more space than before."""
    if found.st_blocks * 512 >= found.st_size:
        _copy_range(source, target, 0, found.st_size)
        return
    at = 0
    while at < found.st_size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        _copy_range(source, target, at, end)
        at = end
    os.ftruncate(target, found.st_size)


def _copy_range(source: int, target: int, at: int, end: int) -> None:
    if end - at <= 1 << 16:
        os.pwrite(target, os.pread(source, end - at, at), at)
        return
    while at < end:
        try:
            count = os.copy_file_range(source, target, min(end - at, 1 << 30), at, at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            block = os.pread(source, min(end - at, 1 << 20), at)
            count = os.pwrite(target, block, at) if block else 0
        if count == 0:
            return
        at += count
