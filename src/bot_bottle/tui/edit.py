"""Narrowing or widening what a proposal would allow: its routes as text. What came of it is shown like any other proposal."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import TextArea

from bot_bottle.errors import BotBottleError
from bot_bottle.policy.approval import Shown, Terms
from bot_bottle.tui.clean import block, clean
from bot_bottle.tui.dialog import Dialog
from bot_bottle.tui.inbox import Item
from bot_bottle.tui.telling import title, who


class Edit(Dialog[list[Shown] | None]):
    """The routes in an editor. Ctrl+S works out what they would change and gives the proposals as they are then."""

    DEFAULT_CSS = """
    Edit #box { height: 96%; }
    Edit TextArea { height: 1fr; border: solid $primary; }
    Edit TextArea:focus { border: solid $primary; }
    Edit #what { max-height: 6; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "no", "Back", priority=True),
        Binding("ctrl+s,f2", "work_out", "Work out", priority=True),
    ]

    def __init__(self, item: Item, text: str) -> None:
        super().__init__()
        self._item = item
        self._text = text
        self._terms: Terms = item.first.terms

    def more(self) -> ComposeResult:
        yield TextArea(
            clean(self._text, keep="\n"), id="routes", tab_behavior="indent", show_line_numbers=True
        )

    def on_mount(self) -> None:
        first = self._item.first
        self.show(
            f"Edit what it would allow: {title(first)}",
            Content(
                f"{who(first)}\nRoutes as under `egress: routes:` of a bottle's file. Nothing is approved by this."
            ),
            "Ctrl+S or F2: work out what that changes    Esc: leave it as it was",
        )
        self.query_one(TextArea).focus()

    def action_work_out(self) -> None:
        text = self.query_one(TextArea).text
        ids, terms = self._item.ids, self._terms

        async def work_out() -> None:
            try:
                shown = await self.inbox.clerk.do(lambda desk: [desk.edit(id_, text, terms) for id_ in ids])
            except BotBottleError as error:
                self.say(block("\n".join(part for part in (error.brief, error.details) if part), 1500))
                return
            self.dismiss(shown)

        self.run_worker(work_out(), exclusive=True)

    def on_text_area_changed(self) -> None:
        self.say("")
