"""Carrying open listeners from the bottle's namespace to the bundle, in one message over a unix socket."""

import array
import os
import select
import socket
from collections.abc import Sequence

MAX_LISTENERS = 64
_MESSAGE = b"door"


def send_listeners(channel: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Sends `sockets`, in order, in one message; the sender still closes its own. Raises OSError."""
    if not 0 < len(sockets) <= MAX_LISTENERS:
        raise OSError(f"{len(sockets)} listeners can't be passed in one message")
    numbers = array.array("i", [sock.fileno() for sock in sockets])
    channel.sendmsg([_MESSAGE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


def receive_listeners(channel: socket.socket, count: int, timeout: float | None) -> list[socket.socket]:
    """The `count` listeners that were sent over `channel`, non-blocking and not inherited by programs.

    Raises OSError when none came within `timeout` seconds, or not exactly `count`; then no descriptor stays behind.
    """
    waiting = select.poll()
    waiting.register(channel, select.POLLIN)
    if not waiting.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError(f"the door's listeners did not come within {timeout} s")
    room = socket.CMSG_SPACE(MAX_LISTENERS * array.array("i").itemsize)
    message, ancillary, flags, _ = channel.recvmsg(len(_MESSAGE), room, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    whole = message == _MESSAGE and not flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC)
    if not whole or len(numbers) != count:
        for number in numbers:
            os.close(number)
        raise OSError(f"{len(numbers)} of {count} listeners came through the door")
    return _adopt(numbers)


def _adopt(numbers: "array.array[int]") -> list[socket.socket]:
    """The descriptors as sockets; when one is no socket, all are closed and OSError is raised."""
    adopted: list[socket.socket] = []
    try:
        for number in numbers:
            adopted.append(socket.socket(fileno=number))
            adopted[-1].setblocking(False)
    except OSError:
        for number in numbers[len(adopted) :]:
            os.close(number)
        for sock in adopted:
            sock.close()
        raise
    return adopted
