"""The keeper's side of `inside/deputy.c`: the one connection that it makes, and the messages on it.

A message is five numbers (32 bit, little-endian) and a text. What comes from the machine is hostile: it is three kinds of numbers,
and everything else ends the connection.
"""

import base64
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping

from bot_bottle.backends.attached import Attached, There
from bot_bottle.backends.mux import Codec
from bot_bottle.errors import HostError, SandboxError
from bot_bottle.host import files, spawn
from bot_bottle.typed import Any

_NUMBERS = struct.Struct("<5I")
_CHANNELS = struct.Struct("<3Hxx")
_LETTERS = {"begin": "b", "filter": "f", "spawn": "s", "write": "w", "signal": "k", "size": "z"}
_BLOCK = 64 * 1024
_KILLED = 128 + 9


def program(machine: str = "") -> str:
    """Where the deputy for `machine` (default: this one) is. Raises HostError when there is none."""
    path = files.beside(__file__, f"inside/deputy.{machine or os.uname().machine}")
    if not os.path.isfile(path):
        raise HostError(f"There is no deputy for this machine ({machine or os.uname().machine})")
    return path


def said(text: bytes) -> str:
    """`text` as an order carries it."""
    return base64.b64encode(text).decode()


def pack(order: Mapping[str, Any]) -> bytes:
    """`order` as the deputy reads it."""
    number, value, more = order.get("number", 0), order.get("value", 0), order.get("more", 0)
    text = base64.b64decode(order.get("text", ""))
    does = order["do"]
    if does == "spawn":
        rows, columns = order.get("size", (0, 0))
        value, more = int(order["tty"]), rows << 16 | columns
        text = _CHANNELS.pack(*(*order["channels"], 0, 0)[:3]) + text
    elif does == "signal":
        value = order["signal"]
    elif does == "size":
        number, (value, more) = order["channel"], order["size"]
    return _NUMBERS.pack(ord(_LETTERS[does]), order.get("id", 0), number, value, more) + text


def unpack(text: bytes) -> dict[str, Any]:
    """What the deputy said. Raises ValueError for what it never says."""
    if len(text) != _NUMBERS.size:
        raise ValueError("a message that is none")
    kind, ask, number, value, more = _NUMBERS.unpack(text)
    if kind == ord("a"):
        return {"re": ask, "failed": value, "more": more}
    if kind == ord("e"):
        return {"ended": number, "code": _code(value)}
    if kind == ord("u"):
        return {"up": True}
    raise ValueError("a message that is none")


def _code(status: int) -> int:
    try:
        code = os.waitstatus_to_exitcode(status & 0xFFFF)
    except ValueError:
        return _KILLED
    return code if code >= 0 else 128 - code


CODEC = Codec(pack, unpack)


class _Connection:
    """The connection as `attached.Wire`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.words = b""

    def sources(self) -> tuple[int, int]:
        return self._sock.fileno(), self._sock.fileno()

    def read(self) -> bytes:
        try:
            return self._sock.recv(_BLOCK)
        except ConnectionError:
            return b""

    def write(self, data: bytes) -> int:
        return self._sock.send(data, socket.MSG_NOSIGNAL)

    def begin(self) -> None:
        self._sock.setblocking(False)

    def give_up(self) -> None:
        self._sock.close()


def attach(
    connection: socket.socket,
    orphaned: Callable[[], object] = spawn.nothing,
    keeps: tuple[int, ...] = (),
    parts: tuple[tuple[int, str], ...] = (),
) -> Attached:
    """The deputy at the other end of `connection`, which is carried from now on (see `attached.There`)."""
    return Attached(_Connection(connection), There("The bottle's machine", CODEC, orphaned, keeps, parts))


def machine_of(connection: socket.socket) -> int:
    """A descriptor (pidfd_open(2)) of the process that made `connection`: the machine itself. Raises SandboxError.

    The kernel says which it is (SO_PEERCRED, unix(7)). One that had ended, and whose number another might have by now, has
    ended its connection, too.
    """
    number, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        process = os.pidfd_open(number)
    except OSError as error:
        raise SandboxError("The bottle's machine has ended", details=str(error)) from error
    polled = select.poll()
    polled.register(connection, select.POLLRDHUP)
    if polled.poll(0):
        os.close(process)
        raise SandboxError("The bottle's machine has ended")
    return process


class Waiting:
    """The socket that is mounted into the machine; good for one connection, which is made before the agent is there."""

    def __init__(self, path: str) -> None:
        """Raises HostError."""
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.bind(path)
            os.chmod(path, 0o600)
            self._sock.listen(1)
        except OSError as error:
            self._sock.close()
            raise HostError("The bottle's line can't be made", details=f"{path}: {error}") from error

    def take(self, patience: float) -> socket.socket:
        """The connection; nobody else can make one. Raises SandboxError."""
        try:
            if not spawn.readable(self._sock.fileno(), patience):
                raise SandboxError(f"The bottle's machine did not answer within {patience:.0f} s")
            return self._sock.accept()[0]
        finally:
            self.close()

    def close(self) -> None:
        """Idempotent."""
        self._sock.close()
        if os.path.lexists(self._path):
            os.unlink(self._path)
