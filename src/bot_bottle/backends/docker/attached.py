"""A container's attached stream, and the process here that carries what goes over it: its end is the container's.

The keeper does other things than carrying bytes, so a process of its own does that (`_Carrier`), and dies with it. The keeper asks
over a socket, along which it also gives the descriptors that are to be carried; the deputy's answers come back on it.
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
import time
import tty
from collections.abc import Sequence
from typing import Any, NamedTuple

from bot_bottle.backends.docker.mux import Mux, is_socket
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.errors import SandboxError
from bot_bottle.host import spawn

ANSWER_WITHIN = 30.0
"""Seconds for the deputy to do something that takes it a moment; far away, on a busy machine."""
_HEAD = struct.Struct("!I")
_CODE = struct.Struct("!i")
_KILLED = 128 + 9
_MOST_ENDS = 4
_LOOK = 0.25
"""Seconds between looks at the size of terminals."""


class End(NamedTuple):
    """A descriptor of ours that is carried over a channel: what is read from it, what comes is written to it, or both."""

    channel: int
    descriptor: int
    reads: bool = True
    writes: bool = True


class Attached:
    """The keeper's end."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Attaches to the container `name`, which was made and not started. Raises HostError, SandboxError."""
        self._sock, rest = _attach(engine, name)
        self._asked = 0
        self._heard = b""
        self._codes: dict[int, int] = {}
        self._over = ""
        self._channels = 0
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                stream = _Hijacked(self._sock, rest)
                carrier = _Carrier(stream, theirs)
                self._pid, report = spawn.fork(
                    lambda _: carrier.run(), keep=(theirs.fileno(), self._sock.fileno())
                )
                os.close(report)
        finally:
            socket.socket.close(self._sock)  # the carrier has it; nothing is said over TLS that it has ended

    def channel(self) -> int:
        """A number that none has yet."""
        self._channels += 1
        return self._channels

    def ask(
        self, order: dict[str, Any], ends: Sequence[End] = (), *, report: socket.socket | None = None,
        within: float = ANSWER_WITHIN,
    ) -> dict[str, Any]:  # fmt: skip
        """What the deputy answers to `order`. `ends` are carried from now on; the caller still closes its own.

        On `report`, the code of the process that the order starts is said when it has ended. Raises SandboxError.
        """
        self._asked += 1
        number = self._asked
        self.tell({**order, "id": number}, ends, report=report)
        deadline = time.monotonic() + within
        while True:
            message = self._next(deadline, str(order.get("do")))
            if message.get("re") == number:
                if "trouble" in message:
                    raise SandboxError(str(message["trouble"]), details=str(message.get("details", "")))
                return message

    def tell(
        self, order: dict[str, Any], ends: Sequence[End] = (), *, report: socket.socket | None = None
    ) -> None:  # fmt: skip
        """Like `ask`, and does not wait for an answer. Raises SandboxError when the carrier is gone."""
        text = json.dumps(
            {"order": order, "ends": [list(end) for end in ends], "reports": report is not None}
        ).encode()
        given = [end.descriptor for end in ends] + ([report.fileno()] if report else [])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))] if given else []
        data = _HEAD.pack(len(text)) + text
        try:
            sent = self._line.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            self._line.sendall(data[sent:])
        except OSError as error:
            raise self._gone() from error

    def code(self, channel: int, *, within: float) -> int | None:
        """The exit code of the process behind `channel`, once it has ended; None when that takes longer, or nobody knows."""
        deadline = time.monotonic() + within
        while channel not in self._codes:
            try:
                self._next(deadline, "end")
            except SandboxError:
                return None
        return self._codes[channel]

    def ended(self) -> bool:
        """Whether the stream has ended, and so the container."""
        with contextlib.suppress(SandboxError, BlockingIOError):
            while not self._over and spawn.readable(self._line.fileno(), 0):
                self._next(time.monotonic(), "")
        return bool(self._over)

    def close(self) -> None:
        """Ends the carrier, and with it the container. Idempotent."""
        if self._pid:
            pid, self._pid = self._pid, 0
            self._line.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._over = self._over or "closed"

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\n" not in self._heard:
            if self._over or self._line.fileno() < 0:
                raise self._gone()
            if not spawn.readable(self._line.fileno(), max(0.0, deadline - time.monotonic())):
                raise SandboxError(
                    "The bundle's container does not answer", details=f"it was asked to {what}"
                )
            try:
                data = self._line.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._over = self._over or "it ended"
                raise self._gone()
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "gone" in message:
            self._codes[message["gone"]] = message["code"]
        if "over" in message:
            self._over = message["over"] or "it ended"
        return message

    def _gone(self) -> SandboxError:
        return SandboxError("The bundle's container has ended", details=self._over)


def _attach(engine: Engine, name: str) -> tuple[socket.socket, bytes]:
    """The hijacked connection, and what came behind its head."""
    sock = engine.dial()
    try:
        sock.sendall(
            f"POST /containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: docker\r\n"
            "Content-Length: 0\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(4096)
            if not data or len(head) > 1 << 16:
                raise SandboxError(
                    "The engine did not attach to the bundle's container", details=repr(head[:300])
                )
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        if head.split(maxsplit=2)[1:2] not in ([b"101"], [b"200"]):
            said = (head.partition(b"\r\n")[0] + b" " + rest).decode(errors="replace")[:500]
            raise SandboxError("The engine did not attach to the bundle's container", details=said)
    except OSError as error:
        sock.close()
        raise engine.trouble(error) from error
    except BaseException:
        sock.close()
        raise
    return sock, rest


class _Hijacked:
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


class _Carrier:
    def __init__(self, stream: _Hijacked, line: socket.socket) -> None:
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
            self._say_ended(number, _KILLED)
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
        while len(self._asked) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._asked)
            if len(self._asked) < _HEAD.size + length:
                return
            text, self._asked = (
                self._asked[_HEAD.size : _HEAD.size + length],
                self._asked[_HEAD.size + length :],
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
                report.sock.send(_CODE.pack(code))


def _size(descriptor: int) -> tuple[int, int]:
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return 0, 0
    return rows, columns


class Process:
    """A process inside, by the socket on which the carrier says how it ended. Keeps `backends.base.Process`."""

    def __init__(self, attached: Attached, number: int, report: socket.socket) -> None:
        self._attached = attached
        self._number = number
        self._report = report.detach()
        self._code: int | None = None

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._report)

    def fileno(self) -> int:
        return self._report

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        if self._code is None and spawn.readable(self._report, timeout):
            try:
                said = os.read(self._report, _CODE.size)
            except OSError:
                said = b""
            self._code = _CODE.unpack(said)[0] if len(said) == _CODE.size else _KILLED
        return self._code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(SandboxError):
                self._attached.tell({"do": "signal", "number": self._number, "signal": number})

    def give_up(self, code: int) -> None:
        """It never ran, and never will."""
        self._code = code if self._code is None else self._code
