"""Put what a run changed in its copy into the workspace it was copied from."""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.commands.diff import as_data, show_flagged, stat_lines
from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle.operate.changes import Changes


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser)
    parser.add_argument(
        "--check", action="store_true", help="only say whether the changes fit; change nothing"
    )
    parser.add_argument("--yes", "-y", action="store_true", help="apply flagged files without asking")


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import record
    from bot_bottle.operate.changes import apply, compute

    store = record.existing_store()
    found = record.find_run(store, options.bottle)
    assert store is not None
    store.close()
    changes = compute(found)
    if not options.check and not _agreed(changes, console, yes=options.yes):
        console.say("Nothing was changed.")
        return 1
    # What was shown is what is applied, even if the agent goes on meanwhile.
    apply(found, changes=changes, check_only=options.check)
    if console.as_json:
        console.json({"run": found.id, "applied": not options.check, **as_data(changes)})
    elif not changes.files:
        console.say(f"{found.id} changed nothing.")
    else:
        console.data("\n".join(stat_lines(changes)))
        console.say("The changes fit." if options.check else f"Applied to {found.workspace}.")
    return 0


def _agreed(changes: "Changes", console: Console, *, yes: bool) -> bool:
    """Whether to go on: flagged files need a yes, at the terminal or on the command line."""
    from bot_bottle.operate.text import path_text

    if not changes.flagged:
        return True
    if not yes and not console.can_ask:
        listed = "\n".join(f"{path_text(flag.path)}: {flag.reason}" for flag in changes.flagged)
        raise UsageError(
            "Some of the changes do something on this machine later",
            details=listed,
            resolution="Look at them with bot-bottle diff, then apply with --yes.",
        )
    show_flagged(changes, console)
    return yes or console.confirm(f"Apply all {len(changes.files)} files, these included?")
