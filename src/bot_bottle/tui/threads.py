"""The desk away from the screen: a thread that watches it, and one that does what the operator wants. Each has its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, TypeVar

from bot_bottle.errors import BotBottleError, NotFoundError, StateError
from bot_bottle.operate.approvals import Desk
from bot_bottle.policy.approval import Grant, Shown, Terms

T = TypeVar("T")
OpenDesk = Callable[[], AbstractContextManager[Desk]]
LOOK = 0.25
"""Seconds that a wait for a change may take: the end of the inbox waits for it."""
_AGAIN = 1.0
HISTORY = 200


class Wants(NamedTuple):
    """What the screens show beside what waits: `terms` are those that the operator chose for some proposals."""

    terms: tuple[tuple[str, Terms], ...] = ()
    decided: bool = False
    grants: bool = False


class News(NamedTuple):
    """How everything stands, for those `wants`. `trouble` says why it is not known; then the rest says nothing."""

    waiting: tuple[Shown, ...] = ()
    decided: tuple[Shown, ...] | None = None
    grants: tuple[Grant, ...] | None = None
    trouble: str = ""
    wants: Wants = Wants()
    files: tuple[tuple[str, str], ...] = ()
    """What would change in the bottle's file, by the proposal, of those that would be approved for good."""


def gather(desk: Desk, wants: Wants) -> News:
    """How everything stands now. Raises StateError."""
    chosen = dict(wants.terms)
    waiting = []
    for shown in desk.waiting():
        terms = chosen.get(shown.proposal.id)
        waiting.append(shown if terms is None or terms == shown.terms else _again(desk, shown, terms))
    return News(
        tuple(waiting),
        tuple(desk.decided(HISTORY)) if wants.decided else None,
        tuple(desk.grants()) if wants.grants else None,
        wants=wants,
        files=tuple(
            (each.proposal.id, _in_file(desk, each)) for each in waiting if each.terms.scope == "manifest"
        ),
    )


def _in_file(desk: Desk, shown: Shown) -> str:
    try:
        return desk.file_diff(shown)
    except StateError:
        raise
    except BotBottleError as error:
        return f"It can't be written there: {error.brief}\n{error.details}"


def _again(desk: Desk, shown: Shown, terms: Terms) -> Shown:
    """The same on those terms; as it was if it has gone meanwhile, which the next look will tell."""
    try:
        return desk.show(shown.proposal.id, terms)
    except NotFoundError:
        return shown


class Watch:
    """Tells how everything stands, at the beginning and whenever it changed; never faster than it is `taken`.

    An exception that nobody foresaw is told as well, and ends it.
    """

    def __init__(
        self, open_desk: OpenDesk, wants: Callable[[], Wants], tell: Callable[[News | Exception], None]
    ) -> None:
        self._open = open_desk
        self._wants = wants
        self._tell = tell
        self._stopped = threading.Event()
        self._taken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inbox-watch", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def taken(self) -> None:
        """What was told last is on the screen."""
        self._taken.set()

    def stop(self) -> None:
        """Watches no more, and waits for the end of the look that is going on."""
        self._stopped.set()
        self._taken.set()
        self._thread.join(4 * LOOK)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 - the end of a thread: whoever listens raises it
            self._tell(error)

    def _watch(self) -> None:
        desk: Desk | None = None
        with ExitStack() as opened:
            while not self._stopped.is_set():
                try:
                    desk = desk or opened.enter_context(self._open())
                    news = gather(desk, self._wants())
                except BotBottleError as error:
                    news = News(trouble=str(error))
                self._taken.clear()
                if self._stopped.is_set():
                    return
                self._tell(news)
                self._taken.wait()
                if desk is None or news.trouble or not self._wait(desk):
                    self._stopped.wait(_AGAIN)

    def _wait(self, desk: Desk) -> bool:
        """Until something changed; False when that can't be told."""
        try:
            while not self._stopped.is_set() and not desk.changed(LOOK):
                pass
        except BotBottleError:
            return False
        return True


class Clerk:
    """Does one thing after the other with a desk of its own, on one thread."""

    def __init__(self, open_desk: OpenDesk) -> None:
        self._open = open_desk
        self._desk: Desk | None = None
        self._opened = ExitStack()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="inbox-clerk")

    async def do(self, act: Callable[[Desk], T]) -> T:
        """What `act` gives; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._act, act)

    def stop(self) -> None:
        """Begins nothing more; what is under way is finished, and not waited for."""
        self._pool.submit(self._opened.close)
        self._pool.shutdown(wait=False)

    def _act(self, act: Callable[[Desk], T]) -> T:
        if self._desk is None:
            self._desk = self._opened.enter_context(self._open())
        return act(self._desk)
