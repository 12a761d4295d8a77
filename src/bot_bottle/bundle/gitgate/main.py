"""The process that the agent's git talks to: its listener, its line to the courier, and nothing else to give away.

It has no network, no credential and no way to the store. It sees the bottle's own mirrors, which it can't write, and a folder where
what is pushed stands until it is decided. `docs/git-gate.md` says what is said on its lines.
"""

import os
import socket
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

from bot_bottle.bundle.gitgate import worker
from bot_bottle.bundle.gitgate.line import Line


def serve(keeper: int, courier: int, listener: int) -> NoReturn:
    """Serves on the descriptor `listener`; ends the process."""

    def body(order: Mapping[str, Any], line: Line) -> None:
        from bot_bottle.bundle.gitgate.front import Front

        asking = Line(socket.socket(fileno=courier))
        threading.Thread(target=_until_it_ends, args=(asking,), daemon=True).start()
        threading.Thread(target=_until_it_ends, args=(line,), daemon=True).start()
        front = Front(socket.socket(fileno=listener), asking, order["remotes"], idle=order["idle"])
        line.send({"ready": True})
        front.serve()
        line.send({"idle": True})
        os._exit(0)

    worker.run(keeper, body)


def _until_it_ends(line: Line) -> None:
    """Hears answers; without the keeper, or without the courier, there is nothing to serve."""
    for _ in line.messages():
        pass
    os._exit(0)
