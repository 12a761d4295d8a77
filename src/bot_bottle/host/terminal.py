"""The operator's terminal while it is lent to a bottle: raw, resized, and given back whatever happens."""

import contextlib
import fcntl
import os
import signal
import struct
import sys
import termios
import tty
from collections.abc import Iterator

RESET = b"\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m"
"""Leaves the alternate screen, mouse and paste modes that the agent may have left on (xterm's ctlseqs)."""


def size() -> tuple[int, int]:
    """Rows and columns of the operator's terminal; 24 by 80 when there is none."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 24, 80
    return rows or 24, columns or 80


@contextlib.contextmanager
def raw() -> Iterator[None]:
    """The terminal in raw mode until the end."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.write(1, RESET)


@contextlib.contextmanager
def resized() -> Iterator[int]:
    """A descriptor that becomes readable when the terminal's size changes."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: os.write(writing, b"!"))
    try:
        yield reading
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(reading)
        os.close(writing)


def write(data: bytes) -> None:
    """All of `data` to stdout."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def is_interactive() -> bool:
    """Whether both ends are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
