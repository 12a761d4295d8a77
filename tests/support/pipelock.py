"""The pipelock that a test runs: the real one where there is one, and a stand-in everywhere."""

import os
import shutil
from pathlib import Path

import pytest

from bot_bottle.engines.pipelock.program import COMMIT

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / "build" / "pipelock" / COMMIT / "pipelock"
STAND_IN = Path(__file__).with_name("stand_in_pipelock.py")
WHY_NOT = ROOT / "build" / "pipelock" / "why-not"
"""What `make` leaves there when the program could not be installed."""


def real() -> str | None:
    """Where the real program is."""
    if INSTALLED.exists():
        return str(INSTALLED)
    return shutil.which("pipelock")


def missing() -> str:
    """Why the real program is not there; empty when it is."""
    if real():
        return ""
    said = WHY_NOT.read_text().strip() if WHY_NOT.exists() else "make has not tried to install it"
    return f"the real pipelock is not installed: {said}"


def provide(kind: str, folder: Path) -> Path:
    """A folder for PATH, below `folder`, in which `pipelock` is the one of `kind`; every user can run it."""
    source = real() if kind == "real" else str(STAND_IN)
    assert source
    place = folder / "programs"
    place.mkdir()
    place.chmod(0o755)
    target = place / "pipelock"
    shutil.copyfile(source, target)
    os.chmod(target, 0o755)
    return place


KINDS = ("stand-in", "real")


def skip_unless_there(kind: str) -> None:
    """Skips a test of the real program where that is missing; the end of the tests' output counts it."""
    if kind == "real" and (why := missing()):
        pytest.skip(why)
