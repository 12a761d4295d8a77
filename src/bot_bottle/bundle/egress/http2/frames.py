"""The frames of an HTTP/2 connection before anybody acts on them: cut apart, and counted against what floods are made of. Pure."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384
MAX_BLOCK = 80 * 1024
"""Of a head in all its frames, compressed."""
_HEAD = 9
_END_STREAM, _END_HEADERS = 0x1, 0x4
_MOST_NOISE, _NOISE_A_SECOND, _NOISE_A_PIECE = 1000.0, 20.0, 3.0
_MOST_RESETS, _RESETS_A_SECOND = 200.0, 20.0


class BadFrames(Exception):
    """No HTTP/2; the text says what is wrong with it."""


class Flood(Exception):
    """More of what costs the sender nothing than anybody needs."""


class Frame(NamedTuple):
    """`data` is the whole of it, its head included."""

    kind: int
    flags: int
    data: bytes

    @property
    def payload(self) -> bytes:
        return self.data[_HEAD:]

    @property
    def carries(self) -> bool:
        """Whether it brings anything that somebody wants: a head, a piece of a body, an end."""
        if self.kind == DATA:
            return len(self.data) > _HEAD or bool(self.flags & _END_STREAM)
        return self.kind == HEADERS


class Frames:
    """Cuts what comes into frames; a server's first bytes have to be the client's preface."""

    def __init__(self, *, from_client: bool) -> None:
        self._buffer = b""
        self._block = 0  # bytes of the head that is under way
        self._preface = PREFACE if from_client else b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises BadFrames. The preface is taken away."""
        buffer = self._buffer + data
        if self._preface:
            if not self._preface.startswith(buffer[: len(self._preface)]):
                raise BadFrames("not the beginning of HTTP/2")
            if len(buffer) < len(self._preface):
                self._buffer = buffer
                return
            buffer, self._preface = buffer[len(self._preface) :], b""
        at = 0
        while len(buffer) - at >= _HEAD:
            size = int.from_bytes(buffer[at : at + 3], "big")
            if size > MAX_FRAME:
                raise BadFrames("a frame that is too large")
            end = at + _HEAD + size
            if len(buffer) < end:
                break
            self._measure(buffer[at + 3], buffer[at + 4], size)
            yield Frame(buffer[at + 3], buffer[at + 4], buffer[at:end])
            at = end
        self._buffer = buffer[at:]

    def _measure(self, kind: int, flags: int, size: int) -> None:
        self._block = self._block + size if kind == CONTINUATION else size
        if kind in (HEADERS, CONTINUATION) and self._block > MAX_BLOCK:
            raise BadFrames("a head without end")
        if flags & _END_HEADERS or kind not in (HEADERS, CONTINUATION):
            self._block = 0


class Bucket:
    """An allowance of at most `most` that comes back at `rate` a second."""

    def __init__(self, most: float, rate: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._rate = rate
        self._clock = clock
        self._left = most
        self._at = clock()

    def take(self) -> None:
        """Raises Flood when there is nothing left."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            raise Flood
        self._left -= 1

    def give(self, count: float) -> None:
        self._left = min(self._most, self._left + count)


class Calm:
    """One connection's allowance: of frames that carry nothing, which data in either direction adds to, and of streams that
    were opened and reset."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._noise = Bucket(_MOST_NOISE, _NOISE_A_SECOND, clock)
        self._resets = Bucket(_MOST_RESETS, _RESETS_A_SECOND, clock)

    def came(self, frame: Frame) -> None:
        """Raises Flood."""
        if not frame.carries:
            self._noise.take()
        elif frame.kind == DATA:
            self._noise.give(1)

    def sent_data(self) -> None:
        """Whoever gets data has to answer with more room for it."""
        self._noise.give(_NOISE_A_PIECE)

    def reset(self) -> None:
        """A stream was reset. Raises Flood."""
        self._resets.take()

    def finished(self) -> None:
        """A stream came to its proper end."""
        self._resets.give(1)
