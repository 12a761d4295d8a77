"""A proposal on the screen: the effect before the prose, and the prose quoted."""

import time

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from bot_bottle.tui import telling
from bot_bottle.tui.inbox import Item


class Detail(VerticalScroll):
    """Shows one item, or says that there is none."""

    DEFAULT_CSS = """
    Detail {
        padding: 0 1;
        &> Static { height: auto; margin-bottom: 1; }
        &> .empty { display: none; }
        &> .words { border-left: outer $panel-lighten-2; padding-left: 1; color: $text-muted; }
        &> #notice { text-style: bold; }
        &> #words-title { margin-bottom: 0; }
    }
    """
    PARTS = ("notice", "heading", "outcome", "change", "effect", "terms", "file", "obstacle", "words-title")

    def compose(self) -> ComposeResult:
        for name in self.PARTS:
            yield Static(id=name, markup=False, classes="empty")

    def show(
        self, item: Item | None, *, notice: str = "", file: str | None = None, decided: bool = False
    ) -> None:
        """Shows `item` under `notice`; nothing else that was there stays."""
        told: dict[str, Content] = {"notice": Content(notice)}
        said: list[tuple[str, str]] = []
        if item is not None:
            first = item.first
            said = telling.words(item)
            told |= {"heading": telling.heading(item, time.time()), "change": telling.change(first)}
            told |= {"effect": telling.effect(item), "obstacle": Content("")}
            if decided:
                told["outcome"] = telling.outcome(first)
                if not telling.warnings(
                    first
                ):  # what it would have let through was told before it was decided
                    told["effect"] = Content("")
            else:
                told["file"] = Content("") if file is None else telling.in_file(file)
                told |= {"terms": telling.terms(first), "obstacle": telling.obstacle(first)}
            if said:
                told["words-title"] = Content.styled(
                    "What the agent says (nobody has checked it)", "bold underline"
                )
        for name in self.PARTS:
            part = self.query_one(f"#{name}", Static)
            content = told.get(name, Content(""))
            part.update(content)
            part.set_class(not content.plain, "empty")
        self._quote(said)

    def tick(self, item: Item) -> None:
        """Says anew how long `item`, which is shown, waits."""
        self.query_one("#heading", Static).update(telling.heading(item, time.time()))

    def _quote(self, said: list[tuple[str, str]]) -> None:
        """A widget with a bar at its left for the words of each: no line of them can look like ours."""
        quotes = list(self.query(".words").results(Static))
        for quote, (runs, text) in zip(quotes, said, strict=False):
            quote.update(_quoted(runs, text, alone=len(said) == 1))
        for quote in quotes[len(said) :]:
            quote.remove()
        for runs, text in said[len(quotes) :]:
            self.mount(Static(_quoted(runs, text, alone=len(said) == 1), markup=False, classes="words"))


def _quoted(runs: str, text: str, *, alone: bool) -> Content:
    return Content(text) if alone or not runs else Content.assemble((f"{runs}:", "bold"), f"\n{text}")
