"""What a bundle says that happened, as it may stand in the record. The bundle faces the agent, so it is believed no further.

One that was broken into may say anything at any rate. What it says is written down only in the shape that events have, and no
faster than a bundle that folds its events as it should would ever say them.
"""

import re
from collections.abc import Callable, Mapping

from bot_bottle.bundle.record import clean
from bot_bottle.typed import Any

BURST, RATE = 2000, 50.0
"""Events that are taken at once, and events a second that they are made up by; an honest bundle needs a tenth of it."""
BUNDLES = re.compile(r"(?:egress|dns)\.[a-z]{1,32}")
GATES = re.compile(r"git\.[a-z]{1,32}")
"""Which events may come from whom."""
_KEY = re.compile(r"[a-z_]{1,32}")
_COUNTED = re.compile(r"[a-z.]{1,40}")
_MOST_KEYS = 32
_LARGEST = 1 << 62

Told = tuple[str, dict[str, Any]]


def parse(line: bytes) -> dict[str, Any] | None:
    """The object that a line holds; None when it holds none."""
    import json

    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def event(message: Mapping[str, Any], kinds: "re.Pattern[str]" = BUNDLES) -> Told | None:
    """The kind and the data of the event in a message; None when there is none that has an event's shape."""
    kind, data = message.get("event"), message.get("data")
    if not isinstance(kind, str) or kinds.fullmatch(kind) is None or not isinstance(data, dict):
        return None
    try:
        return kind, _flat(data, _KEY, _value)
    except ValueError:
        return None


def _flat(data: dict[str, Any], keys: "re.Pattern[str]", taken: Callable[[Any], Any]) -> dict[str, Any]:
    if len(data) > _MOST_KEYS or not all(map(keys.fullmatch, data)):
        raise ValueError("no event's data")
    return {key: taken(value) for key, value in data.items()}


def _value(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return _flat(value, _COUNTED, _number)
    return value if value is None or isinstance(value, bool) else _number(value)


def _number(value: object) -> int | float:
    if not isinstance(value, (int, float)) or not -_LARGEST <= value <= _LARGEST:
        raise ValueError("no number")  # and so is NaN, which is not within anything
    return value


class Room:
    """How much of what a bundle says is taken. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._filled_at = clock()
        self._passed_over = 0

    def take(self, told: list[Told]) -> list[Told]:
        """Those of `told` that there is room for; how many there was none for is said once there is some again."""
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._filled_at) * RATE)
        self._filled_at = now
        fitting = told[: int(self._left)]
        self._left -= len(fitting)
        self._passed_over += len(told) - len(fitting)
        if self._passed_over and self._left >= 1:
            fitting.append(("egress.folded", {"counts": {"passed.over": self._passed_over}}))
            self._left -= 1
            self._passed_over = 0
        return fitting
