"""A running pipelock to measure beside ours, or behind it: the real program that is on PATH or that `make` installed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bot_bottle.engines.pipelock.process import Pipelock, Settings
from bot_bottle.engines.pipelock.program import COMMIT
from bot_bottle.policy.model import EgressPolicy, Route

INSTALLED = Path(__file__).resolve().parents[1] / "build" / "pipelock" / COMMIT / "pipelock"
_NOBODY = 65534


def program() -> str | None:
    """Where it is; None when there is none to measure, and then nothing else is measured in its place."""
    return str(INSTALLED) if INSTALLED.exists() else shutil.which("pipelock")


@contextlib.contextmanager
def started(path: str, *ends: tuple[str, int]) -> Iterator[Pipelock]:
    """One that lets through connections to the names in `ends`, also to private addresses; `port` is where it listens."""
    policy = EgressPolicy(routes=tuple(Route(host=host, port=port) for host, port in ends), engine="pipelock")
    with tempfile.TemporaryDirectory(prefix="bench-pipelock-") as folder:
        names = tuple(host for host, _ in ends)
        settings = Settings(path, os.path.join(folder, "config"), _NOBODY, _NOBODY, trusted=names)
        made = Pipelock(settings, policy)
        try:
            made.start()
            made.wait_ready()
            yield made
        finally:
            made.stop()
