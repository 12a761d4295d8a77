"""Change what a stopped bottle may use, from when it is gone on with. Its file stays as it is."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottle, and its limits."""
    common.bottle(parser, more="; it was stopped with --keep")
    parser.add_argument("--memory", metavar="SIZE", help="such as 4GiB")
    parser.add_argument("--cpus", metavar="NUMBER", help="cores, such as 2")
    parser.add_argument(
        "--disk", metavar="SIZE", help="of everything written outside the workspace, such as 8GiB"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Puts them down and says which hold then."""
    from bot_bottle.operate.branches import resize

    given = {
        name: value for name in ("memory", "cpus", "disk") if (value := getattr(options, name)) is not None
    }
    if not given:
        raise UsageError("There is nothing to change", resolution="Name --memory, --cpus or --disk.")
    now = resize(options.bottle, given)
    if console.as_json:
        console.json({"resources": now})
    else:
        console.say(f"From its next start: {', '.join(f'{name} {value:g}' for name, value in now.items())}")
    return 0
