"""The desk off the event loop: one thread owns it, since its calls wait for the store and for enforcement."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from bot_bottle.operate.approvals import Desk

T = TypeVar("T")


class OnThread:
    """Calls of a desk, one after the other, on its own thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")
        self._presence: ExitStack | None = None

    async def call(self, work: Callable[[Desk], T]) -> T:
        """What `work` answers, or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, self._desk)

    async def present(self, *, there: bool) -> None:
        """Says whether an operator is there."""
        await self.call(lambda desk: self._be_present(desk, there=there))

    def close(self) -> None:
        """Ends the presence and the thread; what is under way is finished first."""
        self._pool.submit(lambda: self._be_present(self._desk, there=False))
        self._pool.shutdown()

    def _be_present(self, desk: Desk, *, there: bool) -> None:
        if there and self._presence is None:
            with ExitStack() as stack:
                stack.enter_context(desk.present())
                self._presence = stack.pop_all()
        elif not there and self._presence is not None:
            presence, self._presence = self._presence, None
            presence.close()
