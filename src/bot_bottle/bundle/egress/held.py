"""What waits to be looked at: how much of it all connections may hold together, and that looking lets others have their turn.

Counted over the whole process, which serves one bottle.
"""

import asyncio

from bot_bottle.bundle.egress.denial import Refusal, explain
from bot_bottle.policy.egress import Wanted

MOST = 64 << 20
"""Bytes; but always twice what one body may have."""
_LONG = 16 * 1024
_turns = asyncio.Lock()


class Held:
    """What one body or message holds of what all may hold. `limit` is how large one may be."""

    total = 0

    def __init__(self, wanted: Wanted, limit: int = 0) -> None:
        self._wanted = wanted
        self._most = max(MOST, 2 * limit)
        self._size = 0

    def are(self, size: int) -> None:
        """Raises Refusal when that is too much."""
        Held.total += size - self._size
        self._size = size
        if Held.total > self._most and size:
            raise Refusal(403, "body_too_large", explain("body_too_large"), wanted=self._wanted)

    def nothing(self) -> None:
        """Whatever happened: nothing of it is held any more."""
        self.are(0)


async def turn(size: int) -> None:
    """Waits until it is this one's turn to look at so many bytes.

    Many bodies may have come at the same time, and looking at one of them can take the loop for a second. The keeper must not
    have to wait for all of them when it orders something.
    """
    if size >= _LONG:
        async with _turns:
            await asyncio.sleep(0)
