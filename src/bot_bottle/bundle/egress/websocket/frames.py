"""The frames of a WebSocket, strictly read and written anew. Pure; every input gives frames, "more, please" or BadFrame.

What is read of a message comes in pieces, as it comes, and each piece is written as a frame of its own: nothing has to be held
until a frame is whole, and what is written is whole at every moment.
"""

import os
from collections.abc import Iterator

from bot_bottle.typed import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_DATA, _CONTROL = frozenset((TEXT, BINARY)), frozenset((CLOSE, PING, PONG))
_FINAL, _COMPRESSED, _RESERVED, _MASKED = 0x80, 0x40, 0x30, 0x80
_MOST_CONTROL = 125
_SHORT, _LONG = 126, 127
_CODES = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


class BadFrame(Exception):
    """Not a frame that may stand here; the text says what is wrong with it."""


class Piece(NamedTuple):
    """A part of a message: of kind TEXT or BINARY, `first` and `final` of its message or not, in a `compressed` message or not."""

    kind: int
    data: bytes
    first: bool
    final: bool
    compressed: bool = False


class Control(NamedTuple):
    """A whole control frame."""

    kind: int
    data: bytes


class FrameReader:
    """One direction. `masked`: its frames have to be (a client's), or must not be. `deflate`: messages may be compressed."""

    def __init__(self, *, masked: bool, deflate: bool) -> None:
        self._masked = _MASKED if masked else 0
        self._deflate = deflate
        self._buffer = b""
        self._message = 0  # the kind of the message that is under way, and whether it is compressed
        self._compressed = False
        self._first = False
        self._kind = 0
        self._final = False
        self._key = b""
        self._inside = False  # a frame, of whose payload so much is left
        self._left = 0
        self.closed = False
        """Whether the last frame there is was read."""

    def feed(self, data: bytes) -> Iterator[Piece | Control]:
        """What came with `data`. Raises BadFrame, and then is good for nothing more."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while self._inside or (head := self._head(buffer, at)):
            if not self._inside:
                self._inside = True
                at += head
            there = len(buffer) - at
            whole = there >= self._left
            if not whole and (not there or self._kind in _CONTROL):
                break
            taken = buffer[at : at + self._left]
            at += len(taken)
            yield self._item(taken, whole)
        self._buffer = buffer[at:]

    def _head(self, data: bytes, at: int) -> int:
        """Reads a frame's head; its size, 0 when it is not whole yet."""
        if len(data) - at < 2:
            return 0
        first, second = data[at], data[at + 1]
        kind, length = first & 0x0F, second & 0x7F
        self._check(first, second)
        size = 2 + (2 if length == _SHORT else 8 if length == _LONG else 0)
        head = size + (4 if self._masked else 0)
        if len(data) - at < head:
            return 0
        if length >= _SHORT:
            number = int.from_bytes(data[at + 2 : at + size], "big")
            if number < (_SHORT if length == _SHORT else 1 << 16) or number >> 63:
                raise BadFrame("a length that is not in its shortest form")
            length = number
        self._key = data[at + size : at + head]
        self._left = length
        self._kind = kind
        self._final = bool(first & _FINAL)
        if kind in _DATA:
            self._message, self._compressed, self._first = kind, bool(first & _COMPRESSED), True
        return head

    def _check(self, first: int, second: int) -> None:
        kind = first & 0x0F
        if self.closed:
            raise BadFrame("something follows the last frame")
        if first & _RESERVED or (first & _COMPRESSED and not (self._deflate and kind in _DATA)):
            raise BadFrame("a reserved bit")
        if second & _MASKED != self._masked:
            raise BadFrame("masked by the wrong side")
        if kind in _CONTROL:
            if not first & _FINAL or second & 0x7F > _MOST_CONTROL:
                raise BadFrame("a control frame that is cut or too long")
        elif kind in _DATA:
            if self._message:
                raise BadFrame("a message within another")
        elif kind != CONTINUATION or not self._message:
            raise BadFrame("an unknown frame, or one that continues nothing")

    def _item(self, data: bytes, whole: bool) -> Piece | Control:
        if self._key:
            data = masked(data, self._key)
            turn = len(data) % 4
            self._key = self._key[turn:] + self._key[:turn]
        self._left -= len(data)
        self._inside = not whole
        if self._kind in _CONTROL:
            if self._kind == CLOSE:
                _check_close(data)
                self.closed = True
            return Control(self._kind, data)
        piece = Piece(self._message, data, self._first, whole and self._final, self._compressed)
        self._first = False
        if piece.final:
            self._message = 0
        return piece


def _check_close(data: bytes) -> None:
    if not data:
        return
    code = int.from_bytes(data[:2], "big")
    if len(data) < 2 or not (code in _CODES or 3000 <= code <= 4999):
        raise BadFrame("a close without a code that may be sent")


def masked(data: bytes, key: bytes) -> bytes:
    """`data` masked, or unmasked, with `key`."""
    size = len(data)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")


def written(item: Piece | Control, *, mask: bool) -> bytes:
    """`item` as one frame, masked with a new key or not at all."""
    if isinstance(item, Control):
        first = _FINAL | item.kind
    else:
        first = item.kind if item.first else CONTINUATION
        first |= (_FINAL if item.final else 0) | (_COMPRESSED if item.first and item.compressed else 0)
    size, bit = len(item.data), _MASKED if mask else 0
    if size < _SHORT:
        head = bytes((first, bit | size))
    elif size < 1 << 16:
        head = bytes((first, bit | _SHORT)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | _LONG)) + size.to_bytes(8, "big")
    if not mask:
        return head + item.data
    key = os.urandom(4)
    return head + key + masked(item.data, key)


def close(code: int, text: str = "") -> Control:
    """The frame that ends a connection, and says why."""
    return Control(CLOSE, code.to_bytes(2, "big") + text.encode()[: _MOST_CONTROL - 2])
