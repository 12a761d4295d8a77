"""What machines are made from: unpacked root file systems.

This version takes one that is there, by its absolute path; it is shown to machines read-only and never written.
"""

import os
from collections.abc import Callable
from pathlib import Path

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_USER, ImageSpec
from bot_bottle.typed import NamedTuple

_NEEDED = ("usr/bin", "etc", "tmp")
"""What smolvm knows a root file system by, and what everything in it needs."""


class PreparedImage(NamedTuple):
    """A root file system, and who the agent is in it. `digest` says what it is, `size` is in bytes, 0 where nobody counted."""

    rootfs: Path
    digest: str
    user: str
    uid: int
    gid: int
    home: str
    path: str
    size: int


def prepare(wanted: ImageSpec, *, cache: Path, say: Callable[[str], None]) -> PreparedImage:  # noqa: ARG001
    """The root file system that `wanted` names. Raises HostError."""
    if not wanted.reference.startswith("/"):
        asked = wanted.reference or wanted.dockerfile or "bot-bottle's own image"
        raise HostError(
            "Images for microVMs can't be made in this version",
            details=f"asked for: {asked}",
            resolution="Name an unpacked root file system by its absolute path: image: {reference: /srv/rootfs}",
        )
    root = Path(wanted.reference)
    missing = [name for name in _NEEDED if not (root / name).is_dir()]
    if missing:
        raise HostError(f"{root} is no unpacked root file system", details=f"missing: {', '.join(missing)}")
    return PreparedImage(
        rootfs=root,
        digest=sha256_hex(f"{root} {root.stat().st_mtime_ns}".encode()),
        user=INSIDE_USER,
        uid=os.getuid(),
        gid=os.getgid(),
        home=INSIDE_HOME,
        path="/usr/local/bin:/usr/bin:/bin",
        size=0,
    )
