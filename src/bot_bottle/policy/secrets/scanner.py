"""Finds secrets in bytes: two cheap passes that say "nothing" of nearly everything, and the exact search behind them.

The passes are automata over the raw bytes. `words` knows the beginnings of all tokens, the known values (`names` is those
alone) and the signs of escapes, `texts` what encoded text looks like, each with anything skippable in between. What they
don't see, the exact search would not find either (a test holds that). It takes out what stands between characters, looks
for tokens and values, undoes one encoding at a time and starts again with what came out.
"""

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from bot_bottle.policy.secrets import decoders, shapes, unpack
from bot_bottle.policy.secrets.known import Known, Needles, letters, needles_for
from bot_bottle.policy.secrets.shapes import (
    BETWEEN,
    BETWEEN_ALNUM,
    BETWEEN_HEX,
    BETWEEN_WORDS,
    Pattern,
    escaped,
    spread,
)
from bot_bottle.policy.secrets.tokens import FORMATS, Crowded, Tokens, atoms
from bot_bottle.policy.secrets.windows import WINDOW, windows

DEPTH = 3
"""Encodings around a secret that are undone."""
_WORK, _LEAST_WORK, _MOST_WORK = 24, 4 << 20, 64 << 20
"""Bytes that are looked at for each byte of input, with everything that is undone; the least that is always allowed, and the
most, but for thrice the input."""
MOST_MATCHES = 32
"""Secrets that are found in one text: where there are as many, there may be more."""
_ANCHOR = 20
_CONTEXT = 512
"""Bytes around an escaped character that are unescaped with it: no token is longer."""
_NOT_WORDS = bytes(
    byte
    for byte in range(256)
    if byte > 0x7F or not (chr(byte).isalnum() or byte in b"_-" or byte == shapes.HARD)
)


class TooTangled(Exception):
    """So much is encoded within these bytes that looking into all of it would take too long."""


class Match(NamedTuple):
    """`text`: the secret as found, for the caller's eyes alone; `encoding`: what was around it, the outermost first."""

    detector: str
    encoding: str
    text: bytes
    known: Known | None = None

    def __repr__(self) -> str:
        return f"Match({self.detector!r}, {self.encoding!r}, <secret>)"


class _View(NamedTuple):
    data: bytes
    trail: tuple[str, ...]


class Scanner:
    """What is searched for: the token formats (unless `formats` is False) and the values of `known`."""

    def __init__(self, known: Sequence[Known] = (), *, formats: bool = True) -> None:
        self._needles = [needles for item in known if (needles := needles_for(item)) is not None]
        self._formats = FORMATS if formats else ()

    def prepare(self) -> None:
        """Makes what every scan needs, so that the first one need not wait for it."""
        self.scan(b"")

    @cached_property
    def _words(self) -> Pattern:
        return shapes.compile_pattern("|".join([*self._name_signs(), *_escape_signs()]))

    @cached_property
    def _names(self) -> Pattern:
        return shapes.compile_pattern("|".join(self._name_signs()))

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self._formats)

    @cached_property
    def _strict(self) -> Tokens:
        return Tokens([item for item in self._formats if item.strict])

    @property
    def looks_for_anything(self) -> bool:
        return bool(self._formats or self._needles)

    def scan(self, data: bytes) -> list[Match]:
        """Everything found in `data`, at most `MOST_MATCHES` secrets. Raises TooTangled, Unreadable."""
        return list(islice((match for found in self.steps(data) for match in found or ()), MOST_MATCHES))

    def steps(self, data: bytes) -> Iterator[list[Match] | None]:
        """The same bit by bit: what was found in each window, as many in each, and None wherever there was about as much to do as
        one has. Raises as `scan`."""
        if self.looks_for_anything:
            yield from self._steps(_View(data, ()), _budget(len(data)))

    def _steps(self, view: _View, left: int) -> Iterator[list[Match] | None]:
        packed = yield from _packed_in(view, left)
        if packed is not None:
            yield from self._steps(packed, left - len(packed.data))
        for window in windows(view.data):
            found: list[Match] = []
            try:
                for match in self._search(view._replace(data=window), packed=False):
                    if match is None:
                        yield None
                    else:
                        found.append(match)
            except Crowded as error:
                raise TooTangled from error
            yield found
            if len(view.data) > WINDOW:
                yield None

    def search(self, data: bytes, *, thorough: bool = False) -> Iterator[Match]:
        """The search itself; `thorough` without the passes before it. Raises as `scan`, and Crowded."""
        return (match for match in self._search(_View(data, ()), thorough=thorough) if match is not None)

    def _search(self, first: _View, *, packed: bool = True, thorough: bool = False) -> Iterator[Match | None]:
        """`packed`: also what is packed in `first` itself, not only in what is encoded in it. None as in `steps`."""
        left = _budget(len(first.data))
        seen: set[tuple[str, bytes]] = set()
        waiting = [first]
        while waiting:
            view = waiting.pop()
            left -= len(view.data)
            if left < 0:
                raise TooTangled
            if packed or view is not first:
                made = yield from _packed_in(view, left)
                waiting += [made] if made is not None else []
            for part in (view.data,) if view is first else windows(view.data):
                for found in self._within(view._replace(data=part), thorough=thorough):
                    if isinstance(found, _View):
                        waiting.append(found)
                    elif (found.detector, found.text) not in seen:
                        seen.add((found.detector, found.text))
                        yield found
                        if len(seen) >= MOST_MATCHES:
                            return
                if len(view.data) > WINDOW:
                    yield None

    def _within(self, view: _View, *, thorough: bool) -> Iterator[Match | _View]:
        """What is found in `view`, and the views of it with one encoding undone."""
        words = thorough or self._words.search(view.data) is not None
        texts = thorough or SHAPES.sign.search(view.data) is not None
        names = thorough or (words and self._names.search(view.data) is not None)
        if not (words or texts):
            return
        opened = len(view.trail) < DEPTH
        if words and opened:
            yield from self._opened(view)
        if not (names or texts):
            return
        plain = decoders.without_escapes(view.data)
        squeezed = decoders.squeeze(plain)
        if names:
            yield from self._matches(view, plain, squeezed)
        if opened:
            yield from self._decoded(view, plain, squeezed, rare=names, texts=texts)

    def _matches(self, view: _View, plain: bytes, squeezed: bytes) -> Iterator[Match]:
        for name, text in self._tokens.within(squeezed):
            yield _match(view, name, text, how="" if text in view.data else "split")
        for name, text in self._strict.within(plain.translate(None, _NOT_WORDS)):
            yield _match(view, name, text, how="" if text in view.data else "split")
        if self._needles:
            joined = letters(plain)
            for needles in self._needles:
                how = _how(needles, view.data, joined, squeezed)
                if how is not None:
                    yield _match(view, needles.known.name, needles.known.value, how=how, known=needles.known)

    def _opened(self, view: _View) -> Iterator[_View]:
        """`view` with one wrapping undone, for each that it may have, of those that need no reading of what is around it."""
        for name, marks, found, undo in (
            ("percent", (b"%",), SHAPES.percent, decoders.unpercent),
            ("escaped", (b"\\u", b"\\x"), SHAPES.escape, decoders.unescape),
        ):
            where = decoders.near(marks, found, view.data, _CONTEXT)
            if where:
                yield _View(undo(decoders.parts_of(view.data, where)), (*view.trail, name))

    def _decoded(
        self, view: _View, plain: bytes, squeezed: bytes, *, rare: bool, texts: bool
    ) -> Iterator[_View]:
        """The same for what is seen without what stands between characters: base32 and packed data are `rare`."""
        views: list[tuple[str, Iterator[bytes]]] = []
        if rare:
            views.append(("base64", decoders.from_base64(SHAPES.packed, squeezed)))
            views.append(("base32", decoders.from_base32(SHAPES.base32, squeezed)))
        if texts:
            views.append(("base64", decoders.from_base64(SHAPES.base64, squeezed)))
            views.append(("hex", decoders.from_hex(SHAPES.hex, decoders.squeeze_hex(plain))))
        for name, made in views:
            for data in made:
                yield _View(data, (*view.trail, name))

    def _name_signs(self) -> Iterator[str]:
        """What tokens and values begin with, and encodings that are too rare to have a pass of their own."""
        for item in self._formats:
            gap = BETWEEN_WORDS if item.strict else BETWEEN
            for anchor in item.anchors:
                yield spread(atoms(anchor), gap)
        for needles in self._needles:
            for word in (*needles.joined, *needles.reverse):
                yield spread(map(_either_case, word[:_ANCHOR]), BETWEEN_ALNUM)
            for word in needles.exact:
                yield spread(map(_perhaps_escaped, word[:_ANCHOR]), "")
            for word in needles.tight:
                yield spread(map(escaped, word[:_ANCHOR]), BETWEEN)
            for word in dict.fromkeys(word[:_ANCHOR] for _, word in needles.coded):
                yield spread(map(escaped, word), "")
            for word in needles.coded_hex:
                yield spread(map(_either_case, word[:_ANCHOR]), "")
        yield shapes.base32_text(_BASE32[0], gap=BETWEEN)
        yield shapes.base32_text(_BASE32[1])  # with gaps, every other sentence would be one
        yield spread("H4sI", BETWEEN)


def _budget(size: int) -> int:
    """How many bytes are looked at for so many."""
    return max(_LEAST_WORK, min(_WORK * size, max(_MOST_WORK, 3 * size)))


def _packed_in(view: _View, limit: int) -> Generator[None, None, _View | None]:
    """What is packed in `view`, unpacked bit by bit. Raises Unreadable when that is more than `limit` bytes."""
    if len(view.trail) >= DEPTH or unpack.GZIP not in view.data:
        return None
    done = 0
    steps = unpack.embedded(view.data, limit=limit)
    while True:
        try:
            done += next(steps)
        except StopIteration as end:
            return None if end.value is None else _View(end.value, (*view.trail, "gzip"))
        if done >= WINDOW:
            done = 0
            yield None


class _Shapes:
    """What encoded text looks like: its sign in raw bytes, and all of it in a view without what stands between characters.

    Patterns are made when they are first needed: most bottles never need most of them.
    """

    @cached_property
    def sign(self) -> Pattern:
        return shapes.compile_pattern(f"{shapes.base64_text(gap=BETWEEN)}|{shapes.hex_text(gap=BETWEEN_HEX)}")

    @cached_property
    def percent(self) -> Pattern:
        return shapes.compile_pattern("%[0-9A-Fa-f]{2}")

    @cached_property
    def escape(self) -> Pattern:
        return shapes.compile_pattern(r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}")

    @cached_property
    def packed(self) -> Pattern:
        return shapes.compile_pattern("H4sI[A-Za-z0-9+/_-]{20,}")

    @cached_property
    def base64(self) -> Pattern:
        return shapes.compile_pattern(shapes.base64_stretch())

    @cached_property
    def hex(self) -> Pattern:
        return shapes.compile_pattern(shapes.hex_text(repeat=","))

    @cached_property
    def base32(self) -> Pattern:
        return shapes.compile_pattern(
            "|".join(shapes.base32_text(alphabet, repeat=",") for alphabet in _BASE32)
        )


SHAPES = _Shapes()
_BASE32 = (shapes.BASE32, shapes.BASE32.lower())


def _escape_signs() -> Iterator[str]:
    yield "%(?:[2-7][0-9A-Fa-f]|0[9ADad])"
    yield r"\\u00[2-7][0-9A-Fa-f]|\\x[2-7][0-9A-Fa-f]"
    yield spread(map(escaped, unpack.GZIP), "")


def _how(needles: Needles, view: bytes, joined: bytes, squeezed: bytes) -> str | None:
    """In which form the value is there; empty for as it is."""
    value = needles.known.value
    if value in view:
        return ""
    if any(word in joined for word in needles.joined):
        return "" if letters(value) != needles.joined[0] else "split"
    if any(word in squeezed for word in needles.tight):
        return "split"
    if any(word in joined for word in needles.reverse):
        return "reversed"
    if needles.coded_hex:
        lower = view.lower()
        if any(word in lower for word in needles.coded_hex):
            return "hex"
    return next((how for how, word in needles.coded if word in view), None)


def _match(view: _View, detector: str, text: bytes, *, how: str, known: Known | None = None) -> Match:
    trail = (*view.trail, how) if how else view.trail
    return Match(detector, "+".join(trail) or "plain", text, known)


def _perhaps_escaped(byte: int) -> str:
    low, code = escaped(byte), "".join(_either_case(digit) for digit in b"%02x" % byte)
    return rf"(?:{low}|%{code}|\\u00{code}|\\x{code})"


def _either_case(byte: int) -> str:
    return shapes.one_of({byte, *bytes([byte]).upper(), *bytes([byte]).lower()})
