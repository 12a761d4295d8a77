#!/usr/bin/env python3
"""Builds Gitea with Go into `build/`, once: a forge for the git gate's tests, with its database and its ssh server in it.

It takes some minutes of two processors, so `make test` does not do it by itself; `.ci/run` does. Where it can't be built the reason
is left where the tests find it, and they say that they did not run.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bootstrap

VERSION = "v1.23.8"
MODULE = "code.gitea.io/gitea"
PLACE = bootstrap.ROOT / "build" / "gitea" / VERSION
WHY_NOT = PLACE.parent / "why-not"
SERVED = ("options", "templates", "public")
"""What it reads of its own sources while it runs."""
LIMIT = 1800


def build() -> str:
    """Why it could not be built; empty when it is there."""
    if (PLACE / "gitea").exists():
        return ""
    go, why_not = bootstrap.go()
    if why_not:
        return why_not
    if shutil.which("cc") is None:
        return "there is no C compiler, which its database needs"
    local = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "1", "GOFLAGS": "-mod=mod"}
    try:
        got = _run([go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], Path("/"), local)
        source = PLACE / "source"
        shutil.rmtree(PLACE, ignore_errors=True)
        shutil.copytree(json.loads(got)["Dir"], source, copy_function=shutil.copy)
        for folder, _, _ in os.walk(source):
            os.chmod(folder, 0o755)  # in Go's cache they are read-only
        words = ["build", "-trimpath", "-tags", "sqlite sqlite_unlock_notify", "-ldflags", "-s -w"]
        _run([go, *words, "-o", str(PLACE / "built"), "."], source, local)
    except subprocess.TimeoutExpired:
        return f"building it took longer than {LIMIT // 60} minutes"
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no reason given").splitlines()[-1].strip()
        return f"it could not be built: {last}"
    for name in SERVED:
        shutil.move(source / name, PLACE / name)
    shutil.rmtree(source)
    os.replace(PLACE / "built", PLACE / "gitea")
    return ""


def _run(argv: list[str], folder: Path, environment: dict[str, str]) -> str:
    print("+", " ".join(argv), file=sys.stderr, flush=True)
    return subprocess.run(
        argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=True,
    ).stdout  # fmt: skip


def main() -> int:
    why_not = build()
    if why_not:
        print(f"make gitea: no Gitea, so its tests are skipped: {why_not}", file=sys.stderr)
        WHY_NOT.parent.mkdir(parents=True, exist_ok=True)
        WHY_NOT.write_text(why_not + "\n")
        return 1
    WHY_NOT.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
