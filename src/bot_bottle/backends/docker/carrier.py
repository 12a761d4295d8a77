"""The process that carries what goes over a container's attached stream, and dies with its keeper: it does nothing else.

The keeper asks over a socket, along which it also gives the descriptors that are to be carried; the deputy's answers come back.
"""

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import struct
import termios
import tty
from typing import Any, NamedTuple

from bot_bottle.backends.docker.mux import Mux, is_socket

HEAD = struct.Struct("!I")
"""Before each order of the keeper's: its length."""
CODE = struct.Struct("!i")
"""What is said of a process that has ended."""
KILLED = 128 + 9
_MOST_ENDS = 4
_LOOK = 0.25
"""Seconds between looks at the size of terminals."""


class Hijacked:
    """The container's standard streams as `mux.Stream`: the engine packs what comes out of it, not what goes in."""

    def __init__(self, sock: socket.socket, rest: bytes) -> None:
        self._sock = sock
        self._packed = rest
        self._left = 0
        self._is_output = True
        self.words = b""
        """The end of what the container said on its standard error."""

    def sources(self) -> tuple[int, int]:
        return self._sock.fileno(), self._sock.fileno()

    def read(self) -> bytes:
        data = self._receive()
        ended = not data
        self._packed += data
        taken = b""
        while self._packed:
            if not self._left:
                if len(self._packed) < 8:
                    break
                kind, self._left = struct.unpack_from(">BxxxL", self._packed)
                self._is_output, self._packed = kind == 1, self._packed[8:]
            part, self._packed = self._packed[: self._left], self._packed[self._left :]
            self._left -= len(part)
            if self._is_output:
                taken += part
            else:
                self.words = (self.words + part)[-2000:]
        if not taken and not ended:
            raise BlockingIOError
        return taken

    def _receive(self) -> bytes:
        try:
            data = self._sock.recv(65536)
            while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                data += self._sock.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except ConnectionError:
            return b""
        return data

    def write(self, data: bytes) -> int:
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def begin(self) -> None:
        self._sock.setblocking(False)


class _Report(NamedTuple):
    """A process whose end is to be said on `sock`, when all that it wrote has been passed on."""

    sock: socket.socket
    channels: tuple[int, ...]


class Carrier:
    def __init__(self, stream: Hijacked, line: socket.socket) -> None:
        self._stream = stream
        self._line = line
        self._mux = Mux(stream, self._answered)
        self._asked = b""
        self._given: list[int] = []
        self._reports: dict[int, _Report] = {}
        self._ended: dict[int, int] = {}
        self._terminals: dict[int, tuple[int, int]] = {}

    def run(self) -> None:
        """Carries until the container or the keeper ends."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.setsid()
        self._stream.begin()
        self._mux.watch(self._line.fileno(), self._take)
        try:
            self._mux.run(tick=self._tick)
        except (OSError, ValueError) as error:
            self._stream.words = self._stream.words or str(error).encode()
        for number in list(self._reports):
            self._say_ended(number, KILLED)
        self._tell({"over": self._stream.words.decode(errors="replace").strip() or "it ended"})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._line.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            os._exit(0)

    # What the keeper asks

    def _take(self) -> None:
        room = socket.CMSG_SPACE(_MOST_ENDS * 16)
        data, rights, _, _ = self._line.recvmsg(1 << 18, room, socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        for _, _, content in rights:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            self._given += numbers
        self._asked += data
        while len(self._asked) >= HEAD.size:
            (length,) = HEAD.unpack_from(self._asked)
            if len(self._asked) < HEAD.size + length:
                return
            text, self._asked = (
                self._asked[HEAD.size : HEAD.size + length],
                self._asked[HEAD.size + length :],
            )
            self._order(json.loads(text))

    def _order(self, asked: dict[str, Any]) -> None:
        order = asked["order"]
        channels = []
        for channel, _, reads, writes in asked["ends"]:
            descriptor = self._given.pop(0)
            if order.get("tty"):
                self._take_terminal(channel, descriptor, order)
            elif is_socket(descriptor):
                os.set_blocking(descriptor, False)
            self._mux.open(channel, descriptor, reads=reads, writes=writes)
            channels.append(channel)
        if asked["reports"]:
            self._reports[order["number"]] = _Report(
                socket.socket(fileno=self._given.pop(0)), tuple(channels)
            )
        self._mux.say(order)

    def _take_terminal(self, channel: int, descriptor: int, order: dict[str, Any]) -> None:
        """The terminal that works is the one inside: this one only carries."""
        with contextlib.suppress(termios.error):
            tty.setraw(descriptor)
        order["size"] = self._terminals[channel] = _size(descriptor)

    def _tick(self) -> float | None:
        """Whatever is to be looked at now and then; in how many seconds again."""
        for number, code in list(self._ended.items()):
            report = self._reports.get(number)
            if report is None or not any(map(self._mux.waits, report.channels)):
                self._say_ended(number, code)
        for channel, before in list(self._terminals.items()):
            descriptor = self._mux.descriptor(channel)
            if descriptor is None:
                del self._terminals[channel]
            elif (now := _size(descriptor)) != before:
                self._terminals[channel] = now
                self._mux.say({"do": "size", "channel": channel, "size": now})
        return _LOOK if self._terminals or self._ended else None

    # What the deputy says

    def _answered(self, message: dict[str, Any]) -> None:
        if "ended" in message:
            self._ended[message["ended"]] = int(message["code"])
            return
        if "gone" in message:
            self._mux.finish(message["gone"])
        if "re" in message or "gone" in message:
            self._tell(message)

    def _say_ended(self, number: int, code: int) -> None:
        self._ended.pop(number, None)
        if report := self._reports.pop(number, None):
            for channel in report.channels:
                self._mux.close(channel)
            with contextlib.suppress(OSError), report.sock:
                report.sock.send(CODE.pack(code))


def _size(descriptor: int) -> tuple[int, int]:
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return 0, 0
    return rows, columns
