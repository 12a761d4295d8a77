"""Relaying the operator's terminal to a bottle that another process keeps, and back."""

import json
import os
import selectors
import socket
import struct
from typing import NamedTuple

from bot_bottle.errors import SandboxError
from bot_bottle.host import terminal
from bot_bottle.launch import control

DETACH = b"\x1d"
"""Ctrl-] (telnet's), alone: leaves the bottle running and gives the terminal back."""


class Ended(NamedTuple):
    """The agent's exit code, and what the person should know."""

    code: int
    warnings: list[str]


def attach(run_path: str, *, owner: bool) -> Ended | None:
    """Relays until the agent ends, or the operator leaves with Ctrl-] (None).

    The owner's terminal going away stops the bottle. Without a terminal, only the output is relayed.
    """
    rows, columns = terminal.size()
    hello = {"want": "attach", "owner": owner, "rows": rows, "columns": columns}
    with control.connect(run_path, hello) as client:
        if not terminal.is_interactive():
            return _relay(client, None)
        with terminal.raw(), terminal.resized() as changed:
            return _relay(client, changed)


def _relay(client: socket.socket, changed: int | None) -> Ended | None:
    frames = control.Frames()
    selector = selectors.DefaultSelector()
    selector.register(client, selectors.EVENT_READ, "keeper")
    if changed is not None:
        selector.register(0, selectors.EVENT_READ, "keys")
        selector.register(changed, selectors.EVENT_READ, "size")
    while True:
        for key, _ in selector.select():
            if key.data == "size" and changed is not None:
                os.read(changed, 64)
                client.sendall(control.frame(control.RESIZE, struct.pack("!HH", *terminal.size())))
            elif key.data == "keys":
                typed = os.read(0, 4096)
                if not typed:
                    selector.unregister(0)
                elif typed == DETACH:
                    client.sendall(control.frame(control.LEAVE))
                    return None
                else:
                    client.sendall(control.frame(control.INPUT, typed))
            elif key.data == "keeper":
                try:
                    data = client.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    raise SandboxError(
                        "The bottle's keeper went away", resolution="bot-bottle cleanup removes what it left."
                    )
                for kind, payload in frames.feed(data):
                    if kind == control.OUTPUT:
                        terminal.write(payload)
                    elif kind == control.EXIT:
                        said = json.loads(payload)
                        return Ended(int(said["code"]), [str(line) for line in said.get("warnings", [])])
                    elif kind == control.ERROR:
                        raise SandboxError("The bottle refused", details=json.loads(payload)["brief"])
