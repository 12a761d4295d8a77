"""Where root file systems come from: an archive, an engine's image, Debian's packages."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Mapping
from typing import IO, Any, cast

from bot_bottle.backends.smolmachines.images import Say, Source
from bot_bottle.backends.smolmachines.unpacking import Unpacking
from bot_bottle.errors import HostError, NotFoundError
from bot_bottle.host import files
from bot_bottle.plan.model import ImageSpec

SUITE = "bookworm"
PACKAGES = (
    "bash",
    "ca-certificates",
    "curl",
    "git",
    "jq",
    "less",
    "patch",
    "procps",
    "python3",
    "ripgrep",
    "unzip",
)
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
_LIMIT = 1800.0
"""Seconds for packages to be fetched and unpacked."""


def archive(path: str, memory: str, say: Say) -> Source:
    """An image in a file. Its digest is kept in `memory` for as long as the file is as it was."""

    def fill(into: Unpacking) -> Mapping[str, Any]:
        from bot_bottle.backends.smolmachines import archives

        with open(path, "rb") as file:
            _check_unchanged(file, mark)
            config = archives.unpack(file, into, say)
            _check_unchanged(file, mark)
        return config

    try:
        mark, digest = _digest(path, memory, say)
        return Source(f"archive {digest}", fill)
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no image {path}") from error


def _mark(file: IO[bytes]) -> list[int]:
    """What tells an open file from what it was, and from every other."""
    facts = os.fstat(file.fileno())
    return [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def _check_unchanged(file: IO[bytes], mark: list[int]) -> None:
    if _mark(file) != mark:
        raise HostError("The image was changed while it was read", resolution="Start it again.")


def _digest(path: str, memory: str, say: Say) -> tuple[list[int], str]:
    """The file's mark, and the digest of what it has."""
    with open(path, "rb") as file:
        mark = _mark(file)
        try:
            known = json.loads(files.read(memory))
            if known[path][0] == mark:
                return mark, str(known[path][1])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            known = {}
        say("Reading the image")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        _check_unchanged(file, mark)
    known[path] = [mark, digest]
    fresh = f"{memory}.{os.getpid()}-{threading.get_ident()}"
    files.write(fresh, json.dumps(known).encode())
    os.replace(fresh, memory)
    return mark, digest


def own(wanted: ImageSpec, say: Say) -> Source:
    """Our own image: by an engine where there is one, else from packages. Raises HostError when neither can."""
    from bot_bottle.backends.docker import engine as engines

    try:
        engines.connect(os.environ).client.close()
    except HostError as error:
        if shutil.which("mmdebstrap") is None:
            raise HostError(
                "There is nothing here that bot-bottle's own image can be made with",
                details=f"{error.brief}; mmdebstrap, which makes it from Debian's packages, is not installed",
                resolution="Install mmdebstrap and uidmap, or name an image: image: {reference: /srv/image.tar}",
            ) from error
        say(f"Made from Debian's packages: {error.brief}")
        return packages(say)
    return engine(wanted, say)


def packages(say: Say) -> Source:
    """From Debian's packages."""
    parts = [SUITE, os.uname().machine, *PACKAGES]

    def fill(into: Unpacking) -> Mapping[str, Any]:
        say("Making the image from Debian's packages; that takes a few minutes, once")
        with tempfile.TemporaryFile() as made:
            _mmdebstrap(made)
            made.seek(0)
            say("Unpacking the root file system")
            with tarfile.open(fileobj=made, mode="r:") as tar:
                into.add(tar)
        return {}

    return Source(f"packages {' '.join(parts)}", fill)


def _mmdebstrap(made: IO[bytes]) -> None:
    argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "--format=tar",
            *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT), SUITE, "-"]  # fmt: skip
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=made, stderr=said, timeout=_LIMIT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError("The image could not be made from packages", details=str(error)) from error
        said.seek(0)
        words = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    if done.returncode:
        raise HostError(
            "The image could not be made from packages", details="\n".join(words[-8:]),
            resolution="mmdebstrap has to reach Debian's mirror; as an ordinary user it needs uidmap, and a range in /etc/subuid.",
        )  # fmt: skip


def engine(wanted: ImageSpec, say: Say) -> Source:
    """What a Docker engine has, fetches or builds. Raises HostError without one, and what making the image raises."""
    from bot_bottle.backends.docker import engine as engines
    from bot_bottle.backends.docker import failures, images

    whole = engines.connect(os.environ)
    # Our tools are shown to machines, not put into their image: it stays the same when they change.
    found = images.ensure(wanted._replace(layers=()), images.access(whole), say)

    def fill(into: Unpacking) -> Mapping[str, Any]:
        say("Unpacking the engine's image")
        api = whole.client.api
        try:
            made = api.create_container(
                found.id, command=["-"], network_disabled=True, labels={images.LABEL: "export"}
            )
            try:
                stream = cast("IO[bytes]", _Stream(api.export(made["Id"], chunk_size=1 << 20)))
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    into.add(tar)
            finally:
                api.remove_container(made["Id"], force=True, v=True)
        except failures.kinds() as error:
            raise failures.explain(error, "The image could not be taken from the engine") from error
        return {"Env": [f"{name}={value}" for name, value in found.env]}

    return Source(f"engine {found.id}", fill)


class _Stream:
    """Pieces, as the file that they are."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, less at the end."""
        held = [self._rest]
        have = len(self._rest)
        while have < size and (piece := next(self._pieces, b"")):
            held.append(piece)
            have += len(piece)
        data = b"".join(held)
        self._rest = data[size:]
        return data[:size]
