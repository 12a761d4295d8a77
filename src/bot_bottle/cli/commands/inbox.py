"""See what agents ask for, live, and decide it: in the terminal, or with --web in a browser on this machine.

While it is open, agents that ask are told that somebody is there.
"""

import sys

from bot_bottle.cli.console import Console
from bot_bottle.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def arguments(parser: "argparse.ArgumentParser") -> None:
    parser.add_argument("--web", action="store_true", help="as a page in a browser, on loopback")
    parser.add_argument("--once", action="store_true", help="close it when all that waited is decided")
    parser.add_argument("--port", type=int, metavar="PORT", help="the page's port; default: a free one")
    parser.add_argument("--open", action="store_true", help="open the page in a browser at once")


def run(options: "argparse.Namespace", console: Console) -> int:
    if options.port is not None and not options.web:
        raise UsageError("--port is the page's", resolution="bot-bottle inbox --web --port PORT")
    if options.open and not options.web:
        raise UsageError("--open is the page's", resolution="bot-bottle inbox --web --open")
    if options.port is not None and not 0 < options.port < 65536:
        raise UsageError(f"{options.port} is no port", resolution="Give one from 1 to 65535.")
    if options.web and options.once:
        raise UsageError("--once is the terminal's", resolution="bot-bottle inbox --once")
    if options.web:
        return _web(options.port or 0, console, browse=options.open)
    if console.as_json:
        raise UsageError("An inbox is no data", resolution="bot-bottle approvals list --json")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "An inbox needs a terminal, and this is none",
            resolution="Scripts take `bot-bottle approvals list`; `bot-bottle inbox --web` opens a page in a browser.",
        )
    from bot_bottle.operate.approvals import Approvals
    from bot_bottle.tui.app import run

    run(Approvals.open, once=options.once)
    return 0


def _web(port: int, console: Console, *, browse: bool) -> int:
    from bot_bottle.operate.approvals import Approvals
    from bot_bottle.web import serve

    serve(Approvals.open, announce=console.warn, port=port, browse=browse)
    return 0
