"""Stop a bottle in order: the agent is asked, then told, then killed; then everything is put away."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottles, and how."""
    common.bottle(parser, "runs", nargs="+")
    parser.add_argument("--now", action="store_true", help="kill the agent at once")
    parser.add_argument(
        "--keep", action="store_true", help="keep its files: bot-bottle start BOTTLE goes on with them"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Stops each and says how it ended."""
    from bot_bottle.operate.runs import find, stop

    runs = [find(name).id for name in options.runs]  # all of them are there, or none is stopped
    ended = [{"id": run_id, "exit_code": stop(run_id, now=options.now, keep=options.keep)} for run_id in runs]
    if console.as_json:
        console.json(ended)
    else:
        for item in ended:
            more = f"; bot-bottle start {item['id']} goes on with it" if options.keep else ""
            console.say(f"{item['id']} stopped, exit code {item['exit_code']}{more}")
    return 0
