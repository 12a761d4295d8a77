"""Saying no: what is refused, why, and whether the agent may ask for it again."""

import time
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static

from bot_bottle.tui import telling
from bot_bottle.tui.dialog import Dialog
from bot_bottle.tui.inbox import Item

LONGEST_REASON = 500


class Refusal(NamedTuple):
    """The operator's no."""

    reason: str
    may_ask_again: bool


class Tick(Widget, can_focus=True):
    """A box with a cross or without one, told apart without colour."""

    DEFAULT_CSS = """
    Tick { height: 1; width: 1fr; }
    Tick:focus { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "tick", "Tick", show=False)]
    ticked: reactive[bool] = reactive(False)

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def render(self) -> Content:
        return Content(f"[{'x' if self.ticked else ' '}] {self._text}")

    def action_tick(self) -> None:
        self.ticked = not self.ticked

    def on_click(self) -> None:
        self.action_tick()


class Refuse(Dialog[Refusal | None]):
    """Asks for the reason; Enter refuses."""

    DEFAULT_CSS = """
    Refuse #what { max-height: 25vh; }
    Refuse #why { margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "no", "Back"),
        Binding("ctrl+t", "again", "May ask again", show=False, priority=True),
    ]

    def __init__(self, items: Sequence[Item]) -> None:
        super().__init__()
        self._items = items

    def more(self) -> ComposeResult:
        yield Static(Content("Why? The agent is told."), markup=False, id="why")
        yield Input(max_length=LONGEST_REASON, id="reason")
        yield Tick("It may ask again (Ctrl+T); else it gets this answer for an hour.")

    def on_mount(self) -> None:
        count = sum(len(item.members) for item in self._items)
        self.show(
            f"Reject {telling.counted(count, 'proposal')}?",
            Content("\n").join([telling.short(item) for item in self._items]),
            "Enter: reject    Tab: next field    Esc: go back",
        )
        self.query_one(Input).focus()

    def on_input_submitted(self) -> None:
        if self.was_read(time.monotonic()):
            self.dismiss(Refusal(self.query_one(Input).value.strip(), self.query_one(Tick).ticked))
        else:
            self.say("That came up only just now. Look at it, then press Enter.")

    def action_again(self) -> None:
        self.query_one(Tick).action_tick()
