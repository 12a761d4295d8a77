"""The inbox in a real terminal: what that shows is what the inbox means to show, whatever the text."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bot_bottle.policy.approval import Effect
from bot_bottle.testing.desk import FakeDesk
from support import hostile_text
from support.terminals import terminal
from support.waiting import wait_for
from tui.driver import Inbox, opened

PROGRAM = Path(__file__).with_name("terminal_process.py")
LONG_AGO = 5 * 86400.0


def write_asks(path: Path) -> list[dict]:
    """A proposal for each small text; ages that stay what they are while the test runs."""
    asks = [
        {
            "run": f"r{number}-{text}",
            "agent": text,
            "bottle": text,
            "title": f"T{number} {text}",
            "words": text,
            "effect": [1, 1, [text], [text], [text]],
            "problem": text,
            "age": LONG_AGO + 1000 - number,
        }
        for number, text in enumerate(hostile_text.SMALL.values())
    ]
    path.write_text(json.dumps(asks))
    return asks


async def expected(asks: list[dict], width: int, height: int) -> list[list[str]]:
    """The screen as the inbox means it, for each proposal in turn."""
    desk = FakeDesk()
    for ask in asks:
        desk.ask(**{**ask, "effect": Effect(*ask["effect"])})
    screens = []
    async with opened(desk, size=(width, height)) as inbox:
        for _ in asks:
            screens.append(await at_rest(inbox))
            await inbox.press("down")
    return screens


async def at_rest(inbox: Inbox) -> list[str]:
    """The screen once it stays as it is: what is drawn later than all else, on a busy machine, has been drawn."""
    before: list[str] = []
    while (now := [line.rstrip() for line in inbox.lines]) != before:
        before = now
        await inbox.rest()
    return now


@pytest.mark.parametrize(
    ("size", "colour"), [((80, 24), []), ((130, 40), ["NO_COLOR=1"])], ids=["small", "large, no colour"]
)
@pytest.mark.timeout(400)
def test_a_terminal_shows_hostile_text_exactly_where_the_inbox_put_it(tmp_path, size, colour):
    asks = write_asks(tmp_path / "asks")
    screens = asyncio.run(expected(asks, *size))
    argv = [sys.executable, str(PROGRAM), str(tmp_path / "asks"), str(tmp_path / "decided")]
    with terminal(tmp_path, ["env", *colour, *argv], size=size) as pane:
        title = pane.tmux("display", "-p", "#{pane_title}")
        for number, screen in enumerate(screens):
            shows(pane, screen, number)
            pane.type("Down")
        assert pane.tmux("display", "-p", "#{pane_title}") == title
        assert pane.tmux("list-buffers") == ""
        pane.type("q")
        pane.ends()
    assert json.loads((tmp_path / "decided").read_text()) == [[], []]


def shows(pane, screen, number):
    """Waits until the terminal shows exactly `screen`; says in which lines it differs."""
    try:
        wait_for(lambda: pane.lines == screen, f"screen {number}", within=60.0)
    except AssertionError as error:
        differing = [(a, b) for a, b in zip(pane.lines, screen, strict=True) if a != b]
        raise AssertionError(f"{error}: {differing}") from None


@pytest.mark.parametrize(
    "colour",
    [[], ["NO_COLOR=1"], ["TERM=vt100", "COLORTERM="]],
    ids=["colour", "NO_COLOR", "monochrome"],
)
def test_a_proposal_is_approved_by_keys_in_a_real_terminal(tmp_path, colour):
    (tmp_path / "asks").write_text(json.dumps([{"title": "Reach a.example.org", "effect": [2, 1]}]))
    argv = [sys.executable, str(PROGRAM), str(tmp_path / "asks"), str(tmp_path / "decided")]
    with terminal(tmp_path, ["env", *colour, *argv]) as pane:
        pane.sees("2 refused requests to 1 host")
        assert "> [ ]    Reach a.example.org" in pane.screen
        assert "(•) 3 this bottle" in pane.screen

        def approved() -> bool:
            pane.type("a")
            pane.type("y")
            return "Nothing waits." in pane.screen

        wait_for(approved, "the approval")  # what is pressed too early does nothing, so it is pressed again
        pane.type("q")
        pane.ends()
    assert json.loads((tmp_path / "decided").read_text()) == [["p0001"], []]
