"""Print the JSON Schema of a bottle's or agent's front matter, or of operator.yaml, for editors."""

import argparse

from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("bottle", "agent", "operator"), help="which kind of file")


def run(options: argparse.Namespace, console: Console) -> int:
    """Prints the schema; it is JSON with and without `--json`."""
    if options.kind == "operator":
        from bot_bottle.host.operator import SCHEMA

        console.json(SCHEMA)
        return 0
    from bot_bottle.manifest.schema import json_schema

    console.json(json_schema(options.kind))
    return 0
