"""Asks that another program kept from being stored: tried again in the order they came in, for as long as who asks waits."""

from collections.abc import Callable

from bot_bottle.errors import BusyError, StateError
from bot_bottle.launch.wishes import After
from bot_bottle.typed import NamedTuple

WITHIN = 20.0
"""Seconds; the agent's tool waits for its first answer no longer than `bundle.supervise.server.FIRST_ANSWER`."""
TRY_EACH = 0.25
MOST = 16
"""How many wait. They are no proposals yet, so nothing else counts them."""


class Unstored(NamedTuple):
    """`act` stores it and answers, or raises StateError; `fail` answers that it could not be."""

    until: float
    act: Callable[[], None]
    fail: Callable[[], None]


class Queue:
    """Those of one run; `clock` is monotonic."""

    def __init__(self, after: After, clock: Callable[[], float]) -> None:
        self._after = after
        self._clock = clock
        self._waiting: list[Unstored] = []

    def put(self, act: Callable[[], None], fail: Callable[[], None]) -> None:
        """Does `act` once that can be done, or `fail`; both at once where nothing has to be waited for."""
        new = Unstored(self._clock() + WITHIN, act, fail)
        if len(self._waiting) >= MOST:
            fail()
        elif self._waiting or not _done(new):
            self._waiting.append(new)
            if len(self._waiting) == 1:
                self._after(TRY_EACH, self._again)

    def _again(self) -> None:
        now = self._clock()
        while self._waiting:
            if self._waiting[0].until <= now:
                self._waiting.pop(0).fail()
            elif _done(self._waiting[0]):
                del self._waiting[0]
            else:
                self._after(TRY_EACH, self._again)
                return


def _done(ask: Unstored) -> bool:
    try:
        ask.act()
    except BusyError:
        return False
    except StateError:
        ask.fail()
    return True
