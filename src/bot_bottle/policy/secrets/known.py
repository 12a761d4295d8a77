"""Values that are known word by word (credentials, `sensitive:` values, placeholders): what to search for to find each.

A value is sought by its letters and digits alone, in either case and either direction, whatever stands between them. One that
has fewer than eight of those is sought as it is. A long one is sought by each of its pieces, so that half a key is found, too.
"""

import base64
from typing import NamedTuple

from bot_bottle.policy.secrets import shapes

SHORTEST = 8
"""Bytes below which a value can't be searched for: it would be found in everything."""
_LONG, _PIECE, _MOST_PIECES = 96, 24, 64
_SQUEEZED = bytes(byte for byte in range(256) if chr(byte).isascii() and chr(byte).isalnum())
TO_ALNUM = bytes(range(256)).lower()
NOT_ALNUM = bytes(byte for byte in range(256) if byte not in _SQUEEZED and byte != shapes.HARD)


class Known(NamedTuple):
    """`placeholder`: what the agent was given in the place of the credential `name`."""

    name: str
    value: bytes
    placeholder: bool = False

    def __repr__(self) -> str:
        return f"Known({self.name!r}, <secret>, placeholder={self.placeholder})"


class Needles(NamedTuple):
    """What is searched for to find one value.

    `joined` in the view's letters and digits, in lower case; `exact` in the view as it is; `tight` in the view without what may
    stand between characters; `coded` there as well: its own encodings, where those don't show by themselves.
    """

    known: Known
    joined: tuple[bytes, ...] = ()
    reverse: tuple[bytes, ...] = ()
    exact: tuple[bytes, ...] = ()
    tight: tuple[bytes, ...] = ()
    coded: tuple[tuple[str, bytes], ...] = ()
    coded_hex: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Needles({self.known!r})"


def too_short(value: bytes) -> bool:
    """Whether `value` can't be searched for, which the person should be told."""
    return len(value) < SHORTEST


def is_short(value: bytes) -> bool:
    """Whether too little of it is text for its encodings to show by themselves."""
    return _longest_text(value) < shapes.TEXT


def letters(data: bytes) -> bytes:
    """The letters and digits of `data`, in lower case."""
    return data.translate(TO_ALNUM, NOT_ALNUM)


def needles_for(known: Known) -> Needles | None:
    """What finds `known`; None when it is too short."""
    value = known.value
    if too_short(value):
        return None
    word = letters(value)
    found = Needles(known)
    if len(word) >= SHORTEST and len(word) * 2 >= len(value):
        pieces = _pieces(word) if len(word) > _LONG else (word,)
        found = found._replace(joined=pieces, reverse=tuple(piece[::-1] for piece in pieces))
    else:
        tight = value.translate(None, shapes.SKIPPED)
        found = found._replace(exact=(value,), tight=(tight,) if len(tight) >= SHORTEST else ())
    if is_short(value):
        spellings = dict.fromkeys((value, percent(value)))
        found = found._replace(
            coded=tuple(item for spelling in spellings for item in _coded(spelling)),
            coded_hex=tuple(spelling.hex().encode() for spelling in spellings),
        )
    return found


def _pieces(word: bytes) -> tuple[bytes, ...]:
    """Pieces of a long value that don't stand in other texts as well; the whole when there is none."""
    cut = [word[at : at + _PIECE] for at in range(0, len(word) - _PIECE + 1, _PIECE)]
    telling = [piece for piece in cut if _is_telling(piece)]
    step = -(-len(telling) // _MOST_PIECES) or 1
    return tuple(telling[::step]) or (word,)


def _is_telling(piece: bytes) -> bool:
    return (
        len(set(piece)) >= 10 and any(byte < 0x40 for byte in piece) and any(byte >= 0x60 for byte in piece)
    )


def _longest_text(value: bytes) -> int:
    text = value.translate(bytes(0x41 if 0x20 <= byte < 0x7F else 0 for byte in range(256)))
    return max(map(len, text.split(b"\0")))


def percent(value: bytes, code: bytes = b"%%%02X") -> bytes:
    """`value` as in a URL, whose escapes are written by `code`."""
    plain = b"-._~"
    return b"".join(bytes([byte]) if byte in _SQUEEZED or byte in plain else code % byte for byte in value)


def _coded(value: bytes) -> list[tuple[str, bytes]]:
    """Those characters of each encoding of `value`, at each place in a longer text, that don't depend on its neighbours."""
    once = cores(value, bits=6)
    twice = [outer for inner in (*once, *map(url_safe, once)) for outer in cores(inner, bits=6)]
    found = [("base64", core) for core in (*once, *map(url_safe, once))]
    found += [("base64+base64", core) for core in (*twice, *map(url_safe, twice))]
    found += [("base32", spelled) for core in cores(value, bits=5) for spelled in (core, core.lower())]
    return list(dict.fromkeys(found))


def url_safe(text: bytes) -> bytes:
    return text.replace(b"+", b"-").replace(b"/", b"_")


def cores(value: bytes, *, bits: int) -> list[bytes]:
    """`value` in base64 (`bits` 6) or base32 (5), once for each way in which it can lie in a longer text."""
    encode, offsets = (base64.b64encode, range(3)) if bits == 6 else (base64.b32encode, range(5))
    made = []
    for before in offsets:
        text = encode(bytes(before) + value)
        made.append(text[-(-before * 8 // bits) : (before + len(value)) * 8 // bits])
    return made
