"""Show what the agent printed."""

import argparse
import codecs

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser)
    parser.add_argument("--follow", "-f", action="store_true", help="go on until the bottle has ended")
    parser.add_argument(
        "--raw", action="store_true", help="control characters as they are, on a terminal, too"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    import json

    from bot_bottle.operate import record
    from bot_bottle.operate.text import visible

    clean = console.on_terminal and not options.raw and not console.as_json
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    store = record.existing_store()
    found = record.find_run(store, options.bottle)
    assert store is not None
    with store:
        until = (lambda: record.has_ended(store, found.id)) if options.follow else None
        try:
            for block in record.log_blocks(found, until=until):
                if console.as_json:
                    line = json.dumps({"run": found.id, "output": decoder.decode(block)})
                    console.data(line, ours=True)
                    continue
                text = visible(decoder.decode(block).replace("\r\n", "\n"), keep="\n\t") if clean else ""
                console.raw(text.encode() if clean else block)
        except KeyboardInterrupt:
            return 0 if options.follow else 130
    return 0
