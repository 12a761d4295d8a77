"""A bottle's certificate stores, written outside and shown inside read-only: the host's authorities, and the bottle's own.

Files are changed where they are, at their end: what is mounted shows it at once, and who reads meanwhile finds at least the
host's. Only certificates come here; the key of the bottle's authority never leaves its bundle.
"""

import contextlib
import os
import stat

from bot_bottle.bundle.model import AUTHORITY_PLACES, authority_name
from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError
from bot_bottle.host import files, tree
from bot_bottle.plan.model import Trust
from bot_bottle.plan.trust import AUTHORITY, CERTIFICATES, FILES
from bot_bottle.provision import truststore

_LARGEST = 4 * 1024 * 1024
_KEPT_SECONDS = 7 * 24 * 3600.0
_APART_SECONDS = 600.0
"""Between a run's beginning, as it is recorded, and its use of a copy; generously."""
_SEEN_INSIDE = ("/usr/", "/etc/ssl/certs/", "/etc/pki/", "/etc/ca-certificates/", "/var/lib/ca-certificates/")
"""Where a link of the host's store may lead and be right inside; what it leads to elsewhere is copied."""


class TrustStore:
    """The stores of one run. `prepare` before the sandbox is made, `accept` whenever its bundle has a new authority."""

    def __init__(self, trust: Trust, ca: str = "") -> None:
        """`ca` are the further authorities that the bottle's file names, in PEM."""
        self._trust = trust
        self._ca = ca.encode()
        self._host = b""
        self._extra = b""
        self._java: truststore.JavaStore | None = None

    def prepare(self) -> None:
        """Makes the files with what the host trusts. Raises HostError."""
        try:
            for source, target in self._trust.copies:
                _copy_folder(source, target)
            os.mkdir(self._trust.folder, 0o755)
            self._host = _ended(_read(self._trust.list)) + self._ca
            self._extra = _ended(_read(self._trust.extra)) + self._ca
            self._write("list.pem", self._host)
            self._write("authority.pem", b"")
            self._write("added.pem", self._extra or _first(self._host))
            self._write("cacerts", self._java_store().content() if self._ca else _read(self._trust.java))
        except OSError as error:
            raise HostError("The bottle's certificate stores can't be made", details=str(error)) from error

    def accept(self, authority: str) -> str:
        """Adds the bottle's authorities (PEM), in the place of those before; answers the SHA-256 of the newest certificate.

        Raises SandboxError when it is no certificate, HostError when it can't be written.
        """
        ders = truststore.authorities(authority)
        own = b"".join(map(truststore.pem, ders))
        aliases = [(authority_name(number), der) for number, der in enumerate(ders)]
        try:
            self._write("cacerts", self._java_store().content(*aliases))
            self._write("list.pem", self._host + own)
            self._write("added.pem", self._extra + own)
            self._write("authority.pem", own)
        except OSError as error:
            raise HostError(
                "The bottle's authority can't be put into its stores", details=str(error)
            ) from error
        return sha256_hex(ders[-1])

    def _java_store(self) -> truststore.JavaStore:
        """What the host trusts, as Java reads it."""
        if self._java is None:
            self._java = truststore.JavaStore()
            for number, one in enumerate(truststore.certificates(self._host)):
                self._java.add(f"host-{number}", one)
        return self._java

    def _write(self, name: str, content: bytes) -> None:
        path = os.path.join(self._trust.folder, name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
            file.truncate()


def forget_copies(data: str, *, now: float, oldest_run: float) -> list[str]:
    """Removes the copies of the host's folders below `data` that no run began with for a week; a sentence for each.

    `oldest_run` is when the oldest run began that has not ended: what was used since then may be in use. Raises HostError.
    """
    said = []
    folder = os.path.join(data, "trust")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        used = os.lstat(path).st_mtime
        if used > now - _KEPT_SECONDS or used > oldest_run - _APART_SECONDS:
            continue
        gone = f"{path}.gone"  # in one step: who begins with it now has all of it or none
        tree.remove(gone)
        os.rename(path, gone)
        tree.remove(gone)
        said.append(f"removed a copy of the host's certificates that nothing has used for a week: {path}")
    return said


def _read(path: str) -> bytes:
    """A store of the host's; nothing when it is not there or too large to be one."""
    try:
        return files.read(path) if path and os.path.getsize(path) <= _LARGEST else b""
    except OSError:
        return b""


def _ended(text: bytes) -> bytes:
    return text if not text or text.endswith(b"\n") else text + b"\n"


def _first(text: bytes) -> bytes:
    """The first certificate of a list: Node warns at every start of a file that has none, and knows this one anyway."""
    found = truststore.certificates(text)
    return truststore.pem(found[0]) if found else b""


def _copy_folder(source: str, target: str) -> None:
    """Makes the copy of the host's folder `source` that bottles are shown, once: the same names, and places for our own files.

    Shared by bottles for as long as the host's folder stays as it is, because some hundred links take 20 ms.
    """
    with contextlib.suppress(FileNotFoundError):
        os.utime(target)  # `forget_copies` goes by it
        return
    made = f"{target}.{os.getpid()}"
    tree.remove(made)
    os.makedirs(os.path.join(made, "java"))
    if source:
        with os.scandir(source) as entries:
            for entry in entries:
                _copy_entry(entry, made)
    for place in FILES.values():
        _make_place(made + place.removeprefix(CERTIFICATES))
    _link_authority(made)
    for folder in (made, os.path.join(made, "java")):
        os.chmod(folder, 0o755)  # noqa: S103 - public, and the agent is another user where root starts it
    try:
        os.rename(made, target)
    except OSError:
        tree.remove(made)
        if not os.path.isdir(target):  # else another start was faster
            raise


def _copy_entry(entry: "os.DirEntry[str]", made: str) -> None:
    """A link to what is seen inside as a link, a file that everybody may read as a file; nothing else."""
    target = os.path.join(made, entry.name)
    if entry.is_symlink():
        leads = os.path.join(os.path.dirname(entry.path), os.readlink(entry.path))
        if os.path.dirname(leads) == os.path.dirname(entry.path):
            os.symlink(os.path.basename(leads), target)
            return
        if os.path.normpath(leads).startswith(_SEEN_INSIDE):
            os.symlink(os.path.normpath(leads), target)
            return
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= _LARGEST:
        files.write(target, files.read(entry.path))
        os.chmod(target, 0o644)


def _make_place(path: str) -> None:
    """An empty file for something to be mounted on, whatever stood there."""
    if os.path.lexists(path):
        os.unlink(path)
    files.write(path, b"")
    os.chmod(path, 0o644)


def _link_authority(made: str) -> None:
    """The names by which OpenSSL looks for the bottle's authorities in a folder; each leads to the file with all of them."""
    for place in range(AUTHORITY_PLACES):
        hashed, number = truststore.hashed_name(authority_name(place)), 0
        while os.path.lexists(os.path.join(made, f"{hashed}.{number}")):
            number += 1
        os.symlink(os.path.basename(AUTHORITY), os.path.join(made, f"{hashed}.{number}"))
