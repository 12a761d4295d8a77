"""Run a command inside a running bottle, confined as the agent is. The command stands after --."""

import argparse
import sys

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError

TAKES_TAIL = "COMMAND ..."


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bottle; the command stands after --."""
    common.bottle(parser, "run")
    parser.add_argument(
        "--tty", "-t", action="store_true", help="give the command a terminal (default when there is one)"
    )
    parser.add_argument("--no-tty", "-T", action="store_true", help="give it none")
    parser.add_argument(
        "--cwd", default="/workspace", metavar="DIR", help="where it runs (default: /workspace)"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Runs it and gives its exit code."""
    from bot_bottle.operate.execute import execute, execute_on_terminal

    if not options.tail:
        raise UsageError(
            "No command was given",
            resolution="Write it after --: bot-bottle exec BOTTLE -- COMMAND ARGUMENT ...",
        )
    there = sys.stdin.isatty() and sys.stdout.isatty()
    if options.tty and not there:
        raise UsageError("There is no terminal to give", resolution="Leave --tty out.")
    if there and not options.no_tty:
        return execute_on_terminal(options.run, options.tail, cwd=options.cwd)
    return execute(options.run, options.tail, cwd=options.cwd)
