"""Checked manifests kept as JSON, so that a second start imports neither pydantic nor yaml.

An entry holds what the answer depended on: the bytes of every file, the places where nothing was, the skills'
folders. It is used only when all of that is still so, and only when the file is the operator's own. A cache
that can't be read or written costs time, never correctness.
"""

import contextlib
import json
import os
import stat

from bot_bottle import __version__
from bot_bottle.digest import sha256_hex
from bot_bottle.manifest.document import ManifestDocument
from bot_bottle.manifest.skills import find_skill
from bot_bottle.manifest.source import Reading, StrPath, UnreadableError, read_file
from bot_bottle.typed import Any, cast

SCHEMA = 3
"""Raised with every change of what the same files mean."""

_SIZE_LIMIT = 8 * 2**20


def load_cached(
    agent: str, *, root: StrPath, repository: StrPath | None, bottle: str | None = None, cache_root: StrPath
) -> ManifestDocument:
    """What `load.load` answers and raises, remembered under `cache_root`."""
    names = [
        agent,
        bottle,
        os.path.abspath(os.fspath(root)),
        repository and os.path.abspath(os.fspath(repository)),
    ]
    identity = _digest([SCHEMA, __version__, _code(), os.path.expanduser("~"), *names])
    folder = os.path.join(os.fspath(cache_root), "manifest")
    path = os.path.join(folder, identity[:40] + ".json")
    known = _read(path, identity)
    if known is not None:
        return known
    from bot_bottle.manifest.load import load

    reading = Reading()
    document = load(agent, root=root, repository=repository, bottle=bottle, reading=reading)
    body = {"files": reading.files, "absent": reading.absent, "skills": reading.skills, "document": document}
    with contextlib.suppress(OSError):
        _write(folder, path, {"identity": identity, "digest": _digest(body), "body": body})
    return document


def _code() -> list[tuple[int, int]]:
    """What tells this code from an edited or newly installed one of the same version."""
    here = os.path.dirname(__file__)
    names = ("model", "credentials", "values", "compose", "load", "hosts", "frontmatter")
    facts = [os.stat(os.path.join(here, name + ".py")) for name in names]
    return [(fact.st_mtime_ns, fact.st_size) for fact in facts]


def _digest(value: Any) -> str:
    return sha256_hex(json.dumps(value, sort_keys=True).encode())


def _read(path: str, identity: str) -> ManifestDocument | None:
    """The remembered document, if there is one and everything it depended on is still so."""
    try:
        entry = json.loads(_own_bytes(path))
        body = entry["body"]
        if entry["identity"] != identity or entry["digest"] != _digest(body) or not _still_so(body):
            return None
        return cast(ManifestDocument, body["document"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _own_bytes(path: str) -> bytes:
    """The bytes of a regular file that only this user can have written. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise PermissionError(path)
        if facts.st_size > _SIZE_LIMIT:
            raise OSError(path)
        return file.read(_SIZE_LIMIT)


def _still_so(body: dict[str, Any]) -> bool:
    """Whether the files have the same bytes, what was absent still is, and the skills are where they were."""
    try:
        for path, within, digest in body["files"]:
            data = read_file(path, within)
            if data is None or sha256_hex(data) != digest:
                return False
        if any(os.path.lexists(path) for path in body["absent"]):
            return False
        return all(find_skill(name, places) == folder for name, places, folder in body["skills"])
    except UnreadableError:
        return False


def _write(folder: str, path: str, entry: dict[str, Any]) -> None:
    """Replaces the entry in one step. Raises OSError, also when the folder is somebody else's."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    facts = os.lstat(folder)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise PermissionError(folder)
    if facts.st_mode & 0o077:
        os.chmod(folder, 0o700)
    import secrets

    beside = f"{path}.{secrets.token_hex(6)}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(entry, file)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
