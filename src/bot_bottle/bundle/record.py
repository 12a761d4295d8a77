"""What the bundle reports of its decisions: every one, but so that an agent can't fill the keeper's disk with them.

The first of a kind goes out at once. The same refusal again, and everything beyond a steady rate, is folded: counted, and
reported later in one event with `count`. What does not even fit into that is reported as numbers in `egress.folded`.
"""

import time
from collections.abc import Callable, Mapping

from bot_bottle.typed import Any, Protocol

BURST, RATE = 300, 5.0
"""Events that may go out at once, and events a second that they are made up by."""
INTERVAL = 5.0
DIFFERENT, EACH_TIME = 256, 32
"""Different folded events that are remembered, and how many of them go out each `INTERVAL`."""
_LONGEST = 300
_SAME = ("via", "host", "port", "protocol", "reason", "detector", "place", "fingerprint")
_SAME_REFUSAL = (*_SAME, "method", "path")
_SUMMED = ("up", "down", "seconds")

Data = dict[str, Any]


class Teller(Protocol):
    """The line to the keeper."""

    def has_room(self) -> bool: ...
    def tell(self, message: Data, /) -> object: ...


class Later(Protocol):
    """`loop.call_later`."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> object: ...


def clean(text: str, longest: int = _LONGEST) -> str:
    """Agent's text as it may stand in an event: printable ASCII, at most `longest` characters."""
    if len(text) <= longest and text.isascii() and text.isprintable():
        return text
    shown = "".join(char if " " <= char <= "~" else "\ufffd" for char in text[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 1] + "\u2026"


class Record:
    """Makes events and hands them on. `clock` and `later` are the loop's."""

    def __init__(self, keeper: Teller, *, clock: Callable[[], float], later: Later) -> None:
        self._keeper = keeper
        self._clock = clock
        self._later = later
        self._tokens = float(BURST)
        self._filled_at = clock()
        self._recent: set[tuple[Any, ...]] = set()
        self._folded: dict[tuple[Any, ...], tuple[str, Data]] = {}
        self._beyond: dict[str, int] = {}
        self._flushing = False
        self.counts: dict[tuple[str, str], int] = {}
        """How often each kind of event came with each reason, folded or not."""
        self.up = self.down = 0
        """Bytes of the connections that have ended."""

    def event(self, kind: str, data: Data) -> None:
        """Reports that `kind` happened; text in `data` is cleaned here."""
        data = {key: clean(value) if isinstance(value, str) else value for key, value in data.items()}
        self._count(kind, str(data.get("reason", "")), data)
        refusal = kind.endswith((".refused", ".observed"))  # what is only watched would be a refusal
        same = (kind, *(data.get(name) for name in (_SAME_REFUSAL if refusal else _SAME)))
        if not (refusal and same in self._recent) and same not in self._folded and self._may_send():
            if refusal and len(self._recent) < DIFFERENT:
                self._recent.add(same)
                self._flush_later()
            self._send(kind, data)
        else:
            self._fold(kind, same, data)

    def again(
        self, kind: str, via: str, host: str, port: int, protocol: str, reason: str, **sums: float
    ) -> bool:
        """Counts one more of an event that waits to be reported with others like it, for which nothing else has to be known;
        False when none does. Not for refusals, which are told apart by more."""
        kept = self._folded.get((kind, via, host, port, protocol, reason, None, None, None))
        if kept is None:
            return False
        self._add(kept[1], sums)
        self._count(kind, reason, sums)
        return True

    def _count(self, kind: str, reason: str, data: Mapping[str, Any]) -> None:
        counted = (kind, reason)
        self.counts[counted] = self.counts.get(counted, 0) + 1
        self.up += data.get("up", 0)
        self.down += data.get("down", 0)

    def _add(self, kept: Data, data: Mapping[str, Any]) -> None:
        kept["count"] += 1
        for name in _SUMMED:
            if name in kept:
                kept[name] = round(kept[name] + data.get(name, 0), 3)

    def _may_send(self) -> bool:
        now = self._clock()
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
        self._filled_at = now
        if self._tokens < 1 or not self._keeper.has_room():
            return False
        self._tokens -= 1
        return True

    def _send(self, kind: str, data: Data) -> None:
        self._keeper.tell({"event": kind, "at": round(time.time(), 3), "data": data})

    def _fold(self, kind: str, same: tuple[Any, ...], data: Data) -> None:
        self._flush_later()
        if same in self._folded:
            self._add(self._folded[same][1], data)
        elif len(self._folded) < DIFFERENT:
            self._folded[same] = (kind, {**data, "count": 1})
        else:
            self._beyond[kind] = self._beyond.get(kind, 0) + 1

    def _flush_later(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._later(INTERVAL, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._recent.clear()
        if self._keeper.has_room():
            self.flush(EACH_TIME)
        if self._folded or self._beyond:
            self._flush_later()

    def flush(self, most: int = DIFFERENT) -> None:
        """Sends what was folded, at most `most` events and the numbers of the rest."""
        for same in list(self._folded)[:most]:
            self._send(*self._folded.pop(same))
            self._recent.add(same)
        if self._recent:
            self._flush_later()
        if self._beyond:
            self._send("egress.folded", {"counts": self._beyond})
            self._beyond = {}
