"""Remove what dead bottles left: processes, folders, unfinished records. Runs by itself at every start, too."""

import argparse

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    """How far."""
    parser.add_argument(
        "--forget",
        action="store_true",
        help="also forget the runs that ended: their logs and saved changes; the record of events stays",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Does it and says what it removed."""
    from bot_bottle.operate.runs import cleanup

    removed = cleanup(forget=options.forget)
    if console.as_json:
        console.json({"removed": removed})
    else:
        for line in removed:
            console.data(line)
        if not removed:
            console.say("There was nothing to remove.")
    return 0
