"""What waits no more: what was decided, and what became of it."""

import time
from typing import ClassVar

from textual.binding import BindingType
from textual.content import Content
from textual.events import Resize

from bot_bottle.policy.approval import Shown
from bot_bottle.tui import telling
from bot_bottle.tui.clean import cut
from bot_bottle.tui.detail import Detail
from bot_bottle.tui.inbox import Item
from bot_bottle.tui.page import LEAVE, WIDE, Page, two_sides
from bot_bottle.tui.rows import Row, Rows
from bot_bottle.tui.threads import News

_MARKS = {
    "approved": "~ approved",
    "applied": "✓ in force",
    "failed": "! failed",
    "rejected": "✗ rejected",
    "expired": "- expired",
    "withdrawn": "- ended",
}


class History(Page):
    """The latest first."""

    BINDINGS: ClassVar[list[BindingType]] = [LEAVE]

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, Shown] = {}
        self._showing: Shown | None = None

    def on_resize(self, event: Resize) -> None:
        self.query_one(Rows).set_height(2 if event.size.width >= WIDE else 1)

    def take(self, news: News) -> None:
        if news.decided is None:
            return
        self._known = {shown.proposal.id: shown for shown in news.decided}
        rows = [self._row(shown) for shown in self._known.values()]
        selected = self.selected if self.selected in self._known else next(iter(self._known), "")
        self.fill(rows, selected)
        self.bar(f"History   {telling.counted(len(rows), 'decided proposal')}")
        self.follow()

    def follow(self) -> None:
        shown = self._known.get(self.selected)
        detail = self.query_one(Detail)
        if shown is None:
            detail.show(None, notice="Nothing was decided yet.")
        elif shown != self._showing:
            detail.show(Item((shown,)), decided=True)
            detail.scroll_home(animate=False)
        self._showing = shown

    def _row(self, shown: Shown) -> Row:
        return Row(shown.proposal.id, lambda width: self._draw(shown, width))

    def _draw(self, shown: Shown, width: int) -> Content:
        proposal = shown.proposal
        when = time.strftime("%m-%d %H:%M", time.localtime(proposal.decided_at or proposal.ended_at))
        left = Content(f"{_MARKS.get(proposal.state, proposal.state):<11} {telling.title(shown)}")
        run = cut(proposal.run, 24)
        if self.size.width < WIDE:
            return two_sides(left, Content(f"{run} {when}"), width)
        second = two_sides(Content(f"            {run} · {cut(shown.bottle, 24)}"), Content(when), width)
        return Content.assemble(left.truncate(width, ellipsis=True), "\n", second)
