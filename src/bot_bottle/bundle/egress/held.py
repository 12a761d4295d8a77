"""What waits to be looked at: how much of it all connections may hold together, and that looking lets others have their turn.

Counted over the whole process, which serves one bottle. Where there is no room left, what has been coming for longest gives way:
a client in the bottle is as near as can be, so an honest body is there in a moment.
"""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from time import monotonic
from typing import ClassVar, TypeVar

from bot_bottle.bundle.egress.denial import Refusal, explain
from bot_bottle.policy.egress import Wanted

MOST = 64 << 20
"""Bytes; but always twice what one body may have."""
PATIENCE = 1.0
"""Seconds that a body may take to come while others have no room."""
_LONG = 16 * 1024
_turns = asyncio.Lock()
T = TypeVar("T")
Steps = Generator[int, None, T]
"""Looking at something bit by bit: before each one, how many bytes it has; at the end, what was found."""


class Held:
    """What one body or message holds of what all may hold. `limit` is how large one may be."""

    total: ClassVar[int] = 0
    _coming: ClassVar["dict[Held, float]"] = {}
    """Those whose rest is waited for, and since when; the oldest first."""

    def __init__(self, wanted: Wanted, limit: int = 0) -> None:
        self._wanted = wanted
        self._most = max(MOST, 2 * limit)
        self._size = 0
        self._timer: asyncio.Timeout | None = None
        self._gone = False

    def are(self, size: int) -> None:
        """Raises Refusal when that is too much, and nothing gives way to it."""
        Held.total += size - self._size
        self._size = size
        if not size:
            self._coming.pop(self, None)
            return
        now = monotonic()
        if self._timer is not None:
            self._coming.setdefault(self, now)
        while Held.total > self._most:
            oldest, since = next(iter(self._coming.items()), (self, now))
            if oldest is self or now - since < PATIENCE:
                raise Refusal(403, "body_too_large", explain("body_too_large"), wanted=self._wanted)
            oldest._give_way()

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        """While in it, more is waited for, and it gives way to others when it takes too long: raises Refusal then."""
        try:
            async with asyncio.timeout(None) as self._timer:
                yield
        except TimeoutError as error:
            if not self._gone:
                raise
            raise Refusal(403, "body_stalled", explain("body_stalled"), wanted=self._wanted) from error
        finally:
            self._timer = None
            self._coming.pop(self, None)

    def whole(self) -> None:
        """All of it is here: it is looked at now, and gives way to nobody until there is something new."""
        self._coming.pop(self, None)

    def _give_way(self) -> None:
        self.are(0)
        self._gone = True
        if self._timer is not None:
            self._timer.reschedule(asyncio.get_running_loop().time())

    def nothing(self) -> None:
        """Whatever happened: nothing of it is held any more."""
        self.are(0)


async def turn(size: int) -> None:
    """Waits until it is this one's turn to look at so many bytes.

    Much may have come at the same time, and looking at one body can take the loop for a second. The keeper must not have to
    wait for all of them when it orders something.
    """
    if size >= _LONG:
        async with _turns:
            await asyncio.sleep(0)


async def in_turns(steps: Steps[T]) -> T:
    """What `steps` find; the others have their turn before each one."""
    while True:
        try:
            size = next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        await turn(size)


def at_once(steps: Steps[T]) -> T:
    """The same of what is too little for turns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
