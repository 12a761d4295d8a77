"""Stop a bottle in order: the agent is asked, then told, then killed; then everything is put away."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottles, and how."""
    common.bottle(parser, "runs", nargs="+")
    parser.add_argument("--now", action="store_true", help="kill the agent at once")


def run(options: argparse.Namespace, console: Console) -> int:
    """Stops each and says how it ended."""
    from bot_bottle.operate.runs import find, stop

    runs = [find(name).id for name in options.runs]  # all of them are there, or none is stopped
    ended = [{"id": run_id, "exit_code": stop(run_id, now=options.now)} for run_id in runs]
    if console.as_json:
        console.json(ended)
    else:
        for item in ended:
            console.say(f"{item['id']} stopped, exit code {item['exit_code']}")
    return 0
