"""What happens to messages between reading and writing them: passed on in pieces, held until they were looked at, or starred."""

from collections.abc import Awaitable, Callable, Sequence

from bot_bottle.bundle.egress.held import Held
from bot_bottle.bundle.egress.hooks import Filter
from bot_bottle.bundle.egress.websocket.frames import CLOSE, Control, Piece
from bot_bottle.typed import Protocol

Look = Callable[[bytes], Awaitable[bytes]]
"""One whole message as it may go on. Raises Refusal. What is longer than the limit comes without its rest, and back as it is."""


class Through(Protocol):
    """One direction's treatment."""

    async def take(self, item: Piece | Control) -> Sequence[Piece | Control]: ...


class Passing:
    """Everything as it comes."""

    async def take(self, item: Piece | Control) -> Sequence[Piece | Control]:
        return (item,)


class Looking:
    """Messages whole, up to `limit`; beyond it `look` has the say, and what it lets pass goes on in pieces."""

    def __init__(self, look: Look, limit: int, counted: Held) -> None:
        """`counted` is told how much waits for the rest of its message; what it raises ends everything."""
        self._look = look
        self._limit = limit
        self._counted = counted
        self._held = bytearray()
        self._passes = False

    @property
    def waits(self) -> int:
        """Bytes of a message whose rest has not come."""
        return len(self._held)

    async def take(self, item: Piece | Control) -> Sequence[Piece | Control]:
        if isinstance(item, Control):
            start = 2 if item.kind == CLOSE else 0  # its code is no text
            return (item._replace(data=item.data[:start] + await self._look(item.data[start:])),)
        if self._passes:
            self._passes = not item.final
            return (item,)
        self._held += item.data
        self._counted.are(len(self._held))
        if not (item.final or len(self._held) > self._limit):
            return ()
        self._counted.whole()
        data, self._held = await self._look(bytes(self._held)), bytearray()
        self._passes = not item.final
        self._counted.nothing()
        return (Piece(item.kind, data, True, item.final),)


class Starring:
    """Messages led through a filter each, which keeps their length but may hold some back until it has seen more."""

    def __init__(self, make: Callable[[], Filter]) -> None:
        self._make = make
        self._filter = make()
        self._first = True

    async def take(self, item: Piece | Control) -> Sequence[Piece | Control]:
        if isinstance(item, Control):
            alone = self._make()
            return (item._replace(data=alone.feed(item.data) + alone.end()),)
        if item.first:
            self._filter, self._first = self._make(), True
        data = self._filter.feed(item.data)
        if item.final:
            data += self._filter.end()
        if not (data or item.final):
            return ()
        first, self._first = self._first, False
        return (Piece(item.kind, data, first, item.final),)
