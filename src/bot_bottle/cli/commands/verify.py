"""Check that the record of what happened is still what was recorded."""

import argparse

from bot_bottle.cli.console import Console
from bot_bottle.errors import StateError


def arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""
    del parser


def run(options: argparse.Namespace, console: Console) -> int:
    del options
    from bot_bottle.operate import record

    store = record.existing_store()
    if store is None:
        console.json(
            {"ok": True, "checked": 0, "first_bad": None, "why": ""}
        ) if console.as_json else console.data("Nothing was recorded yet.")
        return 0
    with store:
        found = store.verify()
    if console.as_json:
        console.json(found._asdict())
    elif found.ok:
        console.data(f"The record is whole: {found.checked} events.")
    if not found.ok:
        where = "" if found.first_bad is None else f"the first that is not whole is event {found.first_bad}; "
        raise StateError(
            "The record of events is not what was recorded",
            details=f"{found.why}\n{where}{found.checked} before it are whole",
            resolution=f"Keep {store.path} and the files beside it, and find out who changed them.",
        )
    return 0
