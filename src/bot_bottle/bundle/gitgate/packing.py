"""Reads an agent's own repository, in a place that sees nothing else: what its branches have becomes one pack.

Nothing in the repository is acted on but objects: git runs with a repository of ours, and the agent's objects beside it. Whoever
takes the pack reads it anew.
"""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from bot_bottle.bundle.gitgate import settings, worker
from bot_bottle.bundle.gitgate.checker import make_held
from bot_bottle.bundle.gitgate.line import Line

CLONE = "/clone"
"""Where the agent's workspace is in the place."""
PACK = "branches.pack"


def serve(keeper: int) -> NoReturn:
    """Packs once what it is ordered to; ends the process."""
    worker.run(keeper, _pack)


def _pack(order: Mapping[str, Any], line: Line) -> None:
    place = f"{settings.PLACE_HELD}/repository.git"
    make_held(place, f"{CLONE}/.git")
    commits = _commits(place, order["wanted"])
    known = _commits(place, order["known"])
    with open(f"{settings.PLACE_HELD}/{PACK}", "wb") as pack:
        asked = "".join([*(f"{one}\n" for one in commits), *(f"^{one}\n" for one in known)])
        done = subprocess.run(
            ["git", "pack-objects", "--revs", "--stdout", "--quiet"],
            env=settings.environment((), {"GIT_DIR": place}),
            cwd="/",
            input=asked.encode(),
            stdout=pack,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    line.send({"packed": commits, "ok": done.returncode == 0})


def _commits(place: str, ids: Sequence[str]) -> list[str]:
    """Those that are there and are commits."""
    done = subprocess.run(
        ["git", "cat-file", "--batch-check"],
        env=settings.environment((), {"GIT_DIR": place}),
        cwd="/",
        input="".join(f"{one}\n" for one in ids).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    lines = [line.split(" ") for line in done.stdout.decode("ascii", "replace").splitlines()]
    return [parts[0] for parts in lines if parts[1:2] == ["commit"]]
