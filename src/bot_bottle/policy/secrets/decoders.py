"""Undoing what text is wrapped in: views of some bytes, each without one encoding. Total, and linear in the bytes."""

import binascii
import re
from codecs import escape_decode, unicode_escape_decode  # not by name: a confined process can load no codec
from collections.abc import Iterator

from bot_bottle.policy.secrets import shapes
from bot_bottle.policy.secrets.shapes import HARD, Pattern

_APART = bytes([HARD])
_HEX = b"0123456789abcdefABCDEF"
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_NOT_BASE64 = bytes(byte for byte in range(256) if chr(byte) not in shapes.BASE64 + "-_")
_BASE32_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUV"
_TO_BASE32 = bytes.maketrans(
    shapes.BASE32.encode() + shapes.BASE32[:26].lower().encode(), _BASE32_DIGITS + _BASE32_DIGITS[:26]
)
_NOT_BASE32 = bytes(
    byte for byte in range(256) if byte not in (shapes.BASE32 + shapes.BASE32.lower()).encode()
)
_NOT_HEX = bytes(byte for byte in range(256) if byte not in _HEX)
_IS_HEX, _IS_PERCENT, _IS_BACKSLASH, _IS_X, _IS_U = (
    bytes(byte in chosen for byte in range(256)) for chosen in (_HEX, b"%", b"\\", b"x", b"u")
)
_MARKS = [bytes([byte]) for byte in (1, 2, 3, 4, 5, 6, 7, 0x0E)]
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9A-Fa-f]{2}")
_HIGH = re.compile(rb"\\x(?=[89a-fA-F])")
_MARGIN = 32
_NEAR = 2 * _MARGIN
_WHOLE = 512
_PIECE = 64 * 1024
_TIMES = 3
_SPARSE = 64
"""Bytes for one mark, below which looking at each of them costs more than taking all for marked."""
_EVERY = frozenset(range(4))


def without_escapes(view: bytes) -> bytes:
    """`view` without the two characters that stand for the end of a line or a tab in JSON and most languages."""
    if b"\\" in view:
        for escape in shapes.ESCAPES:
            view = view.replace(escape, b"")
    return view


def squeeze(view: bytes) -> bytes:
    """`view` (already without escapes) without what may stand between two characters of one word."""
    return view.translate(None, shapes.SKIPPED)


def squeeze_hex(view: bytes) -> bytes:
    """As `squeeze`, and without what stands between the bytes of hexadecimal."""
    return view.replace(b"0x", b"").translate(None, shapes.SKIPPED + shapes.SKIPPED_IN_HEX)


def unpercent(view: bytes) -> bytes:
    """`view` with `%41` as `A`; and behind it what that is with the same done again, while there is more to undo."""
    stages: list[bytes] = []
    for _ in range(_TIMES):
        before, view = view, b"".join(map(_unpercent, _pieces(view, b"%", 3)))
        if len(view) == len(before):
            break
        stages.append(view)
    return _APART.join(stages)


def _unpercent(piece: bytes) -> bytes:
    if b"%" not in piece:
        return piece
    mark, piece = _marked(piece.replace(b"\\", b"\\\\"))
    hexes = _where(piece, _IS_HEX)
    good = _where(piece, _IS_PERCENT) & (hexes >> 8) & (hexes >> 16)
    return escape_decode(_swapped(piece, good, 0x25 ^ mark[0]).replace(mark, b"\\x"))[0]


def _pieces(view: bytes, mark: bytes, length: int) -> Iterator[bytes]:
    """`view` in pieces, as taking all of it apart at once takes fifty times its size; none ends within an escape of `length`."""
    at = 0
    while at < len(view):
        end = min(at + _PIECE, len(view))
        cut = view.rfind(mark, end - length + 1, end) if end < len(view) else -1
        end = cut if cut > at else end
        yield view[at:end]
        at = end


def unescape(view: bytes) -> bytes:
    r"""`view` with `\u0041` and `\x41` as `A`."""
    return b"".join(map(_unescape, _pieces(view, b"\\", 6)))


def _unescape(piece: bytes) -> bytes:
    if b"\\" not in piece:
        return piece
    mark, piece = _marked(piece)
    hexes = _where(piece, _IS_HEX)
    pairs = (hexes >> 16) & (hexes >> 24)
    good = pairs & ((_where(piece, _IS_X) >> 8) | ((_where(piece, _IS_U) >> 8) & (pairs >> 16)))
    others = _where(piece, _IS_BACKSLASH) & ~good
    piece = _SURROGATE.sub(b"?", _swapped(piece, others, 0x5C ^ mark[0]))
    piece = _HIGH.sub(rb"\\udc", piece).replace(mark, b"\\\\")  # a byte of its own, and not a character
    if not piece.isascii():
        piece = piece.decode("utf-8", "surrogateescape").encode("ascii", "backslashreplace")
    return unicode_escape_decode(piece)[0].encode("utf-8", "surrogateescape")


# Python takes escapes apart in C, but not those of malformed text. So these are found and made good before, with the bytes of
# a piece as the digits of one number: what is true of each byte, and of the one behind it, is then an operation on two numbers.


def _marked(piece: bytes) -> tuple[bytes, bytes]:
    """A byte, and `piece` with an escape wherever that stood."""
    mark = min(_MARKS, key=piece.count)
    return mark, piece.replace(mark, b"\\x%02x" % mark[0])


def _where(piece: bytes, table: bytes) -> int:
    return int.from_bytes(piece.translate(table), "little")


def _swapped(piece: bytes, where: int, difference: int) -> bytes:
    """`piece` with other bytes `where` there is a one: those that differ by the bits of `difference`."""
    return (int.from_bytes(piece, "little") ^ where * difference).to_bytes(len(piece), "little")


def near(marks: tuple[bytes, ...], found: Pattern, view: bytes, margin: int) -> list[tuple[int, int]]:
    """As `around`, for what begins with one of `marks`; simply everything when there are so many of them."""
    count = sum(map(view.count, marks))
    if count * _SPARSE > len(view):
        return [(0, len(view))]
    return around(found, view, margin) if count else []


def around(found: Pattern, view: bytes, margin: int) -> list[tuple[int, int]]:
    """Where `found` matches, with `margin` bytes on both sides, and as one where these meet."""
    made: list[tuple[int, int]] = []
    for match in found.finditer(view):
        low, high = match.span()
        if made and low - made[-1][1] <= margin:
            made[-1] = (made[-1][0], high + margin)
        else:
            made.append((max(0, low - margin), high + margin))
    return made


def parts_of(view: bytes, where: list[tuple[int, int]]) -> bytes:
    """The regions of `view`, kept apart."""
    return _APART.join(view[start:end] for start, end in where)


def from_base64(found: Pattern, view: bytes) -> Iterator[bytes]:
    """What looks like base64 in `view` decoded, once for each place at which a group of four may begin.

    A long region is decoded only at the places where groups were seen, and its stretches' ends at all of them: there another
    text may begin whose first groups look as if they went on with the one before.
    """
    at_place: list[list[bytes]] = [[], [], [], []]
    for start, end, places, ends in _base64_regions(found, view):
        for low, high, chosen in ((start, end, places), *((low, high, _EVERY) for low, high in ends)):
            text = view[low:high].translate(_TO_BASE64, _NOT_BASE64)
            for place in chosen:
                at_place[place].append(_base64(text[place:]))
    return (_APART.join(texts) for texts in at_place if texts)


def _base64_regions(
    found: Pattern, view: bytes
) -> Iterator[tuple[int, int, frozenset[int], list[tuple[int, int]]]]:
    """Start and end of each region, its places, and the ends of its stretches."""
    spans = [match.span() for match in found.finditer(view)]
    at = 0
    while at < len(spans):
        start, last = max(0, spans[at][0] - _MARGIN), at
        while last + 1 < len(spans) and spans[last + 1][0] - spans[last][1] <= _NEAR:
            last += 1
        end = spans[last][1] + _MARGIN
        if end - start <= _WHOLE:
            yield start, end, _EVERY, []
        else:
            places, seen, before = set(), 0, start
            for low, _ in spans[at : last + 1]:
                seen += len(view[before:low].translate(None, _NOT_BASE64))
                before = low
                places.add(seen % 4)
            yield (
                start,
                end,
                frozenset(places),
                [(max(start, high - _NEAR), high + _MARGIN) for _, high in spans[at : last + 1]],
            )
        at = last + 1


def from_hex(found: Pattern, view: bytes) -> Iterator[bytes]:
    """What looks like hexadecimal in `view` decoded, at both places."""
    chosen = [view[start:end].translate(None, _NOT_HEX) for start, end in around(found, view, _MARGIN)]
    for place in range(2) if chosen else ():
        texts = (text[place:] for text in chosen)
        yield _APART.join(binascii.unhexlify(text[: len(text) & ~1]) for text in texts)


def from_base32(found: Pattern, view: bytes) -> Iterator[bytes]:
    """What looks like base32 in `view` decoded, at eight places: one for each bit of a byte."""
    numbers = []
    for start, end in around(found, view, _MARGIN):
        text = view[start:end].translate(_TO_BASE32, _NOT_BASE32)
        numbers.append((int(text, 32), len(text)))
    for shift in range(8) if numbers else ():
        yield _APART.join(
            (number << shift).to_bytes((5 * length + shift + 7) // 8, "big") for number, length in numbers
        )


def _base64(text: bytes) -> bytes:
    return binascii.a2b_base64(text + b"A" * (-len(text) % 4))
