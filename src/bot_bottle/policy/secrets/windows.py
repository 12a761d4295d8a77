r"""Long bytes in windows that are searched one after the other, so that memory and each step's time are bounded. Pure.

What the search would find must lie whole in one of them. So each begins with the end of the one before: as much of it as has
`REACH` letters and digits, whatever stands between them, which is many times the longest token in three encodings. Where that
is much text (somebody laced a token, or it is Chinese), runs of what can only keep characters apart are shortened in it.
Compressed data can be read from its beginning only: where it stands in base64, a window goes on to its end. What is packed as it is
is not the windows' concern: it is unpacked before (`scanner`).
"""

import re
from collections.abc import Iterator

from bot_bottle.policy.secrets import decoders, shapes

WINDOW = 1 << 20
"""Bytes of one window, with nothing compressed in base64; what is no longer than that is searched as it is."""
REACH = 32 * 1024
_SHORT = 8 * REACH
"""Bytes of an end that are taken as they are, however few letters they have."""
_LONG = 64
"""Bytes from which on a run of what keeps characters apart is shortened."""
_PACKED = re.compile(rb"H4sI[A-H]")
_CODES = rb"\\[nrt]|\\u(?!00[2-7])[0-9A-Fa-f]{4}|(?:\\x|\\u00|%)(?:[0189A-Fa-f][0-9A-Fa-f]|2[027cC]|60|5[cC]|7[fF])"
_CODE = re.compile(_CODES)
_RUN = re.compile(rb"(?:[^A-Za-z0-9%%\\]+|%b)+" % _CODES)
_NO_LETTERS = bytes(byte for byte in range(256) if not (chr(byte).isascii() and chr(byte).isalnum()))
_NOT_BASE64 = re.compile(
    b"[^%b]"
    % re.escape(bytes(byte for byte in range(256) if chr(byte) in shapes.BASE64 + "-_=") + shapes.SKIPPED)
)


def windows(data: bytes) -> Iterator[bytes]:
    """`data` in windows."""
    before, at = b"", 0
    while len(data) - at > WINDOW:
        end = _end(before, data, at, at + WINDOW)
        view = before + data[at:end]
        yield view
        before, at = _last(view), end
    if at < len(data) or not at:
        yield before + data[at:] if at else data


def _end(before: bytes, data: bytes, at: int, end: int) -> int:
    """Where a window ends that would end at `end`: behind what is compressed and goes on there."""
    view = before + data[at:end]
    if _PACKED.search(decoders.squeeze(decoders.without_escapes(view))):
        found = _NOT_BASE64.search(data, end)
        return found.start() if found else len(data)
    return end


def _last(view: bytes) -> bytes:
    """The end of `view`, with whatever begins there and could go on."""
    length = REACH
    while length < len(view) and _letters(view[-length:]) < REACH:
        length *= 2
    if length <= _SHORT:
        return view[-length:]
    return _RUN.sub(_shortened, view[-length:-REACH]) + view[-REACH:]


def _shortened(run: re.Match[bytes]) -> bytes:
    """Each sign that is not merely skipped once, behind one that is."""
    text = run[0]
    return (
        text
        if len(text) < _LONG
        else b"\0" + bytes(dict.fromkeys(_CODE.sub(b"", text).translate(None, shapes.SKIPPED)))
    )


def _letters(text: bytes) -> int:
    """The letters and digits of `text`, without those of codes that only keep characters apart."""
    return len(_CODE.sub(b"", text).translate(None, _NO_LETTERS))
