"""Putting stars where a known text stands, of the same length, so that nothing around it moves. Pure."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from bot_bottle.policy.secrets import shapes
from bot_bottle.policy.secrets.known import SHORTEST, cores, percent, url_safe

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_RUN = frozenset(_LETTERS + b"+/_=-")
_UNQUOTED = (b"-._~", b"-._~/", b"-._~!*'()", b"-._~!*'();,/?:@&=+$#")
"""What Python's, JavaScript's and other functions for URLs leave as it is, beside letters and digits."""
_ESCAPED = (b"<>&", b"<>&'", b"<>&'\"+`", b"<>&'\"+`/")
"""What writers of JSON escape as `\\u0000` although they need not."""

_START = 4
"""Bytes of a word that are looked for where it may begin at the end of a piece."""
_LARGE = 8 * 1024
"""Bytes from which on looking at samples first is faster than looking for each word."""
_WIDEST, _SEEN, _MOST_SEEN = 16, 4, 6
"""Bytes from one sample to the next, at most; how many samples lie in every word, at least; how many are compared."""


def without(data: bytes, text: bytes) -> bytes:
    """`data` with stars for `text`, as it is and in the simple encodings (the whole encoded run). Perhaps not all of it."""
    for changed in each_without(data, text):
        data = changed
    return data


def each_without(data: bytes, text: bytes) -> Iterator[bytes]:
    """The same bit by bit: `data` after each encoding, the last one as it is to be."""
    for word in (text, percent(text), text.hex().encode()):
        data = _starred(data, word, fold=True)
        yield data
    for word in spellings(text):
        if word != text:
            data = _starred(data, word, fold=False)
            yield data


def _starred(data: bytes, word: bytes, *, fold: bool) -> bytes:
    """`data` with stars for every `word`; without `fold`, and so for encoded text, with what belongs to the same run."""
    within, wanted = (data.lower(), word.lower()) if fold else (data, word)
    at = within.find(wanted)
    if at < 0:
        return data
    made = bytearray(data)
    while at >= 0:
        start, end = at, at + len(word)
        while not fold and start > 0 and made[start - 1] in _RUN:
            start -= 1
        while not fold and end < len(made) and made[end] in _RUN:
            end += 1
        made[start:end] = b"*" * (end - start)
        at = within.find(wanted, end)
    return bytes(made)


def spellings(text: bytes) -> list[bytes]:
    """`text` as it is, and as it looks in each simple encoding wherever it lies in a longer text; the longest first."""
    simple = [
        text,
        percent(text),
        percent(text, b"%%%02x"),
        *_in_urls(text),
        *_in_json(text),
        *_in_html(text),
    ]
    simple += [text.hex().encode(), text.hex().upper().encode()]
    in_base64 = [spelled for core in cores(text, bits=6) for spelled in (core, url_safe(core))]
    in_base32 = [spelled for core in cores(text, bits=5) for spelled in (core, core.lower())]
    return sorted(dict.fromkeys([*simple, *in_base64, *in_base32]), key=len, reverse=True)


def _in_urls(text: bytes) -> list[bytes]:
    def quoted(byte: int, kept: bytes, space: bytes, code: bytes) -> bytes:
        return bytes([byte]) if byte in _LETTERS + kept else space if space and byte == 0x20 else code % byte

    return [
        b"".join(quoted(byte, kept, space, code) for byte in text)
        for kept in _UNQUOTED
        for space in (b"", b"+")
        for code in (b"%%%02X", b"%%%02x")
    ]


def _in_json(text: bytes) -> list[bytes]:
    """As it stands in strings of JSON and JavaScript."""
    slashed = text.replace(b"\\", b"\\\\")
    must = slashed.replace(b'"', b'\\"')
    made = [must, must.replace(b"/", b"\\/"), text.replace(b"/", b"\\/")]
    for escaped in _ESCAPED:
        start = slashed if b'"' in escaped else must
        for code in (b"\\u%04X", b"\\u%04x"):
            made.append(b"".join(code % byte if byte in escaped else bytes([byte]) for byte in start))
    return made


def _in_html(text: bytes) -> list[bytes]:
    """As it stands in HTML and XML, whose writers differ in quotes."""
    start = text.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
    return [
        start.replace(b'"', double).replace(b"'", single).replace(b"+", plus)
        for double in (b'"', b"&quot;", b"&#34;")
        for single in (b"'", b"&#x27;", b"&#39;", b"&#039;", b"&apos;")
        for plus in (b"+", b"&#43;")
    ]


class Words:
    """Texts to be hidden, prepared once for any number of streams."""

    def __init__(self, words: Iterable[bytes]) -> None:
        self._words = [word for word in words if len(word) >= SHORTEST]
        lengths = [len(word) for word in self._words]
        self._shortest, self._longest = min(lengths, default=SHORTEST), max(lengths, default=1)
        self._by_start: dict[bytes, list[bytes]] = {}
        for word in self._words:
            self._by_start.setdefault(word[:_START], []).append(word)
        starts = b"|".join(map(re.escape, self._by_start))
        self._start = re.compile(starts or b"(?!)")
        shorter = {word[:length] for word in self._words for length in range(1, _START)}
        self._shorter = tuple(sorted(shorter, key=len, reverse=True))

    def starred(self, data: bytes) -> bytes:
        if len(data) >= _LARGE and self._samples.search(data[:: self._step]) is None:
            return data
        for word in self._words:
            if word in data:
                data = data.replace(word, b"*" * len(word))
        return data

    def beginning(self, data: bytes) -> int:
        """Where a text may begin that goes on in what comes next; the end of `data` when none does."""
        search = self._start.search
        found = search(data, max(0, len(data) - self._longest + 1))
        while found is not None:
            start = found.start()
            tail = data[start:]
            if any(word.startswith(tail) for word in self._by_start[found[0]]):
                return start
            found = search(data, start + 1)
        if not data.endswith(self._shorter):
            return len(data)
        return len(data) - next(len(start) for start in self._shorter if data.endswith(start))

    @property
    def _step(self) -> int:
        return min(_WIDEST, self._shortest // _SEEN)

    @cached_property
    def _samples(self) -> shapes.Pattern:
        """What every `_step`th byte of a text shows of any of the words, wherever it lies: one pass over a part of the bytes
        that says "nothing" of nearly all of them."""
        step = self._step
        seen = min(self._shortest // step, _MOST_SEEN)
        parts = {word[first::step][:seen] for word in self._words for first in range(step)}
        pattern = "|".join("".join(map(shapes.escaped, part)) for part in sorted(parts))
        return shapes.compile_pattern(pattern)


class Reflection:
    """A stream in which some texts become stars, wherever the pieces are cut. What may be a text's beginning is held back.

    The same object serves one stream only.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can go on now."""
        data = self._words.starred(self._held + data if self._held else data)
        cut = self._words.beginning(data)
        self._held = data[cut:]
        return data[:cut]

    def end(self) -> bytes:
        """The rest."""
        rest, self._held = self._held, b""
        return rest
