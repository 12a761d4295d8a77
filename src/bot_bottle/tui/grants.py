"""What approvals allow now, and taking it back."""

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Footer, Static

from bot_bottle.policy.approval import Grant
from bot_bottle.policy.difference import bare, line_of
from bot_bottle.tui import telling
from bot_bottle.tui.clean import cut, line
from bot_bottle.tui.confirm import Ask
from bot_bottle.tui.page import LEAVE, Page, two_sides
from bot_bottle.tui.rows import Row, Rows
from bot_bottle.tui.threads import News


class Grants(Page):
    """Every grant that holds; `w` ends one."""

    DEFAULT_CSS = """
    Page.-narrow Grants Rows, Grants Rows { max-height: 60%; height: auto; }
    Grants #grant { padding: 1; height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("w", "withdraw", "Withdraw"), LEAVE]

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, Grant] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="bar", markup=False)
        yield Static(id="trouble", markup=False)
        with Container(id="body"):
            yield Rows(id="list", height=2)
            yield Static(id="grant", markup=False)
        yield Static(id="status", markup=False)
        yield Footer(show_command_palette=False, compact=True)

    def take(self, news: News) -> None:
        if news.grants is None:
            return
        self._known = {held.id: held for held in sorted(news.grants, key=lambda held: (held.since, held.id))}
        selected = self.selected if self.selected in self._known else next(iter(self._known), "")
        self.fill([self._row(held) for held in self._known.values()], selected)
        self.bar(f"Grants   {telling.counted(len(self._known), 'grant')} in force")
        self.follow()

    def follow(self) -> None:
        held = self._known.get(self.selected)
        text = telling.grant(held, time.time()) if held else Content("No grant is in force.")
        self.query_one("#grant", Static).update(text)

    def action_withdraw(self) -> None:
        held = self._known.get(self.selected)
        if held is None:
            self.inbox.say("No grant is in force.")
            return

        def decide(yes: bool | None) -> None:
            if yes:
                self.inbox.withdraw(held.id)

        text = telling.grant(held, time.time())
        self.app.push_screen(Ask("Withdraw this grant?", text, "withdraw it"), decide)

    def action_scroll(self, by: int) -> None:
        """All of it is on the screen."""

    def _row(self, held: Grant) -> Row:
        return Row(held.id, lambda width: self._draw(held, width))

    def _draw(self, held: Grant, width: int) -> Content:
        routes = [bare(line_of(route)) for route in held.routes]
        more = f" (+{len(routes) - 1})" if len(routes) > 1 else ""
        what = line(routes[0], 1000) if routes else "no route"
        used = f"used {telling.counted(held.used, 'time')}" if held.used else "not used"
        first = Content.assemble((cut(held.run), "bold"), f"  {telling.how_long(held, time.time())}")
        return Content.assemble(
            two_sides(first, Content(used), width),
            "\n",
            Content(f"  {what}{more}").truncate(width, ellipsis=True),
        )
