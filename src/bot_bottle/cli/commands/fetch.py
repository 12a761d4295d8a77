"""Bring the branches of an agent's own clone to the repository, as refs."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import record
    from bot_bottle.operate.fetching import fetch

    store = record.existing_store()
    found = record.find_run(store, options.bottle)
    assert store is not None
    store.close()
    brought = fetch(found)
    if console.as_json:
        console.json({"run": found.id, "branches": [one._asdict() for one in brought]})
        return 0
    for one in brought:
        new = "" if one.before else " (new)"
        new = " (as it was)" if one.before == one.commit else new
        console.data(f"{one.name} -> {one.ref} {one.commit[:12]}{new}")
    console.say(
        f"Nothing else was changed. git log {brought[0].ref} shows it." if brought else "There was nothing."
    )
    return 0
