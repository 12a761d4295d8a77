"""Print the version."""

import argparse

from bot_bottle import __version__
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints it."""
    if console.as_json:
        console.json({"version": __version__})
    else:
        console.data(f"bot-bottle {__version__}")
    return 0
