"""What waits, told to every open page as soon as it changes; and whether a page is open at all."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from bot_bottle.errors import BotBottleError
from bot_bottle.operate.approvals import Desk
from bot_bottle.web import clean, view
from bot_bottle.web.access import Access, Session
from bot_bottle.web.desk import OnThread

STREAMS = 16
STREAMS_EACH = 3
"""Streams in all, and of one session: a browser opens six connections to a host, and some must stay free for the rest."""

SLICE_SECONDS = 0.05
"""How long the desk's thread waits for news before it does what was asked meanwhile."""

BEAT_SECONDS = 10.0
TROUBLE_SECONDS = 1.0
AWAY_SECONDS = 15.0
"""How long an operator counts as present after the last page went: a reload, a phone that changes its network."""


class Live:
    """The feed. It asks the desk only while somebody listens."""

    def __init__(self, desk: OnThread, access: Access) -> None:
        self._desk = desk
        self._access = access
        self._news = asyncio.Condition()
        self._event = ""
        self._version = 0
        self._streams = 0
        self._closed = False
        self._watch: asyncio.Task[None] | None = None

    def room(self, session: Session) -> bool:
        """Whether `session` may open one more stream."""
        return not self._closed and self._streams < STREAMS and session.streams < STREAMS_EACH

    async def stream(self, session: Session) -> AsyncIterator[str]:
        """Server-sent events: what waits now, and again after every change."""
        self._streams += 1
        session.streams += 1
        try:
            if self._watch is None or self._watch.done():
                self._watch = asyncio.create_task(self._watching())
                self._watch.add_done_callback(lambda _: asyncio.ensure_future(self.wake()))
            seen = 0
            while not self._closed and self._access.holds(session):
                if self._watch.done():
                    self._watch.result()  # raises what ended it
                    break
                if self._version > seen:
                    seen = self._version
                    yield self._event
                elif not await self._newer(seen, session):
                    yield ": still here\n\n"
        finally:
            session.streams -= 1
            self._streams -= 1

    async def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        await self.wake()
        if self._watch:
            await asyncio.wait([self._watch])

    @property
    def _over(self) -> bool:
        return self._closed or self._watch is None or self._watch.done()

    async def wake(self) -> None:
        """Has every stream look whether it goes on."""
        async with self._news:
            self._news.notify_all()

    async def _newer(self, seen: int, session: Session) -> bool:
        try:
            async with asyncio.timeout(BEAT_SECONDS), self._news:
                await self._news.wait_for(
                    lambda: self._version > seen or self._over or not self._access.holds(session)
                )
        except TimeoutError:
            return False
        return True

    async def _watching(self) -> None:
        """Runs while a page is open, and a little longer."""
        while self._streams and not self._closed:
            try:
                await self._watch_open_pages()
            finally:
                self._version, self._event = 0, ""  # who comes now is not told what was
                await self._desk.present(there=False)

    async def _watch_open_pages(self) -> None:
        loop = asyncio.get_running_loop()
        away_at, news = 0.0, True
        while not self._closed:
            away_at = loop.time() + AWAY_SECONDS if self._streams else away_at
            if loop.time() > away_at:
                break
            try:
                await self._desk.present(there=True)
                if news:
                    await self._tell(await self._desk.call(_inbox))
                news = await self._desk.call(lambda desk: desk.changed(SLICE_SECONDS))
            except BotBottleError as error:
                news = True
                await self._tell(event("trouble", {"problem": clean.block(str(error))}))
                await asyncio.sleep(TROUBLE_SECONDS)

    async def _tell(self, said: str) -> None:
        if said != self._event:
            self._event = said
            self._version += 1
            await self.wake()


def event(name: str, document: dict[str, Any]) -> str:
    """One server-sent event. JSON in ASCII has no line end in it."""
    return f"event: {name}\ndata: {json.dumps(document)}\n\n"


def _inbox(desk: Desk) -> str:
    waiting = [view.row(shown) for shown in desk.waiting()]
    return event("inbox", {"waiting": waiting, "grants": [view.grant(each) for each in desk.grants()]})
