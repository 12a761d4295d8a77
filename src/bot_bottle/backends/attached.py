"""The one stream to where a bottle is, when that is another kernel, and the process here that carries what goes over it.

The keeper does other things than carrying bytes, so a process of its own does that (`_Carrier`), and dies with it. The keeper asks
over a socket, along which it also gives the descriptors that are to be carried; the answers of the deputy there come back on it.
"""

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import termios
import time
import tty
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from bot_bottle.backends.mux import JSON, Codec, Mux, Stream, is_socket
from bot_bottle.errors import SandboxError
from bot_bottle.host import spawn

ANSWER_WITHIN = 30.0
"""Seconds for the deputy to do something that takes it a moment; far away, on a busy machine."""
_HEAD = struct.Struct("!I")
_CODE = struct.Struct("!i")
_KILLED = 128 + 9
_MOST_ENDS = 4
_UNREAD = 1.0
"""Seconds that the end of a process waits for what it wrote to be read here; then its end is said, and the rest comes later."""
_SHORT = 512
_LOOK = 0.25
"""Seconds between looks at the size of terminals."""


class End(NamedTuple):
    """A descriptor of ours that is carried over a channel: what is read from it, what comes is written to it, or both."""

    channel: int
    descriptor: int
    reads: bool = True
    writes: bool = True


class Wire(Stream, Protocol):
    """The stream to the deputy."""

    words: bytes
    """The end of what was said there beside it, or what went wrong with it."""

    def begin(self) -> None:
        """Called in the carrier, which never waits for it."""

    def give_up(self) -> None:
        """Called in the keeper, once the carrier has it."""


class There(NamedTuple):
    """What is at the other end. `name` begins a sentence; `orphaned` is called in the carrier when the keeper has ended.

    The carrier keeps the descriptors `keeps` for that. When one of `parts` becomes readable, something that it needs has ended,
    as the text beside it says, and it is ended, too.
    """

    name: str
    codec: Codec = JSON
    orphaned: Callable[[], object] = spawn.nothing
    keeps: tuple[int, ...] = ()
    parts: tuple[tuple[int, str], ...] = ()


class Attached:
    """The keeper's end."""

    def __init__(self, stream: Wire, there: There) -> None:
        """Carries what goes over `stream`, whose descriptors are the carrier's alone from now on."""
        self._there = there
        self._asked = 0
        self._heard = b""
        self._codes: dict[int, int] = {}
        self._over = ""
        self._channels = 0
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                carrier = _Carrier(stream, theirs, there)
                kept = (theirs.fileno(), *set(stream.sources()), *there.keeps, *dict(there.parts))
                # Whatever is to be done when the keeper has ended is done after it: the line's end is what ends this then.
                outlives = there.orphaned is not spawn.nothing
                self._pid, report = spawn.fork(lambda _: carrier.run(), keep=kept, outlives=outlives)
                os.close(report)
        finally:
            stream.give_up()

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
                raise SandboxError(f"{self._there.name} does not answer", details=f"it was asked to {what}")
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
        return SandboxError(f"{self._there.name} has ended", details=self._over)


class _Report(NamedTuple):
    """A process whose end is to be said on `sock`, when all that it wrote has been passed on."""

    sock: socket.socket
    channels: tuple[int, ...]


class _Carrier:
    def __init__(self, stream: Wire, line: socket.socket, there: There) -> None:
        self._stream = stream
        self._line = line
        self._there = there
        self._mux = Mux(stream, self._answered, there.codec)
        self._asked = b""
        self._given: list[int] = []
        self._reports: dict[int, _Report] = {}
        self._ended: dict[int, tuple[int, float]] = {}
        self._terminals: dict[int, tuple[int, int]] = {}

    def run(self) -> None:
        """Carries until the container or the keeper ends."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.setsid()
        self._stream.begin()
        self._mux.watch(self._line.fileno(), self._take)
        for descriptor, words in self._there.parts:
            self._mux.watch(descriptor, partial(self._lacks, words))
        try:
            self._mux.run(tick=self._tick)
        except (OSError, ValueError) as error:
            self._stream.words = self._stream.words or str(error).encode()
        for number in list(self._reports):
            self._say_lost(number)
            self._say_ended(number, _KILLED)
        self._tell({"over": self._stream.words.decode(errors="replace").strip() or "it ended"})

    def _lacks(self, words: str) -> None:
        self._stream.words = words.encode()
        raise OSError(words)

    def _say_lost(self, number: int) -> None:
        """Whoever reads what the process says hears why there is no more of it."""
        last = self._mux.descriptor(self._reports[number].channels[-1])
        if last is not None:
            words = self._stream.words.decode(errors="replace").strip()
            text = f"bot-bottle: {self._there.name} has ended{': ' * bool(words)}{words}\r\n"
            with contextlib.suppress(OSError):
                if spawn.writable(last, 0):
                    os.write(last, text.encode()[:_SHORT])

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._line.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._leave()

    def _leave(self) -> None:
        """The keeper has ended, and so this does."""
        self._there.orphaned()
        os._exit(0)

    # What the keeper asks

    def _take(self) -> None:
        room = socket.CMSG_SPACE(_MOST_ENDS * 16)
        data, rights, _, _ = self._line.recvmsg(1 << 18, room, socket.MSG_CMSG_CLOEXEC)
        if not data:
            self._leave()
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
        for number, (code, since) in list(self._ended.items()):
            report = self._reports.get(number)
            if (
                report is None
                or not any(map(self._mux.waits, report.channels))
                or time.monotonic() > since + _UNREAD
            ):
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
            self._ended[message["ended"]] = int(message["code"]), time.monotonic()
            return
        if "gone" in message:
            self._mux.finish(message["gone"])
        if "re" in message or "gone" in message:
            self._tell(message)

    def _say_ended(self, number: int, code: int) -> None:
        self._ended.pop(number, None)
        if report := self._reports.pop(number, None):
            for channel in report.channels:
                self._mux.finish(channel)
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
        self.number = number
        self._report = report.detach()
        self._code: int | None = None

    def close(self) -> None:
        """Gives up the descriptor; what it ended with stays known, and what still ran ended with the bottle."""
        if self._report >= 0:
            if self.poll() is None:
                self._code = _KILLED
            os.close(self._report)
            self._report = -1

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        return self._report

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        if self._code is None and self._report >= 0 and spawn.readable(self._report, timeout):
            try:
                said = os.read(self._report, _CODE.size)
            except OSError:
                said = b""
            self._code = _CODE.unpack(said)[0] if len(said) == _CODE.size else _KILLED
        return self._code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(SandboxError):
                self._attached.tell({"do": "signal", "number": self.number, "signal": number})

    def give_up(self, code: int) -> None:
        """It never ran, and never will."""
        self._code = code if self._code is None else self._code
