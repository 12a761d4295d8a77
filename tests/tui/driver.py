"""The inbox in a terminal of the test's own: keys go in, and the screen is read as a person would."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf

from textual.pilot import Pilot

from bot_bottle.testing.desk import FakeDesk
from bot_bottle.tui.app import InboxApp
from bot_bottle.tui.waiting import Waiting


class Inbox:
    """An inbox that is open. `settle` is how long something must stand before a key decides it; 0 in most tests."""

    def __init__(self, app: InboxApp, pilot: "Pilot[None]", desk: FakeDesk) -> None:
        self.app = app
        self.pilot = pilot
        self.desk = desk

    async def press(self, *keys: str) -> None:
        """Presses each key once everything before it has been done and drawn."""
        for key in keys:
            await self.until(
                lambda: getattr(self.app.screen, "_readable_at", 0.0) < inf, "the box to be drawn"
            )
            await self.pilot.press(key)
            await self.rest()

    async def rest(self) -> None:
        """Until nothing is under way."""
        await self.pilot.pause()
        if self.desk.gate.is_set():
            await self.app.workers.wait_for_complete()
        await self.pilot.pause()

    async def until(self, condition: Callable[[], object], what: str, within: float = 60.0) -> None:
        """Until `condition`; AssertionError with the screen when that takes too long."""
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; the screen:\n{self.screen}"
            await self.pilot.pause(0.01)

    async def sees(self, text: str) -> None:
        """Until `text` is on the screen."""
        await self.until(lambda: text in self.screen, repr(text))

    @property
    def lines(self) -> list[str]:
        """What is on the screen, line by line."""
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    @property
    def screen(self) -> str:
        """What is on the screen."""
        return "\n".join(self.lines)

    @property
    def page(self) -> Waiting:
        """The first page."""
        return next(screen for screen in self.app.screen_stack if isinstance(screen, Waiting))

    @property
    def selected(self) -> str:
        """The id of what is shown."""
        return self.page.item.key if self.page.item else ""

    @property
    def marked_line(self) -> str:
        """The line of the list that has the cursor."""
        return next((line for line in self.lines if line.startswith("> ")), "")


@asynccontextmanager
async def opened(
    desk: FakeDesk, *, size: tuple[int, int] = (120, 36), settle: float = 0.0
) -> AsyncIterator[Inbox]:
    """An inbox over `desk` that has shown what waits."""
    app = InboxApp(lambda: desk, settle=settle)
    async with app.run_test(size=size) as pilot:
        inbox = Inbox(app, pilot, desk)
        await inbox.until(lambda: app.news is not None, "the first look")
        await inbox.rest()
        yield inbox
        desk.gate.set()


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> None:
        asyncio.run(test(*arguments, **named))

    return run
