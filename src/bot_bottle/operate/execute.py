"""Running a command in a bottle that another process keeps."""

import os
import pty
import selectors
import socket
import struct
import termios
from fcntl import ioctl
from typing import Any

from bot_bottle.host import terminal
from bot_bottle.launch import control
from bot_bottle.operate.runs import find, wait_for_exit


def execute(name: str, argv: tuple[str, ...], *, cwd: str) -> int:
    """Runs `argv` with this process's own streams and the agent's environment; its exit code."""
    with control.connect(find(name).run_path, _hello(argv, cwd=cwd), (0, 1, 2)) as client:
        return wait_for_exit(client)


def execute_on_terminal(name: str, argv: tuple[str, ...], *, cwd: str) -> int:
    """Runs `argv` on a terminal of its own that is relayed to the operator's; its exit code."""
    record = find(name)
    master, slave = pty.openpty()
    _resize(master)
    kind = os.environ.get("TERM", "xterm-256color")
    with control.connect(record.run_path, _hello(argv, cwd=cwd, term=kind), (slave, slave, slave)) as client:
        os.close(slave)
        with terminal.raw(), terminal.resized() as changed:
            return _relay(client, master, changed)


def _hello(argv: tuple[str, ...], *, cwd: str, term: str = "") -> dict[str, Any]:
    return {
        "want": "exec",
        "argv": list(argv),
        "cwd": cwd,
        "tty": bool(term),
        "env": {"TERM": term} if term else {},
    }


def _resize(master: int) -> None:
    ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *terminal.size(), 0, 0))


def _relay(client: socket.socket, master: int, changed: int) -> int:
    selector = selectors.DefaultSelector()
    for source in (client, master, changed, 0):
        selector.register(source, selectors.EVENT_READ)
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if changed in ready:
            os.read(changed, 64)
            _resize(master)
        if 0 in ready and not _carry(0, master):
            selector.unregister(0)
        if master in ready and not _carry(master, 1):
            selector.unregister(master)
        elif client in ready and master not in ready:
            return wait_for_exit(client)


def _carry(reading: int, writing: int) -> bool:
    """One piece from one to the other; False at the end (EIO: nobody has the terminal open any more, pty(7))."""
    try:
        data = os.read(reading, 65536)
    except OSError:
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(writing, view) :]
    return bool(data)
