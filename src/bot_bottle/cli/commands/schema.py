"""Print the JSON Schema of a file's front matter, for editors."""

import argparse

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("bottle", "agent"), help="which kind of file")


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints the schema; it is JSON with and without `--json`."""
    from bot_bottle.manifest.schema import json_schema

    console.json(json_schema(options.kind))
    return 0
