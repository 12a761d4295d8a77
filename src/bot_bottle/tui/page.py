"""What every page of the inbox has: a line that says where one is, a list with its detail, the last message, the keys."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from bot_bottle.tui.clean import line
from bot_bottle.tui.detail import Detail
from bot_bottle.tui.rows import Row, Rows
from bot_bottle.tui.threads import News

if TYPE_CHECKING:
    from bot_bottle.tui.app import InboxApp

WIDE = 110
"""Columns from which on the detail stands beside the list."""

LEAVE = Binding("escape,q", "leave", "Back", key_display="Esc")
BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]


class Page(Screen[None]):
    """A list and what is selected in it. Subclasses fill both in `take` and follow the selection in `follow`."""

    DEFAULT_CSS = """
    Page { layout: vertical; }
    Page #bar { height: 1; padding: 0 1; background: $primary; color: $text; text-style: bold; }
    Page #trouble { height: auto; padding: 0 1; background: $error; color: $text; text-style: bold; display: none; }
    Page #trouble.shown { display: block; }
    Page #body { height: 1fr; }
    Page #status { height: auto; max-height: 3; padding: 0 1; }
    Page #status.bad { color: $text-error; text-style: bold; }
    Page.-narrow #body { layout: vertical; }
    Page.-narrow Rows { height: auto; max-height: 40%; min-height: 1; padding-right: 1; border-bottom: solid $primary; }
    Page.-narrow Detail { height: 1fr; }
    Page.-wide #body { layout: horizontal; }
    Page.-wide Rows { width: 42%; height: 1fr; padding-right: 1; border-right: solid $primary; }
    Page.-wide Detail { width: 1fr; height: 1fr; }
    """
    HORIZONTAL_BREAKPOINTS = BREAKPOINTS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "scroll(1)", "Scroll", show=False),
        Binding("u", "scroll(-1)", "Scroll back", show=False),
    ]

    @property
    def inbox(self) -> "InboxApp":
        """The program."""
        return cast("InboxApp", self.app)

    def compose(self) -> ComposeResult:
        yield Static(id="bar", markup=False)
        yield Static(id="trouble", markup=False)
        with Container(id="body"):
            yield Rows(id="list")
            yield Detail(id="detail")
        yield Static(id="status", markup=False)
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(Rows).focus()
        self.heard()
        self.say(*self.inbox.said)

    def on_rows_moved(self) -> None:
        self.follow()

    def heard(self) -> None:
        """Something may have changed: what is known now is `inbox.news`."""
        news = self.inbox.news
        trouble = self.query_one("#trouble", Static)
        trouble.update(
            Content(f"! {line(news.trouble, 500)} (trying again)" if news and news.trouble else "")
        )
        trouble.set_class(bool(news and news.trouble), "shown")
        if news and not news.trouble:
            self.take(news)

    def take(self, news: News) -> None:
        """Shows what is new."""
        raise NotImplementedError

    def follow(self) -> None:
        """Shows what is selected."""
        raise NotImplementedError

    def say(self, text: str, *, bad: bool = False) -> None:
        """The last message, until the next; already clean."""
        status = self.query_one("#status", Static)
        status.update(Content(text))
        status.set_class(bad, "bad")

    def bar(self, text: str) -> None:
        """Where one is, and how much there is."""
        self.query_one("#bar", Static).update(Content(text))

    def fill(self, rows: Sequence[Row], selected: str) -> None:
        """The list anew."""
        self.query_one(Rows).show(rows, selected=selected)

    @property
    def selected(self) -> str:
        """The selected row's key."""
        return self.query_one(Rows).selected

    def action_scroll(self, by: int) -> None:
        detail = self.query_one(Detail)
        detail.scroll_relative(y=by * max(1, detail.size.height - 2), animate=False)

    def action_leave(self) -> None:
        self.dismiss(None)


def two_sides(left: Content, right: Content, width: int) -> Content:
    """`left`, cut to what `right` leaves of the width, and `right` at its right."""
    room = width - right.cell_length - 1
    if room < 8:
        return left.truncate(width, ellipsis=True)
    cut = left.truncate(room, ellipsis=True)
    return Content.assemble(cut, " " * (room - cut.cell_length + 1), right)
