"""The inbox as a program: what is known now, what the operator chose, and the way of every decision to the desk and back."""

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.theme import Theme

from bot_bottle.errors import BotBottleError
from bot_bottle.policy.approval import Approval, Decided, Shown, Terms
from bot_bottle.tui import telling
from bot_bottle.tui.clean import block
from bot_bottle.tui.dialog import Dialog, Tell
from bot_bottle.tui.inbox import Item
from bot_bottle.tui.page import Page
from bot_bottle.tui.refuse import Refusal
from bot_bottle.tui.rows import Rows
from bot_bottle.tui.threads import Clerk, News, OpenDesk, Wants, Watch, gather
from bot_bottle.tui.waiting import Waiting

SETTLE = 0.5
"""Seconds that something must have been on the screen before a key decides it."""
CLOSE_AFTER = 1.5
"""Seconds to read what became of the last decision, when the inbox then closes by itself."""
MOST_TOLD = 50
THEME = Theme(
    name="bottle",
    primary="#2f6f8f",
    secondary="#5fa8a0",
    warning="#e0a030",
    error="#d9534f",
    success="#5cb85c",
    accent="#5fa8a0",
    foreground="#d8dee9",
    background="#12161b",
    surface="#1a2027",
    panel="#232b34",
    dark=True,
    variables={"block-cursor-background": "#2b4a5e", "block-cursor-foreground": "#ffffff"},
)


class InboxApp(App[None]):
    """Opens two desks: one to watch, one to act. With `once` it ends when all that waited is decided. `settle` is for tests."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Rows, Detail, #what { scrollbar-size-vertical: 1; scrollbar-color: $primary; scrollbar-background: $panel; }
    """
    TITLE = "bot-bottle inbox"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("ctrl+q,ctrl+c", "quit", "Quit", show=False),
    ]

    class Heard(Message):
        """News from the thread that watches."""

        def __init__(self, news: News | Exception) -> None:
            super().__init__()
            self.news = news

    def __init__(self, open_desk: OpenDesk, *, settle: float = SETTLE, once: bool = False) -> None:
        # Said here, since the filter that takes colours away is chosen now: with it, nothing of a colour is sent at all.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self._once = once
        self._had = False
        self.settle = settle
        self.clerk = Clerk(open_desk)
        self.news: News | None = None
        self.said: tuple[str, ...] = ("",)
        self.terms: dict[str, Terms] = {}
        self.deciding: set[str] = set()
        self.decided: set[str] = set()
        self._wanted = Wants()
        self._watch = Watch(open_desk, lambda: self._wanted, self._hear)

    def on_mount(self) -> None:
        self.register_theme(THEME)
        few = self.console.color_system in (None, "standard")  # ours would come out as grey on grey
        self.theme = "ansi-dark" if self.no_color or few else THEME.name
        self.push_screen(Waiting())
        self._watch.start()

    def on_unmount(self) -> None:
        self._watch.stop()
        self.clerk.stop()

    def wants(self) -> Wants:
        """What has to be known for what is on the screen."""
        names = {type(screen).__name__ for screen in self.screen_stack}
        self._wanted = Wants(tuple(self.terms.items()), decided="History" in names, grants="Grants" in names)
        return self._wanted

    # What is new

    def _hear(self, news: News | Exception) -> None:
        """On the thread that watches."""
        self.post_message(self.Heard(news))

    def on_inbox_app_heard(self, message: Heard) -> None:
        try:
            if isinstance(message.news, Exception):
                raise message.news
            if message.news.wants == self.wants() or message.news.trouble:
                self._take(message.news)
            else:
                self.look()
        finally:
            self._watch.taken()

    def _take(self, news: News) -> None:
        waiting = {shown.proposal.id for shown in news.waiting}
        if not news.trouble:
            self.terms = {id_: terms for id_, terms in self.terms.items() if id_ in waiting}
            news = news._replace(wants=self.wants())
        self.news = news
        for screen in self.screen_stack:
            if isinstance(screen, Page | Dialog) and screen.is_mounted:
                screen.heard()

        if self._once and not news.trouble:
            self._close_when_done(waiting)

    def _close_when_done(self, waiting: set[str]) -> None:
        if self._had and not waiting and not self.deciding and isinstance(self.screen, Waiting):
            self.set_timer(CLOSE_AFTER, self.exit)
        self._had = self._had or bool(waiting)

    def look(self) -> None:
        """Looks again at once: something else is wanted than before."""

        async def look() -> None:
            wants = self.wants()
            try:
                news = await self.clerk.do(lambda desk: gather(desk, wants))
            except BotBottleError as error:
                news = News(trouble=str(error))
            if news.trouble or news.wants == self.wants():
                self._take(news)

        self.run_worker(look(), group="look", exclusive=True)

    def say(self, text: str, *, bad: bool = False) -> None:
        """The last message, on every page."""
        self.said = (text,)
        for screen in self.screen_stack:
            if isinstance(screen, Page) and screen.is_mounted:
                screen.say(text, bad=bad)
        if bad:
            self.bell()

    # Decisions

    def approve(self, approvals: Sequence[Approval]) -> None:
        """Decides all of them; what did not count is told in a box."""

        async def decide() -> list[Decided]:
            return await self.clerk.do(lambda desk: desk.approve(approvals))

        ids = [approval.id for approval in approvals]
        self._decide(ids, "Approving", decide)

    def reject(self, ids: Sequence[str], refusal: Refusal) -> None:
        """Refuses all of them."""

        async def decide() -> list[Decided]:
            return await self.clerk.do(
                lambda desk: desk.reject(ids, refusal.reason, may_ask_again=refusal.may_ask_again)
            )

        self._decide(ids, "Rejecting", decide)

    def _decide(self, ids: Sequence[str], what: str, act: Callable[[], Awaitable[list[Decided]]]) -> None:
        async def decide() -> None:
            try:
                answers = await act()
            except BotBottleError as error:
                self.decided.difference_update(ids)
                self._tell(f"{what} failed", Content(block(str(error), 2000)))
            else:
                self.decided.difference_update(each.id for each in answers if each.problem)
                self._report(answers)
            finally:
                self.deciding.difference_update(ids)
                self._redraw()

        self.deciding.update(ids)
        self.decided.update(ids)
        self.say(f"{what} {telling.counted(len(ids), 'proposal')} …")
        self._redraw()
        self.run_worker(decide())

    def _report(self, answers: Sequence[Decided]) -> None:
        """Says what became of each; what did not count, in a box that has to be closed."""
        good = Counter(each.state for each in answers if not each.problem)
        bad = [each for each in answers if each.problem]
        said = "; ".join(f"{number} {telling.OUTCOMES[state]}" for state, number in good.items())
        self.say(f"{said}." if said else "Nothing was decided.", bad=bool(bad))
        if bad:
            parts = [telling.not_counted(each) for each in bad[:MOST_TOLD]]
            parts += [Content(f"… and {len(bad) - MOST_TOLD} more")] if len(bad) > MOST_TOLD else []
            title = f"{len(bad)} of {telling.counted(len(answers), 'decision')} did not come about"
            self._tell(title, Content("\n\n").join([*([Content(f"{said}.")] if said else []), *parts]))

    def withdraw(self, grant: str) -> None:
        """Ends a grant."""

        async def withdraw() -> None:
            try:
                await self.clerk.do(lambda desk: desk.withdraw(grant))
            except BotBottleError as error:
                self._tell("Withdrawing failed", Content(block(str(error), 2000)))
            else:
                self.say("The grant is withdrawn.")
                self.look()

        self.say("Withdrawing …")
        self.run_worker(withdraw())

    def edit(self, item: Item) -> None:
        """Opens the editor with what `item` would allow; the page then shows what the text would."""

        def edited(shown: list[Shown] | None) -> None:
            if shown:
                self.terms |= {each.proposal.id: each.terms for each in shown}
                self.say("Edited. What it would change now is shown; nothing is approved yet.")
                self.look()

        async def open_editor() -> None:
            try:
                text = await self.clerk.do(lambda desk: desk.routes_text(item.first))
            except BotBottleError as error:
                self._tell("It can't be edited", Content(block(str(error), 2000)))
                return
            if not text.strip() and not item.first.proposal.routes and item.first.terms.routes is None:
                self.say("There are no routes in it that could be edited.")
            elif isinstance(self.screen, Waiting):
                from bot_bottle.tui.edit import Edit

                self.push_screen(Edit(item, text), edited)

        self.run_worker(open_editor(), group="edit", exclusive=True)

    def _tell(self, title: str, text: Content) -> None:
        self.say(f"{title}.", bad=True)
        self.push_screen(Tell(title, text))

    def _redraw(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, Page) and screen.is_mounted:
                screen.query_one(Rows).refresh()

    # Pages

    def action_grants(self) -> None:
        from bot_bottle.tui.grants import Grants

        self.push_screen(Grants())
        self.look()

    def action_history(self) -> None:
        from bot_bottle.tui.history import History

        self.push_screen(History())
        self.look()

    def action_help(self) -> None:
        from bot_bottle.tui.help import TEXT

        self.push_screen(Tell("Keys", Content(TEXT)))

    def _fatal_error(self) -> None:
        """Ends without a traceback on the terminal, which would show text of others: `run` raises the error."""
        self._close_messages_no_wait()


def run(open_desk: OpenDesk, *, once: bool = False) -> None:
    """The inbox, until the operator leaves it, or with `once` all that waited is decided; agents are told meanwhile that
    somebody is there.

    `open_desk` is called once by each thread that needs a desk. Raises StateError when there is none, and what went wrong.
    """
    with open_desk() as desk, desk.present():
        app = InboxApp(open_desk, once=once)
        app.run()
    if app._exception is not None:
        raise app._exception
