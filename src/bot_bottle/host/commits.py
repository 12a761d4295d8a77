"""One commit as commands for `git fast-import`: passed on as they come (`git.Import`), or kept in a file for later (`Kept`)."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Self


class Commands:
    """The commands for one commit on `branch`; `_write` is told where they go."""

    def __init__(self, branch: str, *, parent: str = "") -> None:
        self._branch, self._parent = branch, parent
        self._marks = 0
        self._tree: list[bytes] = []

    def file(self, path: str, *, mode: str, content: bytes) -> None:
        """Puts the file (mode `100644`, `100755`) or link (`120000`) at `path`."""
        self._blob(path, mode, len(content))
        self._write(content + b"\n")

    def long_file(self, path: str, *, mode: str, descriptor: int, size: int) -> None:
        """Like `file`, from an open descriptor: exactly `size` bytes, whatever happens to the file meanwhile."""
        self._blob(path, mode, size)
        while size > 0:
            block = os.read(descriptor, min(size, 1 << 20)) or bytes(min(size, 1 << 20))
            self._write(block)
            size -= len(block)
        self._write(b"\n")

    def removed(self, path: str) -> None:
        """Takes the file at `path` out."""
        self._tree.append(b"D %b\n" % _quoted(path))

    def _blob(self, path: str, mode: str, size: int) -> None:
        self._marks += 1
        self._tree.append(b"M %b :%d %b\n" % (mode.encode(), self._marks, _quoted(path)))
        self._write(b"blob\nmark :%d\ndata %d\n" % (self._marks, size))

    def _commit(self) -> None:
        """The commit itself, after all contents."""
        self._write(
            b"commit refs/heads/%b\ncommitter bot-bottle <> 0 +0000\ndata 0\n" % self._branch.encode()
        )
        if self._parent:
            self._write(b"from %b\n" % self._parent.encode())
        # What goes comes first: a file may stand where a folder was, or the other way round.
        for line in sorted(self._tree, key=lambda line: line[:1]):
            self._write(line)
        self._write(b"\ndone\n")

    def _write(self, data: bytes) -> None:
        raise NotImplementedError


class Kept(Commands):
    """Keeps the commands in the file `path`, for `git.take_in`; whole once the block has ended. Raises OSError."""

    def __init__(self, path: str, branch: str) -> None:
        super().__init__(branch)
        self._path = path
        self._file: BinaryIO

    def __enter__(self) -> "Self":
        made = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = open(made, "wb", buffering=1 << 17)
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        with self._file:
            if kind is None:
                self._commit()

    def _write(self, data: bytes) -> None:
        self._file.write(data)


def _quoted(path: str) -> bytes:
    """The path as fast-import reads it: quoted, so that any byte may be in it."""
    raw = os.fsencode(path)
    return b'"%b"' % b"".join(
        bytes((code,)) if 32 <= code < 127 and code not in b'"\\' else b"\\%03o" % code for code in raw
    )
