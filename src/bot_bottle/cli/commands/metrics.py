"""Print what bottles do in Prometheus's text format: of one, or of all that run.

Each running bottle also answers /metrics and /health over HTTP on a unix socket of its own, never on its door; --socket says
where. Try: curl --unix-socket "$(bot-bottle metrics --socket BOTTLE)" http://bottle/metrics
"""

import argparse

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser, nargs="?", more="; without it: all that run")
    parser.add_argument("--socket", action="store_true", help="print where the bottle's own socket is")


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import traffic

    if options.socket and not options.bottle:
        raise UsageError("No bottle was named", resolution="Every bottle has a socket of its own; name one.")
    if options.socket:
        where = traffic.metrics_socket(options.bottle)
        if console.as_json:
            console.json({"socket": where})
        else:
            console.data(where)
        return 0
    text = traffic.metrics(options.bottle)
    if console.as_json:
        console.json({"metrics": text})
    elif text:
        console.data(text.rstrip("\n"))
    return 0
