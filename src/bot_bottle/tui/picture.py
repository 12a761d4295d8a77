"""A picture of the inbox as it stands, without a terminal: for documents, and for looking at it."""

import asyncio
import re
from collections.abc import Sequence

from textual.pilot import Pilot

from bot_bottle.tui.app import InboxApp
from bot_bottle.tui.threads import OpenDesk

_FETCHED = re.compile(r"@font-face\s*\{[^}]*\}")


def picture(
    open_desk: OpenDesk,
    *,
    keys: Sequence[str] = (),
    size: tuple[int, int] = (120, 36),
    title: str = "bot-bottle inbox",
) -> str:
    """The inbox as SVG, once it has shown what waits and the `keys` (by Textual's names) were pressed.

    The picture fetches no fonts from anywhere, as Rich's own would.
    """
    return asyncio.run(_picture(open_desk, keys, size, title))


async def _picture(open_desk: OpenDesk, keys: Sequence[str], size: tuple[int, int], title: str) -> str:
    app = InboxApp(open_desk, settle=0.0)
    async with app.run_test(size=size) as pilot:
        await _looked(pilot, app)
        for key in keys:
            await pilot.press(key)
            await _looked(pilot, app)
        return _FETCHED.sub("", app.export_screenshot(title=title))


async def _looked(pilot: "Pilot[None]", app: InboxApp) -> None:
    """Until nothing is being looked up or decided any more."""
    await pilot.pause()
    while app.news is None:
        await pilot.pause(0.01)
    await app.workers.wait_for_complete()
    await pilot.pause()
