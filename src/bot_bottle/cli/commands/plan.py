"""Show what would run, what it may reach and which secrets it would use. Makes nothing."""

import argparse

from bot_bottle.cli.commands import start
from bot_bottle.cli.console import Console

TAKES_TAIL = start.TAKES_TAIL


def arguments(parser: argparse.ArgumentParser) -> None:
    """Those of start."""
    start.arguments(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints the plan."""
    from bot_bottle.operate.runs import plan
    from bot_bottle.plan import render

    made = plan(start.request_from(options))
    if console.as_json:
        console.json(render.document(made))
    else:
        console.data(render.text(made))
    return 0
