"""Show the least policy that would have let a run work, as a change of its bottle's file.

A bottle with `egress: {mode: observe}` lets through what no route allows, and records it. Of any run, what was refused is offered
as comments.
"""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.commands.diff import coloured
from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser)
    parser.add_argument(
        "--write", action="store_true", help="write it, and switch the bottle back to enforce; asks first"
    )
    parser.add_argument("--yes", "-y", action="store_true", help="write without asking")


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import learn

    found = learn.learn(options.bottle)
    change = learn.diff(found)
    for line in found.needs.warnings:
        console.warn(line)
    written = False
    if options.write and change:
        if not console.as_json:
            _show(change, console)
        if not options.yes and not console.can_ask:
            raise UsageError("Nobody is there to say yes", resolution="Look at the change, then add --yes.")
        written = options.yes or console.confirm(f"Write this to {found.file}?")
        if written:
            learn.write(found)
    if console.as_json:
        refused = [{"route": learn.lines([route])[0], "times": times} for route, times in found.needs.refused]
        console.json(
            {"run": found.run, "file": found.file, "observing": found.observing, "written": written,
             "routes": learn.lines(found.needs.routes), "refused": refused, "diff": change,
             "warnings": found.needs.warnings}
        )  # fmt: skip
    elif not change:
        console.say(f"{found.run} needed nothing that {found.file} does not allow.")
    elif not options.write:
        _show(change, console)
    else:
        console.say(f"Written to {found.file}." if written else "Nothing was written.")
    return 0 if written or not (options.write and change) else 1


def _show(change: str, console: Console) -> None:
    if console.on_terminal:
        console.data(coloured(change.encode()), ours=True)
    else:
        console.data(change.rstrip("\n"))
