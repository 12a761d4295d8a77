"""Finding pipelock, and what it says of its version."""

import os
import re
import shutil

from bot_bottle.errors import HostError

MODULE = "github.com/luckyPipewrench/pipelock/cmd/pipelock"
COMMIT = "7a3b7de4a555"
"""Version 2.3.0. The module path carries no major version, so Go's own `@latest` would be an old one."""
GO = (1, 25)
MINIMUM = (2, 3)
INSTALL = f"Install it with Go {GO[0]}.{GO[1]} or newer, and put it on PATH: go install {MODULE}@{COMMIT}"

_VERSION = re.compile(r"\bv?([0-9]+)\.([0-9]+)\.([0-9]+)")


def find() -> str:
    """Where pipelock is on PATH. Raises HostError when it is not there."""
    path = shutil.which("pipelock")
    if path is None:
        raise HostError("Pipelock was not found on PATH", resolution=INSTALL)
    return os.path.realpath(path)


def version(path: str) -> str:
    """The first line of what it says of itself. Raises HostError when it does not run, or is too old.

    What `go install` builds has no version of its own and says 0.0.0: what it can do shows when it is started.
    """
    from bot_bottle.host.process import run

    said = run([path, "version"], timeout=20).or_raise(f"{path} does not run").said
    first = said.partition("\n")[0].strip()
    found = _VERSION.search(first)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    if number != (0, 0) and number < MINIMUM:
        raise HostError(
            f"Pipelock {found[0] if found else ''} is too old", details=f"{path}: {first}", resolution=INSTALL
        )
    return first
