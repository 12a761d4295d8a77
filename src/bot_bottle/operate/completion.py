"""The names that a shell can complete."""

import os

from bot_bottle.host import paths


def known(kind: str) -> list[str]:
    """Names of `agents`, `bottles`, or running `runs`."""
    from bot_bottle.manifest.places import find_repository, known_agents, known_bottles
    from bot_bottle.operate.record import open_store

    root = paths.manifest_root()
    if kind == "agents":
        return known_agents(root, find_repository(os.getcwd()))
    if kind == "bottles":
        return known_bottles(root)
    with open_store() as store:
        return [record.id for record in store.runs(states=("starting", "running", "stopping"))]
