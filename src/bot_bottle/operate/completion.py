"""The names that a shell can complete."""

import os

from bot_bottle.host import paths


def known(kind: str) -> list[str]:
    """Names of `agents`, `bottles`, `runs` (running ones), `past` (all runs), open `proposals`, or `grants` that hold."""
    from bot_bottle.manifest.places import find_repository, known_agents, known_bottles
    from bot_bottle.operate.record import existing_store

    root = paths.manifest_root()
    if kind == "agents":
        return known_agents(root, find_repository(os.getcwd()))
    if kind == "bottles":
        return known_bottles(root)
    store = existing_store()
    if store is None:
        return []
    with store:
        if kind in ("proposals", "grants"):
            from bot_bottle.state.proposals import Proposals

            there = Proposals(store)
            return [each.id for each in (there.pending() if kind == "proposals" else there.grants())]
        living = ("starting", "running", "stopping")
        return [record.id for record in store.runs(None if kind == "past" else living)]
