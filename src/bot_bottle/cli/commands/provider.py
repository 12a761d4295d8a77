"""Install agent tools, and list them."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `list` and `install`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show every provider and what of it is installed")
    listing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="data as JSON")
    installing = actions.add_parser(
        "install", help="fetch a provider's tool: pinned, checked by its hash, cached"
    )
    installing.add_argument("name", metavar="PROVIDER", help="which tool: claude, codex, gemini, opencode")
    installing.add_argument(
        "--version", metavar="X.Y.Z", help="another version than the pinned one; its hash is npm's word alone"
    )
    installing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="data as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Does what was asked; errors are raised."""
    return _install(options, console) if options.action == "install" else _list(console)


def _list(console: Console) -> int:
    from bot_bottle.operate.providers import list_providers

    listed = list_providers()
    if console.as_json:
        console.json([one._asdict() for one in listed])
        return 0
    rows = [
        (one.name, "-" if not one.pinned else one.current or "not installed", one.pinned or "-", one.summary)
        for one in listed
    ]
    console.table(("PROVIDER", "INSTALLED", "PINNED", "WHAT"), rows)
    return 0


def _install(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate.providers import install_provider

    with _progress(console) as report:
        done = install_provider(options.name, version=options.version, report=report)
    if console.as_json:
        console.json(done._asdict())
        return 0
    what = "installed" if done.fetched else "is already installed"
    console.say(f"{done.tool} {done.version} {what}: {done.program}")
    if done.fetched and not done.recorded:
        console.warn(
            f"this version's hash is not recorded in bot-bottle; npm stated it and it fits: {done.integrity}"
        )
    return 0


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A spinner with what is being done on a terminal; a line for each step elsewhere."""
    if console.quiet or not sys.stderr.isatty():
        yield console.say
        return
    from rich.console import Console as Terminal
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Terminal(stderr=True), transient=True) as shown:
        task = shown.add_task("Starting")
        yield lambda step: shown.update(task, description=step)
