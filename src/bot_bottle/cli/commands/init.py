"""Write a first bottle and a first agent to ~/.bot-bottle."""

import argparse

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="replace files that are there, keeping them as NAME.md.bak"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Says for each file whether it was written or was there already."""
    from bot_bottle.host import paths
    from bot_bottle.operate.scaffold import scaffold
    from bot_bottle.providers.place import locate

    written = scaffold(root=paths.manifest_root(), force=options.force)
    if console.as_json:
        console.json([one._asdict() for one in written])
        return 0
    for one in written:
        console.data(f"{one.outcome:8}  {one.file}")
    if any(one.outcome == "kept" for one in written):
        console.say("What was there already was not touched; `--force` replaces it.")
    if not locate(paths.data_root(), "claude"):
        console.say("Next: bot-bottle provider install claude")
    console.say("Then, in a repository: export ANTHROPIC_API_KEY=… && bot-bottle start claude")
    return 0
