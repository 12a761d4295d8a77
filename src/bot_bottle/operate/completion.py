"""The names that a shell can complete."""

import os
from pathlib import Path

from bot_bottle.host import paths


def known(kind: str) -> list[str]:
    """Names of `agents`, `bottles`, or running `runs`."""
    from bot_bottle.manifest.cache import known_agents, known_bottles
    from bot_bottle.operate.runs import open_store, repository_of

    root = Path(paths.manifest_root())
    if kind == "agents":
        return list(known_agents(root, repository_of(os.getcwd())))
    if kind == "bottles":
        return list(known_bottles(root))
    with open_store() as store:
        return [record.id for record in store.runs(states=("starting", "running", "stopping"))]
