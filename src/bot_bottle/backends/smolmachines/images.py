"""What machines are made from: root file systems, unpacked. `prepare` is the one entry.

A folder is taken as it is. Everything else is unpacked once into the cache, into a folder that is named after what it was made
of: an archive by its content, an engine's image by its id, our own by its list of packages. It is made beside its place and moved
there whole. Each image has a lock of its own, so that different ones are made side by side; all who make one share the cache's,
which whoever empties it has alone.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError
from bot_bottle.host import files
from bot_bottle.host.alone import alone, alone_at_once
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_USER, ImageSpec
from bot_bottle.typed import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from bot_bottle.backends.smolmachines.unpacking import Unpacking

Say = Callable[[str], None]
Fill = Callable[["Unpacking"], Mapping[str, Any]]
"""Unpacks an image, and answers its configuration (`Env`, …)."""

SCHEMA: Final = 1
"""Raised when the same source makes another root file system."""
_NEEDED = ("usr/bin", "etc", "tmp")
"""What smolvm knows a root file system by, and what everything in it needs."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MADE, _ROOTFS, _NEW, _LOCK = "made.json", "rootfs", ".new-", ".lock"


class PreparedImage(NamedTuple):
    """A root file system, and who the agent is in it.

    `digest` says what it was made of; of the user's own folder, which every start shows as it is then, only which one it is.
    `size` is in bytes, 0 where nobody counted.
    """

    rootfs: str
    digest: str
    user: str
    uid: int
    gid: int
    home: str
    path: str
    size: int


class Source(NamedTuple):
    """What an image is made of: `mark` tells it from every other, `fill` makes it."""

    mark: str
    fill: Fill


def prepare(wanted: ImageSpec, *, cache: str, say: Say) -> PreparedImage:
    """The root file system that `wanted` means, made where it is not there. Raises BotBottleError of several kinds."""
    if wanted.reference.startswith("/") and os.path.isdir(wanted.reference):
        return _folder(wanted.reference.rstrip("/") or "/")
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        source = _source(wanted, cache, say)
        digest = sha256_hex(json.dumps([SCHEMA, source.mark]).encode())[:40]
        found = _made(f"{cache}/{digest}")
        if found is None:
            with (
                alone(f"{cache}/{_LOCK}", lambda: say("Waiting for the images to be removed"), shared=True),
                alone(_lock(cache, digest), lambda: say("Waiting for this image to be made")),
            ):
                found = _made(f"{cache}/{digest}") or _make(cache, digest, source)
    except OSError as error:
        raise HostError("The image can't be made", details=f"{error.filename}: {error.strerror}") from error
    return found


def forget(cache: str) -> list[str]:
    """Removes every image that was made; they are made again when they are wanted. For when no bottle runs."""
    import shutil

    if not os.path.isdir(cache):
        return []
    said = []
    with alone(f"{cache}/{_LOCK}", lambda: None):
        for name in sorted(os.listdir(cache)):
            one = f"{cache}/{name}"
            if name.endswith(_LOCK) and name != _LOCK:
                os.unlink(one)
            elif os.path.isdir(one):
                shutil.rmtree(one, ignore_errors=True)
                said.append(f"removed the root file system {name[:12]}")
    return said


def _lock(cache: str, digest: str) -> str:
    return f"{cache}/{digest}{_LOCK}"


def _folder(root: str) -> PreparedImage:
    if missing := _missing(root):
        raise HostError(f"{root} is no unpacked root file system", details=f"missing: {', '.join(missing)}")
    return _prepared(root, sha256_hex(root.encode()), {}, 0)


def _missing(root: str) -> list[str]:
    return [name for name in _NEEDED if not os.path.isdir(f"{root}/{name}")]


def _prepared(root: str, digest: str, config: Mapping[str, Any], size: int) -> PreparedImage:
    """The agent is whoever starts the bottle: the files of the workspace are theirs."""
    told = [str(one) for one in config.get("Env") or () if str(one).startswith("PATH=/")]
    path = told[-1].removeprefix("PATH=") if told else _PATH
    return PreparedImage(root, digest, INSIDE_USER, os.getuid(), os.getgid(), INSIDE_HOME, path, size)


def _source(wanted: ImageSpec, cache: str, say: Say) -> Source:
    from bot_bottle.backends.smolmachines import sources

    if wanted.reference.startswith("/"):
        return sources.archive(wanted.reference, f"{cache}/archives.json", say)
    if wanted.reference or wanted.dockerfile:
        return sources.engine(wanted, say)
    return sources.own(wanted, say)


def _made(place: str) -> PreparedImage | None:
    root = f"{place}/{_ROOTFS}"
    try:
        known = json.loads(files.read(f"{place}/{_MADE}"))
        if _missing(root):
            return None
        return _prepared(root, os.path.basename(place), known["config"], int(known["size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(cache: str, digest: str, source: Source) -> PreparedImage:
    """Under the image's lock."""
    import shutil

    from bot_bottle.backends.smolmachines.unpacking import Unpacking

    fresh, place = f"{cache}/{_NEW}{digest}", f"{cache}/{digest}"
    for left in (fresh, place):
        shutil.rmtree(left, ignore_errors=True)
    for name in os.listdir(cache):
        if name.startswith(_NEW):
            with alone_at_once(_lock(cache, name.removeprefix(_NEW))) as nobodys:
                if nobodys:  # whoever made it was killed
                    shutil.rmtree(f"{cache}/{name}", ignore_errors=True)
    root = f"{fresh}/{_ROOTFS}"
    os.makedirs(root, mode=0o755)
    try:
        into = Unpacking(root)
        try:
            config = source.fill(into)
        finally:
            into.close()
        with suppress(FileExistsError):
            os.mkdir(os.path.join(root, "tmp"), mode=0o755)
        if missing := _missing(root):
            raise HostError("The image has no root file system", details=f"missing: {', '.join(missing)}")
        known: dict[str, Any] = {"config": {"Env": list(config.get("Env") or ())}, "size": into.size}
        files.write(f"{fresh}/{_MADE}", json.dumps(known).encode())
        os.rename(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return _prepared(f"{place}/{_ROOTFS}", digest, known["config"], into.size)
