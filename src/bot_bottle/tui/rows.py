"""A list that may be long and changes while it is looked at: only what is on screen is drawn, and the selection is an id."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual


class Row(NamedTuple):
    """`draw` gives the row's content for a width; the marker at its left is the list's."""

    key: str
    draw: Callable[[int], Content]


class Rows(ScrollView, can_focus=True):
    """Rows of `height` lines each. `selected` is the selected row's key, empty when there is none."""

    DEFAULT_CSS = """
    Rows {
        overflow-x: hidden; background: transparent;
        &> .rows--selected { background: $surface; text-style: bold; }
        &:focus > .rows--selected { background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--selected"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "end(0)", "First", show=False),
        Binding("end", "end(-1)", "Last", show=False),
    ]

    selected: reactive[str] = reactive("")

    class Moved(Message):
        """The operator moved the selection."""

    def __init__(self, *, height: int = 1, id: str | None = None) -> None:
        super().__init__(id=id)
        self._height = height
        self._rows: list[Row] = []
        self._places: dict[str, int] = {}

    def set_height(self, height: int) -> None:
        """How many lines a row has from now on."""
        if height != self._height:
            self._height = height
            self._measure()

    def show(self, rows: Sequence[Row], *, selected: str) -> None:
        """Shows these instead, with that one selected, at the same place on the screen if it was on it."""
        before = self._places.get(self.selected)
        offset = before * self._height - round(self.scroll_y) if before is not None else 0
        self._rows = list(rows)
        self._places = {row.key: place for place, row in enumerate(self._rows)}
        self._measure()
        self.selected = selected if selected in self._places else ""
        place = self._places.get(self.selected)
        if place is not None and before is not None and before != place:
            self.scroll_to(y=place * self._height - offset, animate=False, force=True)
        self.call_after_refresh(self._reveal)

    def render_line(self, y: int) -> Strip:
        place, part = divmod(y + round(self.scroll_y), self._height)
        width = self.scrollable_content_region.width
        if place >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[place]
        chosen = row.key == self.selected
        style = self.get_visual_style("rows--selected") if chosen else self.visual_style
        if chosen and self.app.no_color:
            style += Style(reverse=True)
        marker = "> " if chosen and part == 0 else "  "
        lines = row.draw(max(1, width - 2)).split("\n", allow_blank=True)
        text = lines[part] if part < len(lines) else Content("")
        whole = Content.assemble(marker, text).truncate(width, ellipsis=True)
        strips = Visual.to_strips(self, whole, width, 1, style, apply_selection=False)
        return strips[0].extend_cell_length(width, style.rich_style)

    def watch_selected(self) -> None:
        self.refresh()

    def action_move(self, by: int) -> None:
        place = self._places.get(self.selected, -1 if by > 0 else len(self._rows))
        self._select(place + by)

    def action_page(self, by: int) -> None:
        page = max(1, self.size.height // self._height - 1)
        self._select(self._places.get(self.selected, 0) + by * page)

    def action_end(self, place: int) -> None:
        self._select(place % max(1, len(self._rows)))

    def _select(self, place: int) -> None:
        if self._rows:
            self.selected = self._rows[max(0, min(place, len(self._rows) - 1))].key
            self._reveal()
            self.post_message(self.Moved())

    def on_click(self, event: Click) -> None:
        place = (event.y + round(self.scroll_y)) // self._height
        if place < len(self._rows):
            self._select(place)

    def on_resize(self, _event: Resize) -> None:
        self._measure()

    def _measure(self) -> None:
        self.virtual_size = Size(max(1, self.scrollable_content_region.width), len(self._rows) * self._height)
        self.refresh()

    def _reveal(self) -> None:
        place = self._places.get(self.selected)
        if place is not None:
            region = Region(0, place * self._height, 1, self._height)
            self.scroll_to_region(region, animate=False, force=True)
