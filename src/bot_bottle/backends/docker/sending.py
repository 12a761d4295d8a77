"""The archive of a build: the context's files, and where the bottle's file names certificates, a Dockerfile that trusts them.

Behind a proxy that opens TLS, every step that fetches something has to trust that proxy. The steps are told by a file that is
copied in and by build arguments, which are environment while a step runs and stand in no image afterwards.
"""

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

from bot_bottle.backends.docker.context import Context
from bot_bottle.errors import HostError

_FOLDER = ".bot-bottle-build"
_INSIDE = "/etc/bot-bottle-build"
_CHANGED = f"{_FOLDER}/Dockerfile"
_BUNDLE, _APT = f"{_INSIDE}/ca.pem", f"{_INSIDE}/apt.conf"
_VARIABLES = (
    *(
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
    ),
    *("CARGO_HTTP_CAINFO", "NIX_SSL_CERT_FILE", "AWS_CA_BUNDLE"),
)
_FROM = re.compile(r"\s*FROM\s", re.IGNORECASE)
_ESCAPE = re.compile(r"#\s*escape\s*=\s*([\\`])\s*", re.IGNORECASE)


def write(target: IO[bytes], context: Context, dockerfile: str, ca: str) -> str:
    """Writes the archive of a user's Dockerfile; answers the Dockerfile's path in it. Raises HostError."""
    inside = os.path.relpath(dockerfile, context.folder)
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        try:
            for path, facts in context.entries:
                _add(archive, context.folder, path, facts)
            text = _read(dockerfile)
        except OSError as error:
            details = f"{error.filename}: {error.strerror}"
            raise HostError("The image's context can't be read", details=details) from error
        if not ca and not inside.startswith(".."):
            return inside
        _trusting(archive, text, ca)
    return _CHANGED


def write_own(target: IO[bytes], dockerfile: bytes, ca: str) -> str:
    """Writes the archive of our own Dockerfile; answers its path in it. Raises HostError."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _trusting(archive, dockerfile.decode(), ca)
    return _CHANGED


def _trusting(archive: tarfile.TarFile, dockerfile: str, ca: str) -> None:
    text = trusting(dockerfile) if ca else dockerfile
    _add_text(archive, _CHANGED, text)
    if ca:
        _add_text(archive, f"{_FOLDER}/trust/ca.pem", bundle(ca))
        _add_text(archive, f"{_FOLDER}/trust/apt.conf", f'Acquire::https::CaInfo "{_BUNDLE}";\n')


def trusting(dockerfile: str) -> str:
    """`dockerfile` with what makes each stage trust the bundle, right after its FROM."""
    told = [f"COPY {_FOLDER}/trust/ {_INSIDE}/", *(f"ARG {name}={_BUNDLE}" for name in _VARIABLES)]
    told.append(f"ARG APT_CONFIG={_APT}")
    lines = []
    for instruction in instructions(dockerfile):
        lines += instruction
        if _FROM.match(instruction[0]):
            lines += told
    return "\n".join(lines) + "\n"


def instructions(dockerfile: str) -> Iterator[list[str]]:
    """The lines of each instruction; comments and blank lines stand by themselves, or in the midst of one."""
    escape, held = "\\", list[str]()
    for number, line in enumerate(dockerfile.splitlines()):
        if number == 0 and (found := _ESCAPE.fullmatch(line)):
            escape = found[1]
        silent = not line.strip() or line.lstrip().startswith("#")
        held.append(line)
        if (silent and len(held) > 1) or (not silent and line.rstrip().endswith(escape)):
            continue
        yield held
        held = []
    if held:
        yield held


def bundle(ca: str) -> str:
    """The host's own list of authorities, and in addition those of the file `ca`. Raises HostError."""
    from bot_bottle.host import stores

    try:
        added = _read(ca)
        own = _read(found) if (found := stores.look().list) else ""
    except (OSError, UnicodeDecodeError) as error:
        raise HostError("The certificates for the build can't be read", details=str(error)) from error
    if "-----BEGIN CERTIFICATE-----" not in added:
        raise HostError(f"{ca} has no certificate in it", resolution="image.ca names a file in PEM format.")
    return own.rstrip("\n") + "\n" + added


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _add_text(archive: tarfile.TarFile, path: str, text: str) -> None:
    entry = tarfile.TarInfo(path)
    content = text.encode()
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _add(archive: tarfile.TarFile, folder: str, path: str, facts: os.stat_result) -> None:
    """Adds one entry of the context, as root's: the host's users mean nothing in an image."""
    entry = tarfile.TarInfo(path)
    entry.mode, entry.mtime = facts.st_mode & 0o777, facts.st_mtime
    full = os.path.join(folder, path)
    if stat.S_ISLNK(facts.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(full)
        archive.addfile(entry)
    elif stat.S_ISDIR(facts.st_mode):
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        with open(full, "rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            archive.addfile(entry, file)
