"""How each of the gate's processes begins: told by its keeper, without root's rights, bounded, and gone when the keeper is."""

import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from bot_bottle.bundle import confine, linux
from bot_bottle.bundle.gitgate.line import LONGEST, Line

FILES_AT_ONCE = 1024
Body = Callable[[Mapping[str, Any], Line], None]


def run(keeper: int, body: Body) -> NoReturn:
    """Reads the order from the descriptor `keeper`, becomes who it says, and does `body(order, line)`; ends the process."""
    sock = socket.socket(fileno=keeper)
    try:
        order = _told(sock)
        _settle(order)
        body(order, Line(sock))
    except BaseException as error:  # noqa: BLE001 - the end of the process: whatever it was, nothing is served any more
        _say_failed(sock, error)
    finally:
        os._exit(1)


def _told(sock: socket.socket) -> Mapping[str, Any]:
    sock.setblocking(True)
    heard = bytearray()
    while not heard.endswith(b"\n"):  # byte by byte at the end: what follows is the line's
        data = sock.recv(65536, socket.MSG_PEEK)
        if not data or len(heard) > LONGEST:
            os._exit(0)
        heard += sock.recv(data.find(b"\n") + 1 or len(data))
    order: Mapping[str, Any] = json.loads(heard)
    return order


def _settle(order: Mapping[str, Any]) -> None:
    confine.limit_process(FILES_AT_ONCE)
    if order["memory"]:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = order["memory"] if hard == resource.RLIM_INFINITY else min(order["memory"], hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    if order["uid"]:
        confine.drop_root(order["uid"], order["gid"])
    os.umask(0o022)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # forgotten by the kernel when the user changed
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _say_failed(sock: socket.socket, error: BaseException) -> None:
    try:
        sock.settimeout(1.0)
        sock.sendall(json.dumps({"failed": f"{type(error).__name__}: {error}"[:1000]}).encode() + b"\n")
    except OSError:
        return
