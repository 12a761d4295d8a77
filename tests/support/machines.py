"""Bottles in machines without a virtual machine: the stand-in for smolvm, and the tests' image as an unpacked folder."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from bot_bottle.backends.smolmachines import backend as ours
from bot_bottle.backends.smolmachines import program
from bot_bottle.plan.model import INSIDE_GID, INSIDE_UID
from support import stand_in_smolvm
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
