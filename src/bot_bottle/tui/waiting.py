"""The first page: everything that waits, of all bottles, and the operator's answers to it."""

import time
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Resize

from bot_bottle.errors import BotBottleError
from bot_bottle.policy.approval import Terms
from bot_bottle.tui import telling
from bot_bottle.tui.clean import cut, line
from bot_bottle.tui.confirm import Confirm
from bot_bottle.tui.detail import Detail
from bot_bottle.tui.inbox import OFFERED, Item, age, find, fold
from bot_bottle.tui.page import WIDE, Page, two_sides
from bot_bottle.tui.refuse import Refusal, Refuse
from bot_bottle.tui.rows import Row, Rows
from bot_bottle.tui.threads import News

NOTHING = "Nothing waits.\n\nWhat an agent asks for shows up here by itself."
_CAME_UP = "That came up only just now. Look at it, then press the key again."


class Waiting(Page):
    """What waits. What is shown in the detail is `item`: nothing else is ever decided with it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "approve", "Approve"),
        Binding("e", "edit", "Edit"),
        Binding("r", "reject", "Reject"),
        Binding("space", "mark", "Mark"),
        Binding("asterisk", "mark_all", "Mark all", key_display="*"),
        *[Binding(key, f"terms('{key}')", name, show=False) for key, _, name in OFFERED],
        Binding("f", "fold", "Fold", show=False),
        Binding("x", "as_asked", "Drop the edit", show=False),
        Binding("g", "app.grants", "Grants"),
        Binding("h", "app.history", "History"),
        Binding("escape", "unmark", "Unmark", show=False),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.item: Item | None = None
        self._items: list[Item] = []
        self._marked: set[str] = set()
        self._unfolded = False
        self._file: str | None = None
        self._gone = ""
        self._came_up = 0.0

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(5.0, self._tick)
        if self.inbox.news is None:
            self.query_one(Detail).show(None, notice="Looking what waits …")

    def on_resize(self, event: Resize) -> None:
        self.query_one(Rows).set_height(2 if event.size.width >= WIDE else 1)

    # What is shown

    def _tick(self) -> None:
        """Everything waits a little longer than it did."""
        self.query_one(Rows).refresh()
        if self.item is not None:
            self.query_one(Detail).tick(self.item)

    def take(self, news: News) -> None:
        self.follow()
        before, self._items = self._items, fold(news.waiting, unfolded=self._unfolded)
        self._marked &= {id_ for item in self._items for id_ in item.ids}
        shown = self.item
        now = find(self._items, shown) if shown else None
        if now is not None and shown is not None:
            self._gone = ""
            if now.signature != shown.signature:
                self._came_up = time.monotonic()
        elif shown is not None and not self.inbox.decided.issuperset(shown.ids):
            if not self._gone:
                self._gone = "It no longer waits."
                self._tell_what_became(shown)
            now = shown
        elif self._items:
            places = [place for place, item in enumerate(before) if shown and item.key == shown.key]
            now = self._items[min(places[0] if places else 0, len(self._items) - 1)]
            self._came_up = time.monotonic()
        self._show(now)

    def follow(self) -> None:
        if self.item is not None and self.selected in (self.item.key, ""):
            return
        chosen = next((item for item in self._items if item.key == self.selected), None)
        if chosen is not None:
            self._gone = ""
            self.query_one(Detail).scroll_home(animate=False)
            self._show(chosen)

    def _show(self, item: Item | None) -> None:
        file = dict(self.inbox.news.files).get(item.key) if item and self.inbox.news else None
        changed = item is None or (item, file) != (self.item, self._file)
        self._file = file
        self.item = item
        listed = self._items
        if item is not None and self._gone:
            listed = sorted([*listed, item], key=lambda each: (each.first.proposal.made_at, each.key))
        self.fill([self._row(each) for each in listed], item.key if item else "")
        if changed or self._gone:
            notice = f"✗ {self._gone} Nothing is decided with it now." if self._gone else ""
            self.query_one(Detail).show(item, notice=notice if item else NOTHING, file=file)
        self._tell_how_many()

    def _tell_how_many(self) -> None:
        waiting = sum(len(item.members) for item in self._items)
        bottles = len({member.proposal.run for item in self._items for member in item.members})
        text = f"bot-bottle inbox   {telling.counted(waiting, 'proposal')} of {telling.counted(bottles, 'bottle')}"
        folded = f" in {telling.counted(len(self._items), 'decision')}" if len(self._items) != waiting else ""
        marked = f"   {self._marks()} marked: keys are about them" if self._marked else ""
        self.bar(f"{text}{folded}{marked}" if waiting else "bot-bottle inbox")

    def _row(self, item: Item) -> Row:
        return Row(item.key, lambda width: self._draw(item, width))

    def _draw(self, item: Item, width: int) -> Content:
        first, now = item.first, time.time()
        gone = self._gone and self.item is not None and item.key == self.item.key
        busy = self.inbox.deciding.intersection(item.ids)
        mark = "gone" if gone else " …  " if busy else "[x] " if self._marked.issuperset(item.ids) else "[ ] "
        warned = telling.problem(first) or telling.warnings(first)
        title = Content.assemble(mark, (" ! " if warned else "   "), telling.title(first))
        times = f" {len(item.members)}x" if len(item.members) > 1 else ""
        run, when = cut(first.proposal.run, 24), age(first.proposal.made_at, now)
        if self.size.width < WIDE:
            return two_sides(title, Content(f"{run}{times} {when:>5}"), width)
        second = two_sides(Content(f"       {run} · {cut(first.bottle, 24)}{times}"), Content(when), width)
        return Content.assemble(title.truncate(width, ellipsis=True), "\n", second)

    def _tell_what_became(self, item: Item) -> None:
        async def ask() -> None:
            try:
                shown = await self.inbox.clerk.do(lambda desk: desk.show(item.key))
            except BotBottleError:
                return
            if self.item is item and self._gone:
                why = f" ({line(shown.proposal.reason)})" if shown.proposal.reason else ""
                self._gone = f"It no longer waits: {telling.state_text(shown)}{why}."
                self._show(item)

        self.run_worker(ask())

    # What the operator does

    def _targets(self) -> list[Item]:
        """What the keys are about: what is marked, else what is shown."""
        self.follow()
        if self._marked:
            return [item for item in self._items if self._marked.issuperset(item.ids)]
        if self.item is None or self._gone:
            self.inbox.say("It no longer waits." if self._gone else "Nothing waits.")
            return []
        if self.inbox.deciding.intersection(self.item.ids):
            self.inbox.say("It is being decided.")
            return []
        return [self.item]

    def _too_early(self) -> bool:
        if not self._marked and time.monotonic() - self._came_up < self.inbox.settle:
            self.inbox.say(_CAME_UP, bad=True)
            return True
        return False

    def action_approve(self) -> None:
        items = self._targets()
        if items and not self._too_early():
            self.app.push_screen(Confirm(items))

    def action_reject(self) -> None:
        items = self._targets()
        if not items or self._too_early():
            return
        ids = [id_ for item in items for id_ in item.ids]

        def decide(refusal: Refusal | None) -> None:
            if refusal is not None:
                self.inbox.reject(ids, refusal)

        self.app.push_screen(Refuse(items), decide)

    def action_edit(self) -> None:
        items = self._targets()
        if len(items) > 1:
            self.inbox.say("Edit one at a time: Esc takes the marks away.")
        elif items:
            self.inbox.edit(items[0])

    def action_terms(self, key: str) -> None:
        terms = next(terms for offered, terms, _ in OFFERED if offered == key)
        for item in self._targets():
            for member in item.members:
                self.inbox.terms[member.proposal.id] = terms._replace(routes=member.terms.routes)
        self.inbox.look()

    def action_as_asked(self) -> None:
        for item in self._targets():
            for member in item.members:
                chosen: Terms | None = self.inbox.terms.get(member.proposal.id)
                if chosen is not None:
                    self.inbox.terms[member.proposal.id] = chosen._replace(routes=None)
        self.inbox.look()

    def action_mark(self) -> None:
        self.follow()
        if self.item is not None and not self._gone:
            ids = set(self.item.ids)
            self._marked = self._marked - ids if ids <= self._marked else self._marked | ids
            self._marks_changed()

    def action_mark_all(self) -> None:
        every = {id_ for item in self._items for id_ in item.ids}
        self._marked = set() if self._marked == every else every
        self._marks_changed()

    def action_unmark(self) -> None:
        self._marked = set()
        self._marks_changed()

    def action_fold(self) -> None:
        self._unfolded = not self._unfolded
        self._marked = set()
        self.inbox.say(
            "Every proposal by itself." if self._unfolded else "The same asks of several bottles are folded."
        )
        self.heard()

    def _marks(self) -> int:
        return len([item for item in self._items if self._marked.issuperset(item.ids)])

    def _marks_changed(self) -> None:
        self.query_one(Rows).refresh()
        self._tell_how_many()
