"""Bottles in machines without a virtual machine: the stand-in for smolvm, and the tests' image as an unpacked folder."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bot_bottle.backends.registry import backend
from bot_bottle.backends.smolmachines import backend as ours
from bot_bottle.backends.smolmachines import program
from bot_bottle.plan.model import INSIDE_GID, INSIDE_UID, ImageSpec
from support import stand_in_smolvm
from support.backends import Factory
from support.engine import base_image

FOLDER = base_image.FOLDER.parent / "machines"


def root_fs() -> tuple[Path, str]:
    """The image, unpacked once for all; and why there is none, empty when there is one."""
    if os.geteuid():
        return FOLDER, "the stand-in for smolvm makes containers with root's rights"
    if why_not := base_image.build():
        return FOLDER, str(why_not)
    target = FOLDER / base_image.ARCHIVE.stem
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            fresh = FOLDER / ".fresh"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            subprocess.run(["tar", "-C", str(fresh), "-xf", str(base_image.ARCHIVE)], check=True)
            fresh.rename(target)
    return target, ""


def stand_in(patch) -> None:
    """Has bottles made with the stand-in for smolvm, for an agent that is not root."""
    path = os.path.abspath(stand_in_smolvm.__file__)
    patch.setattr(program, "find", lambda: program.Program(path))
    patch.setattr(ours, "ids", lambda: (INSIDE_UID, INSIDE_GID))


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for smolvm's sockets."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def bottles(folder: Path, patch, own_places: frozenset[str] = frozenset()) -> Iterator[Factory]:
    """A factory of bottles over the stand-in, which are destroyed at the end."""
    image, why_not = root_fs()
    if why_not:
        pytest.skip(why_not)
    stand_in(patch)
    root = folder / "data" / "r"
    root.mkdir(parents=True)
    with ExitStack() as owned:
        spec = ImageSpec(reference=str(image))
        made = Factory(
            root, backend("smolmachines"), owned, uid=INSIDE_UID, own_places=own_places, image=spec
        )
        os.chown(made.workspace, INSIDE_UID, INSIDE_GID)
        yield made
