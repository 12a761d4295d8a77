"""Check bottle and agent files (and operator.yaml), and list everything that is wrong with them."""

import argparse

from bot_bottle.cli.console import Console
from bot_bottle.errors import ManifestError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="bottles or agents to check (default: all)")


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints each file with `ok` or its problems; raises ManifestError when any has one."""
    import os

    from bot_bottle.host import operator, paths
    from bot_bottle.manifest.check import Checked, check_all
    from bot_bottle.manifest.places import find_repository

    try:
        repository = find_repository(os.getcwd())
    except FileNotFoundError:
        repository = None  # the current folder is gone; the files of the home are there all the same
    checked = check_all(root=paths.manifest_root(), repository=repository, names=options.names)
    if not options.names and os.path.lexists(operator.file()):
        checked.append(Checked("operator", operator.FILE, operator.file(), operator.problems()))
    if console.as_json:
        console.json([{**one._asdict(), "ok": not one.problems} for one in checked])
    else:
        width = max((len(one.name) for one in checked), default=0)
        for one in checked:
            mark = "WRONG" if one.problems else "ok"
            console.data(f"{mark:7}{one.kind:8}{one.name:{width}}  {one.file}")
            for problem in one.problems:
                console.data(f"{'':7}{problem}")
    wrong = sum(bool(one.problems) for one in checked)
    if wrong:
        raise ManifestError(
            f"{wrong} of {len(checked)} file{'s' * (len(checked) != 1)} {'is' if wrong == 1 else 'are'} wrong",
            resolution="Correct the lines above.",
        )
    if not checked:
        console.say("There is no bottle and no agent yet; `bot-bottle init` writes a first one of each.")
    return 0
