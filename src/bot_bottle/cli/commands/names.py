"""Print names for shell completion: one a line, nothing when there is none."""

import argparse

from bot_bottle.cli.console import Console
from bot_bottle.errors import BotBottleError

KINDS = ("agents", "bottles", "runs", "past", "proposals", "grants")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which names."""
    parser.add_argument("of", choices=KINDS, help="names of what")


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints them; a completion never shows an error."""
    from bot_bottle.operate.completion import known

    try:
        found = known(options.of)
    except (BotBottleError, OSError):
        return 0
    if found:
        console.data("\n".join(found))
    return 0
