"""Files into and out of a bottle, on top of any backend's `spawn`, as tar streams.

Inside, tar runs as the agent's user, so everything that comes in is the agent's. What comes out was made by the agent:
it is read here member by member, and nothing of it is believed. Only plain files, folders and links that stay within what
is copied are made; no name leads out of the target; sizes and numbers are bounded; no bit but rwx survives.
"""

import io
import os
import signal
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bot_bottle.backends.base import Bottle, Process, Stdio
from bot_bottle.errors import HostError, NotFoundError, SandboxError
from bot_bottle.host.spawn import readable, writable
from bot_bottle.plan.model import Command, File
from bot_bottle.typed import IO, Any, NamedTuple, NoReturn

_ENVIRONMENT = (("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"))
_BLOCK = 65536
_PLAIN_TYPES = (
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
TIMEOUT = 120.0


class Bounds(NamedTuple):
    """How much may come out of a bottle in one go."""

    size: int = 4 * 1024**3
    members: int = 200_000
    depth: int = 100


def write_files(bottle: Bottle, files: Sequence[File], *, timeout: float = TIMEOUT) -> None:
    """`Bottle.write_files` for a backend that knows no quicker way: one process inside. Raises SandboxError."""

    def fill(archive: tarfile.TarFile) -> None:
        for file in files:
            member = tarfile.TarInfo(file.target.lstrip("/"))
            member.size, member.mode, member.mtime = len(file.content), file.mode & 0o777, int(time.time())
            archive.addfile(member, io.BytesIO(file.content))

    if files:
        _send(bottle, fill, timeout, privately=True)


def copy_in(bottle: Bottle, source: str, target: str, *, timeout: float = TIMEOUT) -> None:
    """Copies the file or folder `source` of the host to `target` inside, with the folders above it.

    Links are copied as links. Raises NotFoundError when there is no `source`, SandboxError when it does not work inside.
    """
    if not os.path.lexists(source):
        raise NotFoundError(f"{source} does not exist")

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mode &= 0o777
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    _send(bottle, lambda archive: archive.add(source, target.lstrip("/"), filter=plain), timeout)


def copy_out(
    bottle: Bottle, source: str, target: str, *, bounds: Bounds | None = None, timeout: float = TIMEOUT
) -> list[str]:
    """Copies the file or folder `source` inside to `target` on the host, which must not exist; answers what was left out.

    Raises HostError when it can't be written, SandboxError when it is not there, too much, or not to be trusted. What was
    written until then stays.
    """
    folder, name = os.path.split(source.rstrip("/"))
    argv = ("tar", "-C", folder or "/", "--hard-dereference", "--format=gnu", "-cf", "-", "--", f"./{name}")
    with _tar(bottle, argv, timeout) as (pipe, finish):
        try:
            with tarfile.open(fileobj=pipe, mode="r|", bufsize=_BLOCK, tarinfo=_Member) as archive:
                left_out = _Taking(target, name, bounds or Bounds()).take(archive)
        except (tarfile.TarError, EOFError) as error:
            finish()  # what tar itself said comes first
            raise SandboxError("The bottle sent an archive that can't be read", details=str(error)) from error
        finish()
    return left_out


def pack(
    bottle: Bottle, folder: str, path: str, *, bounds: Bounds | None = None, timeout: float = TIMEOUT
) -> None:
    """Writes what is in `folder` inside into the file `path` here, as the tar inside packs it: read by none but `unpack`.

    Raises HostError when it can't be written, SandboxError when it does not work inside or is too much.
    """
    size, most = 0, (bounds or Bounds()).size
    argv = ("tar", "-C", folder, "--format=gnu", "-cf", "-", ".")
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with open(descriptor, "wb") as file, _tar(bottle, argv, timeout) as (pipe, finish):
            while part := pipe.read(_BLOCK):
                size += len(part)
                if size > most:
                    raise SandboxError("More is coming out of the bottle than is allowed")
                file.write(part)
            finish()
    except OSError as error:
        raise HostError(f"{path} can't be written", details=str(error)) from error


def unpack(bottle: Bottle, path: str, folder: str, *, timeout: float = TIMEOUT) -> None:
    """Has the tar inside unpack the file `path`, which `pack` wrote, in `folder`. Raises HostError, SandboxError."""
    argv = ("tar", "-C", folder, "--no-same-owner", "--no-overwrite-dir", "-xpf", "-")
    try:
        with open(path, "rb") as file, _tar(bottle, argv, timeout, writing=True) as (pipe, finish):
            try:
                while part := file.read(_BLOCK):
                    pipe.write(part)
            except BrokenPipeError:
                pass  # tar ended early, and says why
            pipe.close()
            finish()
    except OSError as error:
        raise HostError(f"{path} can't be read", details=str(error)) from error


def take(stream: IO[bytes], target: str, name: str, bounds: Bounds) -> list[str]:
    """Makes at `target`, which must not exist, what the archive that `stream` carries has at `name`; answers what was left out.

    Raises HostError when it can't be written, SandboxError when it is not to be trusted. What was written until then stays.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK, tarinfo=_Member) as archive:
            return _Taking(target, name, bounds).take(archive)
    except (tarfile.TarError, EOFError) as error:
        raise SandboxError("The bottle sent an archive that can't be read", details=str(error)) from error


def _send(
    bottle: Bottle, fill: Callable[[tarfile.TarFile], None], timeout: float, *, privately: bool = False
) -> None:
    argv: tuple[str, ...] = ("tar", "-C", "/", "--no-same-owner", "--no-overwrite-dir", "-xf", "-")
    if privately:  # the umask is for folders made on the way; -p keeps the files' own modes from it
        argv = ("sh", "-c", "umask 077 && exec " + " ".join(argv) + " -p")
    with _tar(bottle, argv, timeout, writing=True) as (pipe, finish):
        try:
            with tarfile.open(fileobj=pipe, mode="w|", bufsize=_BLOCK, format=tarfile.GNU_FORMAT) as archive:
                fill(archive)
        except BrokenPipeError:
            pass  # tar ended early, and says why
        pipe.close()
        finish()


class _Timed(io.RawIOBase):
    """Our end of a pipe to a process that may be stopped by the agent: waits for it, but not for ever."""

    def __init__(self, descriptor: int, deadline: float) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._deadline = deadline
        os.set_blocking(descriptor, False)

    def read(self, size: int = -1) -> bytes:
        if not readable(self._descriptor, self._left()):
            self._too_long()
        return os.read(self._descriptor, size if 0 < size <= _BLOCK else _BLOCK)

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            if not writable(self._descriptor, self._left()):
                self._too_long()
            rest = rest[os.write(self._descriptor, rest[:4096]) :]
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _too_long(self) -> NoReturn:
        raise SandboxError("Copying to or from the bottle took too long")


@contextmanager
def _tar(
    bottle: Bottle, argv: Sequence[str], timeout: float, *, writing: bool = False
) -> Iterator[tuple[_Timed, Callable[[], None]]]:
    """tar inside, with our end of its stream, and what to call at the end: it raises SandboxError when tar failed."""
    deadline = time.monotonic() + timeout
    with ExitStack() as opened:
        with ExitStack() as theirs:
            nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            theirs.callback(os.close, nothing)
            reader, writer = os.pipe()
            ours, given = (writer, reader) if writing else (reader, writer)
            pipe = _Timed(ours, deadline)
            opened.callback(pipe.close)
            theirs.callback(os.close, given)
            words, error = os.pipe()
            opened.callback(os.close, words)
            theirs.callback(os.close, error)
            os.set_blocking(error, False)  # it rather loses words than waits for somebody to read them
            os.set_blocking(words, False)
            stdio = Stdio(given, nothing, error) if writing else Stdio(nothing, given, error)
            process = bottle.spawn(Command(argv=tuple(argv), env=_ENVIRONMENT, cwd="/"), stdio)
        opened.callback(_end, process)
        yield pipe, lambda: _finish(process, words, deadline)


def _finish(process: Process, words: int, deadline: float) -> None:
    code = process.wait(max(0.0, deadline - time.monotonic()))
    if code is None:
        raise SandboxError("Copying to or from the bottle took too long")
    if code:
        said = os.read(words, _BLOCK) if readable(words, 0) else b""
        raise SandboxError(
            "Copying to or from the bottle failed", details=said.decode(errors="replace").strip()[-2000:]
        )


def _end(process: Process) -> None:
    process.signal(signal.SIGKILL)
    process.wait()


class _Taking:
    """Makes files on the host of what an untrusted archive says, below a target that only this object writes to."""

    def __init__(self, target: str, name: str, bounds: Bounds) -> None:
        self._target = target
        self._name = name
        self._bounds = bounds
        self._size = 0
        self._left_out: list[str] = []

    def take(self, archive: tarfile.TarFile) -> list[str]:
        """Takes every member. Raises SandboxError for what no honest tar would send, and past the bounds."""
        for number, member in enumerate(archive):
            self._size += member.size if member.isreg() else 0
            if number >= self._bounds.members or self._size > self._bounds.size:
                raise SandboxError("More is coming out of the bottle than is allowed")
            parts = self._parts(member.name)
            try:
                self._make(archive, member, parts)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise SandboxError(
                    "The bottle sent an archive that contradicts itself", details=str(error)
                ) from error
            except OSError as error:
                raise HostError(f"{self._target} can't be written", details=str(error)) from error
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every one of them
        return self._left_out

    def _parts(self, name: str) -> list[str]:
        """The path below the target. What is copied is `./NAME` in the archive and the target itself on the host."""
        parts = name.removeprefix("./").rstrip("/").split("/")
        wrong = {"", ".", ".."} & set(parts[1:]) or parts[0] != self._name or len(parts) > self._bounds.depth
        if wrong or "\0" in name:
            raise SandboxError("The bottle sent a file name that leads elsewhere", details=repr(name)[:200])
        return parts[1:]

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str]) -> None:
        with _below(self._target, parts) as (folder, name):
            if member.isdir():
                os.mkdir(name, (member.mode & 0o777) | stat.S_IRWXU, dir_fd=folder)
            elif member.isreg():
                self._write(archive, member, folder, name)
            elif member.issym() and _stays_within(parts, member.linkname):
                os.symlink(member.linkname, name, dir_fd=folder)
            elif member.islnk() and self._came(member.linkname):
                self._write_again(member, folder, name)
            else:
                self._left_out.append("/".join(parts) or self._name)

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, folder: int, name: str) -> None:
        source = archive.extractfile(member)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, member.mode & 0o777, dir_fd=folder), "wb") as file:
            while part := source.read(_BLOCK):
                file.write(part)

    def _came(self, name: str) -> bool:
        """Whether `name` is a file below the target that was written already."""
        try:
            with _below(self._target, self._parts(name)) as (folder, last):
                return stat.S_ISREG(os.lstat(last, dir_fd=folder).st_mode)
        except (SandboxError, OSError):
            return False

    def _write_again(self, member: tarfile.TarInfo, folder: int, name: str) -> None:
        """A second name of a file that came already becomes a file of its own."""
        with _below(self._target, self._parts(member.linkname)) as (before, first):
            source = os.open(first, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=before)
            with open(source, "rb") as old:
                status = os.fstat(source)
                self._size += status.st_size
                if not stat.S_ISREG(status.st_mode) or self._size > self._bounds.size:
                    raise SandboxError("More is coming out of the bottle than is allowed")
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with open(os.open(name, flags, status.st_mode & 0o777, dir_fd=folder), "wb") as file:
                    while part := old.read(_BLOCK):
                        file.write(part)


@contextmanager
def _below(target: str, parts: list[str]) -> Iterator[tuple[int, str]]:
    """The open folder that `parts` below `target` lies in, and the name in it; no link is followed on the way."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if not parts:
        folder = os.open(os.path.dirname(os.path.abspath(target)), flags)
        try:
            yield folder, os.path.basename(os.path.abspath(target))
        finally:
            os.close(folder)
        return
    folder = os.open(target, flags | os.O_NOFOLLOW)
    try:
        for part in parts[:-1]:
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, parts[-1]
    finally:
        os.close(folder)


def _stays_within(parts: list[str], link: str) -> bool:
    """Whether a link at `parts` to `link` leads below the target, whatever other such links are there.

    The folders above the link are real ones, so that leading `..` are exact; one after a name could follow another link.
    """
    if not parts or not link or link.startswith("/"):
        return False
    steps = [part for part in link.split("/") if part not in ("", ".")]
    up = next((number for number, part in enumerate(steps) if part != ".."), len(steps))
    return up < len(parts) and ".." not in steps[up:]


class _Member(tarfile.TarInfo):
    """A member of an untrusted archive: what would make tarfile read much into memory is refused."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        known = self.type in tarfile.REGULAR_TYPES or self.type in _PLAIN_TYPES
        if not known and not (self.type in _LONG_NAMES and self.size <= _BLOCK):
            raise SandboxError(
                "The bottle sent an archive that can't be read", details=f"member type {self.type!r}"
            )
        return super()._proc_member(archive)  # type: ignore[misc]  # the hook that tarfile documents for subclasses
