"""A desk off the event loop: a thread opens it and owns it, since its calls wait for the store and for enforcement."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from bot_bottle.operate.approvals import Desk

T = TypeVar("T")
OpenDesk = Callable[[], AbstractContextManager[Desk]]


class OnThread:
    """Calls of a desk, one after the other, on its own thread. It is opened at the first."""

    def __init__(self, open_desk: OpenDesk) -> None:
        self._open = open_desk
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")
        self._desk: Desk | None = None
        self._stack = ExitStack()
        self._presence: ExitStack | None = None

    async def call(self, work: Callable[[Desk], T]) -> T:
        """What `work` answers, or raises; StateError when the desk can't be opened."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(self._opened()))

    async def present(self, *, there: bool) -> None:
        """Says whether an operator is there."""
        await self.call(lambda desk: self._be_present(desk, there=there))

    def close(self) -> None:
        """Ends the presence, the desk and the thread; what is under way is finished first."""
        self._pool.submit(self._stack.close)
        self._pool.shutdown()

    def _opened(self) -> Desk:
        if self._desk is None:
            self._desk = self._stack.enter_context(self._open())
        return self._desk

    def _be_present(self, desk: Desk, *, there: bool) -> None:
        if there and self._presence is None:
            self._presence = self._stack.enter_context(ExitStack())
            self._presence.enter_context(desk.present())
        elif not there and self._presence is not None:
            presence, self._presence = self._presence, None
            presence.close()
