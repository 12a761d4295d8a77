"""Many streams over one: what runs on another kernel has nothing but one stream to its keeper.

A frame is a channel (16 bit), a kind, a length (32 bit, network order), and that many bytes. Channel 0 carries messages (`Codec`).
On the others each side may have so many bytes under way that the other has not passed on (`WINDOW`); so that one stream that
stands still holds up none of the others, and nothing is kept in memory without a bound.
"""

import contextlib
import json
import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

HEAD = struct.Struct("!HcI")
DATA, END, CREDIT, SHUT = b"d", b"e", b"c", b"x"
WINDOW = 256 * 1024
LARGEST = 16 << 20
"""Bytes of one message."""
MOST_UNSENT = 4 * LARGEST
"""Bytes that may wait for the other side to read: an honest one always reads."""
_BLOCK = 32 * 1024
_PIPE = 4096
"""What a pipe with room takes without waiting (PIPE_BUF, pipe(7))."""


class Stream(Protocol):
    """The one that everything goes over."""

    def sources(self) -> tuple[int, int]:
        """The descriptors to be watched for reading and for writing."""

    def read(self) -> bytes:
        """What is there, at least one byte; nothing at the end. Raises BlockingIOError."""

    def write(self, data: bytes) -> int:
        """How much was taken. Raises BlockingIOError, OSError."""


class Descriptors(NamedTuple):
    """Two descriptors as a stream."""

    reading: int
    writing: int

    def sources(self) -> tuple[int, int]:
        return self.reading, self.writing

    def read(self) -> bytes:
        return os.read(self.reading, _BLOCK * 2)

    def write(self, data: bytes) -> int:
        return os.write(self.writing, data)


class Codec(NamedTuple):
    """How messages are written and read; what is none raises ValueError."""

    pack: Callable[[Mapping[str, Any]], bytes]
    unpack: Callable[[bytes], dict[str, Any]]


def _object(text: bytes) -> dict[str, Any]:
    message = json.loads(text)
    if isinstance(message, dict):
        return message
    raise ValueError("a message that is none")


JSON = Codec(lambda message: json.dumps(message).encode(), _object)


class _Channel:
    """One descriptor of ours. Which directions it has is up to whoever opened it."""

    def __init__(self, descriptor: int, *, reads: bool, writes: bool) -> None:
        self.descriptor = descriptor
        self.reads = reads
        self.writes = writes
        self.under_way = 0
        self.waiting = bytearray()
        self.ending = False


class Mux:
    """One side. `hear` gets the other's messages; `run` ends when the stream does."""

    def __init__(self, stream: Stream, hear: Callable[[dict[str, Any]], None], codec: Codec = JSON) -> None:
        self._stream = stream
        self._codec = codec
        self._hear = hear
        self._channels: dict[int, _Channel] = {}
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._watched: dict[int, Callable[[], None]] = {}

    def open(self, number: int, descriptor: int, *, reads: bool = True, writes: bool = True) -> None:
        """Carries what is read from `descriptor` (`reads`), and writes to it what comes (`writes`). Closes it in the end."""
        self.close(number)
        self._channels[number] = _Channel(descriptor, reads=reads, writes=writes)

    def close(self, number: int) -> None:
        """Gives the channel up. Idempotent."""
        if channel := self._channels.pop(number, None):
            os.close(channel.descriptor)

    def descriptor(self, number: int) -> int | None:
        """The channel's, while it is open."""
        channel = self._channels.get(number)
        return channel.descriptor if channel else None

    def waits(self, number: int) -> bool:
        """Whether something that came for the channel has not been passed on yet."""
        channel = self._channels.get(number)
        return bool(channel and channel.waiting)

    def say(self, message: Mapping[str, Any]) -> None:
        """Sends the other side a message."""
        self._send(0, DATA, self._codec.pack(message))

    def watch(self, descriptor: int, act: Callable[[], None]) -> None:
        """Calls `act` when `descriptor` can be read."""
        self._watched[descriptor] = act

    def forget(self, descriptor: int) -> None:
        """Watches it no more. Idempotent."""
        self._watched.pop(descriptor, None)

    def drain(self, number: int) -> None:
        """Takes along what can be read from the channel now: its writer has ended."""
        while (channel := self._channels.get(number)) and channel.reads:
            if not _ready(channel.descriptor, select.POLLIN):
                return
            self._read(number, channel)

    def run(self, tick: Callable[[], float | None] = lambda: None) -> None:
        """Carries everything until the stream ends. Raises OSError, ValueError when the other side is none.

        `tick` is called at every turn, and says in how many seconds it wants to be at the latest.
        """
        while self._turn(tick()):
            pass

    def finish(self, number: int) -> None:
        """Nothing comes for the channel any more: closes it when what has come has been passed on."""
        if channel := self._channels.get(number):
            channel.reads = False
            channel.ending = True
            if not channel.waiting:
                self.close(number)

    # One turn

    def _turn(self, patience: float | None) -> bool:
        waiting = select.poll()
        reading, writing = self._stream.sources()
        wanted: dict[int, int] = {reading: select.POLLIN}
        if self._outgoing:
            wanted[writing] = wanted.get(writing, 0) | select.POLLOUT
        full = len(self._outgoing) > 4 * WINDOW
        for channel in self._channels.values():
            mask = (select.POLLIN if channel.reads and channel.under_way < WINDOW and not full else 0) | (
                select.POLLOUT if channel.waiting else 0
            )
            if mask:
                wanted[channel.descriptor] = wanted.get(channel.descriptor, 0) | mask
        for descriptor in self._watched:
            wanted[descriptor] = select.POLLIN
        for descriptor, mask in wanted.items():
            waiting.register(descriptor, mask)
        ready = dict(waiting.poll(None if patience is None else patience * 1000))
        if writing in ready and self._outgoing:
            self._write()
        if reading in ready and ready[reading] & ~select.POLLOUT and not self._take():
            return False
        self._serve(ready)
        return True

    def _serve(self, ready: Mapping[int, int]) -> None:
        for number, channel in list(self._channels.items()):
            state = ready.get(channel.descriptor, 0)
            if self._channels.get(number) is not channel:
                continue
            if state & (select.POLLOUT | select.POLLERR) and channel.waiting:
                self._pass_on(number, channel)
            elif state & select.POLLHUP and channel.waiting:  # a full terminal that nobody has any more
                self._nobody_reads(number, channel)
            if (
                state & (select.POLLIN | select.POLLHUP | select.POLLERR)
                and channel.reads
                and channel.under_way < WINDOW
            ):
                self._read(number, channel)
        for descriptor, act in list(self._watched.items()):
            if descriptor in ready and self._watched.get(descriptor) is act:
                act()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            del self._outgoing[: self._stream.write(bytes(self._outgoing[: 4 * _BLOCK]))]

    def _read(self, number: int, channel: _Channel) -> None:
        try:
            data = os.read(channel.descriptor, _BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last process that had the terminal is gone
        if data:
            channel.under_way += len(data)
            self._send(number, DATA, data)
            return
        channel.reads = False
        self._send(number, END, b"")
        self._perhaps_close(number, channel)

    def _pass_on(self, number: int, channel: _Channel) -> None:
        try:
            done = os.write(channel.descriptor, channel.waiting[:_PIPE])
        except BlockingIOError:
            return
        except OSError:
            self._nobody_reads(number, channel)
            return
        del channel.waiting[:done]
        self._outgoing += HEAD.pack(number, CREDIT, done)
        if channel.ending and not channel.waiting:
            self._end_writing(number, channel)

    def _nobody_reads(self, number: int, channel: _Channel) -> None:
        channel.waiting.clear()
        channel.writes = False
        self._send(number, SHUT, b"")
        self._perhaps_close(number, channel)

    def _end_writing(self, number: int, channel: _Channel) -> None:
        channel.writes = False
        if channel.reads and is_socket(channel.descriptor):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(channel.descriptor)) as sock:
                sock.shutdown(socket.SHUT_WR)
        self._perhaps_close(number, channel)

    def _perhaps_close(self, number: int, channel: _Channel) -> None:
        if not channel.reads and not channel.writes:
            self.close(number)

    # What comes

    def _send(self, number: int, kind: bytes, data: bytes) -> None:
        self._outgoing += HEAD.pack(number, kind, len(data)) + data

    def _take(self) -> bool:
        try:
            data = self._stream.read()
        except BlockingIOError:
            return True
        if not data:
            return False
        self._incoming += data
        while len(self._incoming) >= HEAD.size:
            number, kind, length = HEAD.unpack_from(self._incoming)
            if kind == CREDIT:
                del self._incoming[: HEAD.size]
                if channel := self._channels.get(number):
                    channel.under_way -= length
                continue
            if len(self._outgoing) > MOST_UNSENT:
                raise ValueError("nothing is read that is sent")
            if length > (LARGEST if number == 0 else WINDOW):
                raise ValueError("a frame that is too large")
            if len(self._incoming) < HEAD.size + length:
                break
            payload = bytes(self._incoming[HEAD.size : HEAD.size + length])
            del self._incoming[: HEAD.size + length]
            self._frame(number, kind, payload)
        return True

    def _frame(self, number: int, kind: bytes, payload: bytes) -> None:
        if number == 0:
            self._hear(self._codec.unpack(payload))
            return
        channel = self._channels.get(number)
        if channel is None or (kind == DATA and not channel.writes):
            if kind == DATA:
                self._outgoing += HEAD.pack(number, CREDIT, len(payload))
                self._send(number, SHUT, b"")
        elif kind == DATA:
            channel.waiting += payload
            if len(channel.waiting) > 2 * WINDOW:
                raise ValueError("more than was to be under way")
        elif kind == END and channel.writes:
            channel.ending = True
            if not channel.waiting:
                self._end_writing(number, channel)
        elif kind == SHUT and channel.reads:
            channel.reads = False
            self._perhaps_close(number, channel)


def is_socket(descriptor: int) -> bool:
    """Whether it is one."""
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _ready(descriptor: int, event: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, event)
    return bool(waiting.poll(0))
