"""The agent's calls that wait for the keeper: numbered, told to it, and matched with what it answers.

A call that is given up is told as `leave`; what was asked for stays asked for. Only the latest answer to a call is kept, so that
what waits here is bounded whatever the keeper or the agent do.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

MOST = 64
"""Calls that wait at once."""

Message = Mapping[str, Any]


class TooManyCalls(Exception):
    """As many wait as may."""


class Call:
    """One call. `answer` waits for the next thing that the keeper says of it."""

    def __init__(self) -> None:
        self.ended = False
        """Whether the keeper has said its last of it."""
        self._latest: Message | None = None
        self._heard = asyncio.Event()

    async def answer(self, seconds: float) -> Message | None:
        """What the keeper said last that was not given yet; None when it says nothing new for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        except TimeoutError:
            return None
        self._heard.clear()
        return self._latest

    def hear(self, message: Message) -> None:
        self._latest = message
        self._heard.set()


class Calls:
    """All calls of one process. `tell` says something to the keeper."""

    def __init__(self, tell: Callable[[Message], object]) -> None:
        self._tell = tell
        self._waiting: dict[int, Call] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def begin(self, kind: str, **more: Any) -> Iterator[Call]:
        """Asks the keeper `{kind: N, …}`; when the block ends before the call has, the keeper is told that nobody waits any more.

        Raises TooManyCalls.
        """
        if len(self._waiting) >= MOST:
            raise TooManyCalls
        self._number += 1
        number, call = self._number, Call()
        self._waiting[number] = call
        try:
            self._tell({kind: number, **more})
            yield call
        finally:
            del self._waiting[number]
            if not call.ended:
                self._tell({"leave": number})

    def hear(self, message: Message) -> None:
        """What the keeper said; an answer to a call that nobody waits for is dropped."""
        number = message.get("to")
        call = self._waiting.get(number) if isinstance(number, int) else None
        if call is not None:
            call.hear(message)
