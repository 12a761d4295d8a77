"""Connect the terminal to a running bottle. Ctrl-] leaves it running."""

import argparse

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottle."""
    parser.add_argument(
        "run", metavar="BOTTLE", help="a run's id, the start of one, or the agent's name if it runs once"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Attaches until the agent ends or the operator leaves."""
    from bot_bottle.operate.runs import find

    record = find(options.run)
    return attach_to(record.run_path, record.id, console, owner=False)


def attach_to(run_path: str, run_id: str, console: Console, *, owner: bool) -> int:
    """Relays the terminal. The owner's terminal going away stops the bottle; another's does not."""
    from bot_bottle.operate.attach import attach

    code = attach(run_path, owner=owner)
    if code is None:
        console.say(f"bot-bottle: {run_id} goes on; bot-bottle attach {run_id} comes back to it")
        return 0
    console.say(f"bot-bottle: {run_id} ended, exit code {code}")
    return code
