#!/usr/bin/env python3
"""The image that the Docker tests' images are built on: made from the distribution's packages, so that no image registry is needed.

Kept in `build/docker` as an archive that `docker import` takes; the tests put it into the engine (`tests/support/engine.py`). Uses
nothing but the standard library.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "build" / "docker"
VERSION = 1
"""Raised with every change of what is in it."""
TAG = f"bot-bottle-test/base:{VERSION}"
ARCHIVE = FOLDER / f"base-{VERSION}.tar"
WHY_NOT = FOLDER / "why-not"
SUITE = "bookworm"
PACKAGES = ("ca-certificates", "curl", "git", "jq", "less", "patch", "procps", "python3", "ripgrep", "unzip")
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")


def build() -> str:
    """Makes the archive where it is not there; answers why it can't be, empty when it is."""
    if ARCHIVE.exists():
        return ""
    if os.environ.get("BOT_BOTTLE_OFFLINE"):
        return "BOT_BOTTLE_OFFLINE is set, and there is no base image"
    program = shutil.which("mmdebstrap")
    if program is None:
        return "mmdebstrap is not installed, which makes the base image"
    FOLDER.mkdir(parents=True, exist_ok=True)
    fresh = FOLDER / f".base-{os.getpid()}.tar"
    options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    argv = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", *options, SUITE, str(fresh)]
    print("+", " ".join(argv), file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200, check=False
        )
        if done.returncode:
            return f"mmdebstrap failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
        fresh.rename(ARCHIVE)
    except subprocess.TimeoutExpired:
        return "mmdebstrap took longer than 20 minutes"
    finally:
        fresh.unlink(missing_ok=True)
    return ""


def prepare() -> None:
    """Makes it, and leaves the reason where the tests find it when it can't be."""
    why_not = build()
    if why_not:
        print(f"bootstrap: no base image, so the Docker tests are skipped: {why_not}", file=sys.stderr)
        FOLDER.mkdir(parents=True, exist_ok=True)
        WHY_NOT.write_text(why_not + "\n")
    else:
        WHY_NOT.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(build() or 0)
