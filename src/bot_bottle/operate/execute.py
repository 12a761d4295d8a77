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

_LARGEST_PIPE = 1 << 20
"""Bytes that a pipe can hold at most for a user without rights (pipe(7))."""


def execute(name: str, argv: tuple[str, ...], *, cwd: str) -> int:
    """Runs `argv` with this process's own streams and the agent's environment; its exit code.

    Inside are pipes of ours, never the streams themselves: whoever holds a descriptor of a file can open that anew for
    writing (/proc/self/fd), and a terminal can be read and written for as long as anybody in the bottle keeps it.
    """
    record = find(name)
    stdin, feed = os.pipe()
    out, stdout = os.pipe()
    err, stderr = os.pipe()
    theirs = (stdin, stdout, stderr)
    with control.connect(record.run_path, _hello(argv, cwd=cwd), theirs) as client:
        for descriptor in theirs:
            os.close(descriptor)
        return _relay_pipes(client, feed, {out: 1, err: 2})


def _relay_pipes(client: socket.socket, feed: int, outputs: dict[int, int]) -> int:
    """Until the command has ended. What it leaves running must not keep us: then only what is in the pipes is carried."""
    selector = selectors.PollSelector()  # epoll takes no files
    selector.register(client, selectors.EVENT_READ)
    for source in (0, *outputs):
        selector.register(source, selectors.EVENT_READ)
    os.set_blocking(feed, False)
    waiting = b""
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        for source in set(outputs).intersection(ready):
            if not _carry(source, outputs[source]):
                selector.unregister(source)
        if client in ready:
            code = wait_for_exit(client)
            for source in set(outputs).intersection(selector.get_map()):
                _carry_rest(source, outputs[source])
            return code
        if 0 in ready:
            waiting = _read(0)
            selector.unregister(0)
            if waiting:
                selector.register(feed, selectors.EVENT_WRITE)
            else:
                os.close(feed)
        elif feed in ready:
            try:
                waiting = waiting[os.write(feed, waiting) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:  # the command reads no more
                selector.unregister(feed)
                continue
            if not waiting:
                selector.unregister(feed)
                selector.register(0, selectors.EVENT_READ)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def _carry_rest(reading: int, writing: int) -> None:
    os.set_blocking(reading, False)
    for _ in range(_LARGEST_PIPE // 65536):
        if not _carry(reading, writing):
            return


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
