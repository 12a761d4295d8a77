"""Copy a stopped bottle under another name: both can be gone on with, each by itself."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottle, and what the copy is called."""
    common.bottle(parser, more="; it was stopped with --keep")
    parser.add_argument(
        "name", metavar="NAME", help="what the copy is called: bot-bottle start NAME goes on with it"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Makes it and says what did not come along."""
    from bot_bottle.operate.branches import branch

    made = branch(options.bottle, options.name)
    for line in made.left_out:
        console.warn(f"not copied: {line}")
    if console.as_json:
        console.json({**made._asdict(), "left_out": list(made.left_out)})
    else:
        console.data(made.id)
        console.say(f"bot-bottle start {made.id} goes on with it")
    return 0
