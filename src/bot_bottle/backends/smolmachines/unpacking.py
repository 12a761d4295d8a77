"""Unpacks archives that somebody else made into a folder of ours, and into nothing else.

An archive can name what lies outside, lead there through a link that it made before, pretend to be small, or hold devices. Every
name is walked from the folder that is open, one part after the other, and no link is followed; what a link says is kept as it
stands, for those inside. Owners are not kept, nor are devices, pipes, and the rights to become somebody else: an image is shown
read-only, and all of it belongs to whoever unpacked it.
"""

import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from bot_bottle.errors import HostError

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
"""In a layer: what of the layers below is gone (OCI image specification, "Whiteouts")."""
_DEEPEST = 200
_LARGEST_HEADER = 1 << 20
_LONG = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_BLOCK = 1 << 20


class BoundedInfo(tarfile.TarInfo):
    """A header that is not larger than headers are: what a long name or a pax header says is read whole."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError("a header is larger than any has to be")
        found: tarfile.TarInfo = super()._proc_member(tarfile_)  # type: ignore[misc]
        return found


class Bounds(NamedTuple):
    """What an image may have: bytes, and files and folders."""

    size: int = 64 << 30
    entries: int = 2_000_000


BOUNDS = Bounds()


class Unpacking:
    """Into `root`, an empty folder of ours, layer upon layer. `size` and `entries` count what was written."""

    def __init__(self, root: str, bounds: Bounds = BOUNDS) -> None:
        self.size = self.entries = 0
        self._bounds = bounds
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._last: tuple[tuple[str, ...], int] = (), os.dup(self._root)

    def close(self) -> None:
        os.close(self._last[1])
        os.close(self._root)

    def take_away(self, layer: tarfile.TarFile) -> None:
        """What `layer` says is gone of those below. Before its files are added: those stay. Raises HostError."""
        with _in_words():
            for member in members(layer, self._bounds.entries):
                if _is_whiteout(member.name):
                    self._take_away(member.name)

    def add(self, archive: tarfile.TarFile, *, layered: bool = False) -> None:
        """All that is in `archive`; a layer's word of what is gone is no file. Raises HostError."""
        with _in_words():
            for member in members(archive, self._bounds.entries):
                if not (layered and _is_whiteout(member.name)):
                    self._member(archive, member)

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            return
        self.entries += 1
        if self.entries > self._bounds.entries:
            raise _bad(f"it has more than {self._bounds.entries} files")
        *above, name = parts
        folder = self._folder(tuple(above))
        if member.isdir():
            self._make_folder(folder, name, member.mode)
        elif member.isreg():
            _remove(folder, name)
            self._write(archive, member, folder, name)
        elif member.issym():
            _remove(folder, name)
            os.symlink(member.linkname, name, dir_fd=folder)
        elif member.islnk():
            self._link(member.linkname, folder, name)

    def _folder(self, parts: tuple[str, ...]) -> int:
        """The folder that is there by real folders only, made where it is not. The descriptor is good until the next call."""
        if self._last[0] == parts:
            return self._last[1]
        here = os.dup(self._root)
        for part in parts:
            try:
                below = _enter(here, part)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=here)
                below = _enter(here, part)
            except OSError as error:
                raise _bad(f"{'/'.join(parts)} leads through {part}, which is no folder") from error
            finally:
                os.close(here)
            here = below
        os.close(self._last[1])
        self._last = parts, here
        return here

    def _make_folder(self, folder: int, name: str, mode: int) -> None:
        try:
            made = _enter(folder, name)
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=folder)
            made = _enter(folder, name)
        except OSError:
            _remove(folder, name)
            os.mkdir(name, 0o755, dir_fd=folder)
            made = _enter(folder, name)
        os.fchmod(made, mode & 0o1777 | 0o700)
        os.close(made)

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, folder: int, name: str) -> None:
        content = archive.extractfile(member)
        assert content is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=folder), "wb", buffering=0) as file:
            while data := content.read(_BLOCK):
                self.size += len(data)
                if self.size > self._bounds.size:
                    raise _bad(f"it has more than {self._bounds.size >> 30} GiB")
                file.write(data)
            os.fchmod(file.fileno(), member.mode & 0o777 | 0o400)
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _link(self, other: str, folder: int, name: str) -> None:
        parts = _parts(other)
        if not parts:
            raise _bad(f"{name} is a link to nothing")
        keep = os.dup(folder)
        try:
            there = self._folder(tuple(parts[:-1]))
            if (parts[-1], os.fstat(there).st_ino) == (name, os.fstat(keep).st_ino):
                return
            _remove(keep, name)
            os.link(parts[-1], name, src_dir_fd=there, dst_dir_fd=keep, follow_symlinks=False)
        finally:
            os.close(keep)

    def _take_away(self, path: str) -> None:
        if not _is_whiteout(path):
            return
        *above, name = _parts(path)
        below = name.removeprefix(_WHITEOUT)
        folder = self._folder(tuple(above))
        if name == _OPAQUE:
            for one in os.listdir(folder):
                _remove(folder, one)
        elif below in ("", ".", ".."):
            raise _bad(f"{path} takes away what is not its own")
        else:
            _remove(folder, below)


def _is_whiteout(path: str) -> bool:
    return path.rpartition("/")[2].startswith(_WHITEOUT)


def members(archive: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    """One after the other, and none is kept. Raises HostError when there are more than `most`, tarfile's errors."""
    count = 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        count += 1
        if count > most:
            raise _bad(f"it has more than {most} files")
        yield member


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
        raise _bad(str(error) or "it ends too early") from error
    except OSError as error:
        raise _bad(error.strerror or str(error)) from error


def _enter(folder: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _remove(folder: int, name: str) -> None:
    """Whatever is there by this name in the folder, which is not followed."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=folder)


def _parts(name: str) -> list[str]:
    """A name in an archive as the path that it is below the root. Raises HostError."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _DEEPEST:
        raise _bad(f"it has a file {name[:60]!r}")
    return parts


def _bad(why: str) -> HostError:
    return HostError(
        "The image can't be unpacked", details="".join(c if c.isprintable() else "?" for c in why)
    )
