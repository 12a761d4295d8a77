"""Text of others in every field, on every page: nothing on the screen is other than its quoted, cleaned self."""

import pytest
from rich.cells import cell_len
from textual.widgets import Static

from bot_bottle.errors import StateError
from bot_bottle.policy.approval import Approval, Decided, Effect, Terms
from bot_bottle.policy.model import Route
from bot_bottle.testing.desk import FakeDesk
from bot_bottle.tui.clean import block
from support import hostile_text
from tui.driver import Inbox, asynchronous, opened

WIDTH, HEIGHT = 80, 24
FOOTER = "a Approve e Edit r Reject space Mark * Mark all g Grants h History q Quit ? Help"


WHERE_TOLD = ["clears the screen", "bidi override", "Textual markup", "broken markup", "a megabyte"]


def hostile_desk() -> FakeDesk:
    """A proposal for each text, with that text wherever a text can stand."""
    desk = FakeDesk()
    for number, text in enumerate(hostile_text.CASES.values()):
        desk.ask(
            run=f"r{number}-{text}",
            agent=text,
            bottle=text,
            routes=[Route(f"h{number}.example.org", 443, credential="x", paths=(f"/{text[:2000]}",))],
            title=f"T{number} {text}",
            words=text,
            effect=Effect(1, 1, (text,), (text,), (text,)),
            age=1000.0 + len(hostile_text.CASES) - number,
            problem=text if number % 2 else "",
        )
    return desk


def assert_untouched(inbox: Inbox, last: str = FOOTER) -> None:
    """The screen is as large as it was, ours at its edges, and holds nothing that moves, hides, reorders or can be clicked."""
    lines = inbox.lines
    assert len(lines) == HEIGHT
    assert [cell_len(line) for line in lines] == [WIDTH] * HEIGHT
    assert hostile_text.dangers(inbox.screen) == []
    assert lines[-1].strip() == last
    for strip in inbox.app.screen._compositor.render_strips():
        for segment in strip:
            assert segment.control is None
            assert segment.style is None or segment.style.link is None
            assert "@click" not in (segment.style.meta if segment.style else {})


@asynchronous
async def test_no_text_changes_the_list_or_the_detail():
    async with opened(hostile_desk(), size=(WIDTH, HEIGHT)) as inbox:
        for number, text in enumerate(hostile_text.CASES.values()):
            assert f"T{number} " in inbox.marked_line
            assert_untouched(inbox)
            quotes = "\n".join(str(quote.content) for quote in inbox.page.query(".words").results(Static))
            assert quotes == block(text).strip("\n") or not text.strip()
            await inbox.press("d")
            assert_untouched(inbox)
            await inbox.press("down")


@asynchronous
async def test_no_text_changes_a_question_the_editor_the_history_or_a_message():
    desk = hostile_desk()
    for number, text in enumerate(hostile_text.SMALL.values()):
        desk.outcomes[f"p{number + 1:04}"] = Decided(f"p{number + 1:04}", "failed", text)
    async with opened(desk, size=(WIDTH, HEIGHT)) as inbox:
        await inbox.press("asterisk", "a")
        asked = inbox.app.screen.query_one("#text", Static).content
        assert hostile_text.dangers(str(asked)) == []
        for _ in range(8):
            assert_untouched(inbox, inbox.lines[-1].strip())
            await inbox.press("pagedown")
        await inbox.press("end", "y", "end")
        await inbox.sees("did not come about")
        assert_untouched(inbox, inbox.lines[-1].strip())
        await inbox.press("escape", "h")
        for _ in range(8):
            assert_untouched(inbox, "Esc Back ? Help")
            await inbox.press("down")


@pytest.mark.parametrize("name", WHERE_TOLD)
@asynchronous
async def test_no_text_changes_errors_grants_and_reasons(name):
    text = hostile_text.CASES[name]
    desk = FakeDesk()
    granted = desk.ask(
        run=f"r-{text}", title=text, routes=[Route("a.example.org", 443, paths=(f"/{text[:500]}",))]
    )
    desk.approve([approval(shown) for shown in desk.waiting()])
    assert granted
    gone = desk.ask("b.example.org")
    async with opened(desk, size=(WIDTH, HEIGHT)) as inbox:
        await inbox.press("g")
        assert_untouched(inbox, "w Withdraw Esc Back ? Help")
        await inbox.press("w")
        assert_untouched(inbox, "w Withdraw Esc Back ? Help")
        await inbox.press("escape", "escape", "e")
        assert_untouched(inbox)
        await inbox.press("escape")
        desk.end(gone, "rejected", text)
        await inbox.sees("It no longer waits")
        assert_untouched(inbox)
        desk.trouble = StateError(text or "?", details=text)
        await inbox.press("2")
        assert_untouched(inbox)


def approval(shown):
    return Approval(shown.proposal.id, shown.digest, Terms())
