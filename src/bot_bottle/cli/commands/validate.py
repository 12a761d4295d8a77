"""`bot-bottle validate [NAME …]`: checks bottle and agent files, and lists everything that is wrong."""

import argparse

from bot_bottle.cli.console import Console
from bot_bottle.errors import ManifestError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="bottles or agents to check (default: all)")


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints each file with `ok` or its problems; raises ManifestError when any has one."""
    import os

    from bot_bottle.host import paths
    from bot_bottle.manifest.check import check_all
    from bot_bottle.manifest.places import find_repository

    checked = check_all(
        root=paths.manifest_root(), repository=find_repository(os.getcwd()), names=options.names
    )
    if console.as_json:
        console.json([{**one._asdict(), "ok": not one.problems} for one in checked])
    else:
        for one in checked:
            console.data(f"{'wrong' if one.problems else 'ok   '}  {one.kind:6}  {one.name}  {one.file}")
            for problem in one.problems:
                console.data(f"       {problem}")
    wrong = sum(bool(one.problems) for one in checked)
    if wrong:
        raise ManifestError(
            f"{wrong} of {len(checked)} files {'is' if wrong == 1 else 'are'} wrong",
            resolution="Correct the lines above.",
        )
    if not checked:
        console.say("There is no bottle and no agent yet; `bot-bottle init` writes a first one of each.")
    return 0
