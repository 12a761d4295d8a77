"""Which paths a `.gitignore` leaves out: git's own rules, in time that hostile patterns can't make explode.

Git itself is not asked, as it would have to read a tree that the agent can write to meanwhile. A pattern is cut into path
parts and each part into tokens; a `*` only ever goes back to the last `*`, so a match costs pattern times name at most.
"""

from collections.abc import Iterator, Sequence

from bot_bottle.typed import NamedTuple

MAX_PATTERNS = 5_000
"""What a file has beyond these is not read; more is shown then, not less."""

_STAR = object()
_STARS = object()
_ANY = object()
_NEVER = object()
Token = object
_CLASSES = {
    "alnum": str.isalnum,
    "alpha": str.isalpha,
    "blank": " \t".__contains__,
    "cntrl": lambda c: ord(c) < 32 or ord(c) == 127,
    "digit": str.isdigit,
    "graph": lambda c: 32 < ord(c) < 127,
    "lower": str.islower,
    "print": lambda c: 32 <= ord(c) < 127,
    "punct": lambda c: 32 < ord(c) < 127 and not c.isalnum(),
    "space": " \t\n\r\v\f".__contains__,
    "upper": str.isupper,
    "xdigit": "0123456789abcdefABCDEF".__contains__,
}
_ASCII = [chr(code) for code in range(128)]


class Pattern(NamedTuple):
    """One line: `parts` are path parts, each a tuple of tokens, or None for `**`."""

    parts: tuple["tuple[Token, ...] | None", ...]
    anchored: bool
    folders_only: bool
    negated: bool


class Rules:
    """The patterns in force in one folder: its parents', then its own."""

    def __init__(self, layers: "Sequence[tuple[int, Sequence[Pattern]]]" = ()) -> None:
        self._layers = tuple(layers)

    def inside(self, depth: int, patterns: Sequence[Pattern]) -> "Rules":
        """These rules with those of a folder `depth` parts below the top added."""
        return Rules((*self._layers, (depth, patterns))) if patterns else self

    def ignores(self, path: Sequence[str], *, folder: bool) -> bool:
        """Whether the file (or folder) at `path`, in parts from the top, is left out. Its parents are not looked at."""
        for depth, patterns in reversed(self._layers):
            below = path[depth:]
            for pattern in reversed(patterns):
                if (folder or not pattern.folders_only) and _fits(pattern, below):
                    return not pattern.negated
        return False


def parse(text: bytes) -> tuple[Pattern, ...]:
    """The patterns of a `.gitignore`."""
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")[:MAX_PATTERNS]
    found = (_pattern(line.removesuffix(b"\r").decode("utf-8", "surrogateescape")) for line in lines)
    return tuple(pattern for pattern in found if pattern)


def _pattern(line: str) -> Pattern | None:
    if line.startswith("#"):
        return None
    line = _trimmed(line)
    negated = line.startswith("!")
    line = line[negated:]
    folders_only = line.endswith("/")
    line = line[: len(line) - folders_only]
    anchored = "/" in line
    line = line.removeprefix("/")
    if not line:
        return None
    return Pattern(tuple(_parts(line)), anchored, folders_only, negated)


def _trimmed(line: str) -> str:
    """Without its trailing spaces, but for one that a backslash keeps."""
    end = len(line)
    while end and line[end - 1] == " ":
        backslashes = len(line[: end - 1]) - len(line[: end - 1].rstrip("\\"))
        if backslashes % 2:
            break
        end -= 1
    return line[:end]


def _parts(pattern: str) -> "list[tuple[Token, ...] | None]":
    """The path parts of the pattern. A slash within brackets does not end one."""
    parts: list[tuple[Token, ...] | None] = []
    tokens: list[Token] = []
    for each in (*_tokens(pattern), "/"):
        if each != "/":
            tokens.append(each)
            continue
        several = "/" in pattern and tokens == [_STARS]
        parts.append(None if several else tuple(_STAR if token is _STARS else token for token in tokens))
        tokens = []
    return parts


def _tokens(pattern: str) -> Iterator[Token]:
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            begin = at
            while pattern[at : at + 1] == "*":
                at += 1
            yield _STARS if at > begin else _STAR
        elif character == "?":
            yield _ANY
        elif character == "[":
            chosen, at = _bracket(pattern, at)
            yield chosen
        elif character == "\\":
            yield pattern[at] if at < len(pattern) else _NEVER
            at += 1
        else:
            yield character


def _bracket(part: str, at: int) -> tuple[Token, int]:
    """The set of characters, and whether it is meant inverted, from just behind its `[`; and where it ends."""
    inverted = part[at : at + 1] in ("!", "^")
    at += inverted
    chosen: set[str] = set()
    first, previous = True, ""
    while first or part[at : at + 1] != "]":
        character = part[at : at + 1]
        after = part[at + 1 : at + 2]
        if not character:
            return _NEVER, len(part)
        if character == "-" and previous and after and after != "]":
            at += 1
            character = part[at]
            if character == "\\":
                at += 1
                character = part[at : at + 1]
                if not character:
                    return _NEVER, len(part)
            chosen.update(map(chr, range(ord(previous), min(ord(character), 0x10FFFF) + 1)))
            previous = ""
        elif character == "[" and after == ":":
            name, closed, _ = part[at + 2 :].partition("]")
            if closed and name.endswith(":"):
                if name[:-1] not in _CLASSES:
                    return _NEVER, len(part)
                chosen.update(filter(_CLASSES[name[:-1]], _ASCII))
                at += 2 + len(name)
                previous = ""
            elif not closed:
                return _NEVER, len(part)
            else:
                chosen.add("[")
                previous = "["
        else:
            if character == "\\":
                at += 1
                character = part[at : at + 1]
                if not character:
                    return _NEVER, len(part)
            chosen.add(character)
            previous = character
        at += 1
        first = False
    return (inverted, frozenset(chosen)), at + 1


def _fits(pattern: Pattern, path: Sequence[str]) -> bool:
    if not pattern.anchored:
        return _part_fits(pattern.parts[0], path[-1])  # type: ignore[arg-type]
    return _path_fits(pattern.parts, path)


def _path_fits(parts: "Sequence[tuple[Token, ...] | None]", path: Sequence[str]) -> bool:
    """Parts against parts, with `**` for any number of them (at least one when it is the last)."""
    at = here = 0
    back: tuple[int, int] | None = None
    while here < len(path):
        part = parts[at] if at < len(parts) else ()
        if at < len(parts) and part is None:
            if at == len(parts) - 1:
                return True
            back = (at + 1, here)
            at += 1
        elif at < len(parts) and part is not None and _part_fits(part, path[here]):
            at += 1
            here += 1
        elif back is not None:
            back = (back[0], back[1] + 1)
            at, here = back
        else:
            return False
    return at == len(parts)


def _part_fits(tokens: Sequence[Token], name: str) -> bool:
    at = here = 0
    back: tuple[int, int] | None = None
    while here < len(name):
        token = tokens[at] if at < len(tokens) else _NEVER
        if token is _STAR:
            if at == len(tokens) - 1:
                return True
            back = (at + 1, here)
            at += 1
        elif token is _ANY or token == name[here] or (type(token) is tuple and _chosen(token, name[here])):
            at += 1
            here += 1
        elif back is not None:
            back = (back[0], back[1] + 1)
            at, here = back
        else:
            return False
    return all(token is _STAR for token in tokens[at:])


def _chosen(token: "tuple[bool, frozenset[str]]", character: str) -> bool:
    inverted, characters = token
    return (character in characters) is not inverted
