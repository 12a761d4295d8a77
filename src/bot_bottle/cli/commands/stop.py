"""Stop a bottle in order: the agent is asked, then told, then killed; then everything is put away."""

import argparse

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottles, and how."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="BOTTLE",
        help="a run's id, the start of one, or the agent's name if it runs once",
    )
    parser.add_argument("--now", action="store_true", help="kill it at once")


def run(options: argparse.Namespace, console: Console) -> int:
    """Stops each and says how it ended."""
    from bot_bottle.operate.runs import stop

    ended = [{"id": name, "exit_code": stop(name, now=options.now)} for name in options.runs]
    if console.as_json:
        console.json(ended)
    else:
        for item in ended:
            console.say(f"bot-bottle: {item['id']} stopped, exit code {item['exit_code']}")
    return 0
