"""A box over the page that asks or tells something. Keys that were typed before it could be read do nothing in it."""

import time
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from bot_bottle.tui.threads import News

if TYPE_CHECKING:
    from bot_bottle.tui.app import InboxApp

T = TypeVar("T")


class Dialog(ModalScreen[T]):
    """A title, what may be scrolled, what a subclass adds (`more`), and a line with the keys."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > #box {
        width: 96%; max-width: 110; height: auto; max-height: 96%;
        border: thick $primary; background: $surface; padding: 0 1;
    }
    Dialog #title { height: auto; text-style: bold; margin-bottom: 1; }
    Dialog #what { height: auto; max-height: 60vh; }
    Dialog #what > Static { height: auto; }
    Dialog #said { height: auto; color: $text-error; text-style: bold; display: none; }
    Dialog #said.shown { display: block; }
    Dialog #keys { height: auto; margin-top: 1; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n,q", "no", "Back"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("pageup,u", "page(-1)", show=False),
        Binding("pagedown,d,space", "page(1)", show=False),
        Binding("home", "top", show=False),
        Binding("end", "bottom", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._readable_at = float("inf")

    @property
    def inbox(self) -> "InboxApp":
        """The program."""
        return cast("InboxApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(id="title", markup=False)
            with VerticalScroll(id="what"):
                yield Static(id="text", markup=False)
            yield from self.more()
            yield Static(id="said", markup=False)
            yield Static(id="keys", markup=False)

    def more(self) -> ComposeResult:
        """Further widgets."""
        yield from ()

    def show(self, title: str, text: Content, keys: str) -> None:
        """Fills the box; from now on it has to be readable for a moment before a key decides."""
        self.query_one("#title", Static).update(Content(title))
        self.query_one("#text", Static).update(text)
        self.query_one("#keys", Static).update(Content(keys))
        self.wait_until_read()

    def wait_until_read(self) -> None:
        """What is shown has changed."""
        self._readable_at = float("inf")
        self.call_after_refresh(self._is_readable)

    def _is_readable(self) -> None:
        self._readable_at = time.monotonic() + self.inbox.settle

    def was_read(self, at: float) -> bool:
        """Whether what is shown could be read when a key was pressed at that (monotonic) time."""
        return at >= self._readable_at

    def say(self, text: str) -> None:
        """An answer to a key that did nothing."""
        said = self.query_one("#said", Static)
        said.update(Content(text))
        said.set_class(bool(text), "shown")

    def heard(self) -> None:
        """Something may have changed: what is known now is `inbox.news`."""
        if self.inbox.news is not None and not self.inbox.news.trouble:
            self.take(self.inbox.news)

    def take(self, news: News) -> None:
        """Shows what is new, where that matters."""

    def action_no(self) -> None:
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self._what.scroll_relative(y=by, animate=False)

    def action_page(self, by: int) -> None:
        self._what.scroll_relative(y=by * max(1, self._what.size.height - 1), animate=False)

    def action_top(self) -> None:
        self._what.scroll_home(animate=False)

    def action_bottom(self) -> None:
        self._what.scroll_end(animate=False)

    @property
    def _what(self) -> VerticalScroll:
        return self.query_one("#what", VerticalScroll)


class Tell(Dialog[None]):
    """Tells something that must not be missed."""

    def __init__(self, title: str, text: Content) -> None:
        super().__init__()
        self._told = (title, text)

    def on_mount(self) -> None:
        title, text = self._told
        self.show(title, text, "Esc: go back")
