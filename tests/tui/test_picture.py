"""Pictures of the inbox, and the command that opens it."""

import re

from bot_bottle.testing.desk import FakeDesk
from bot_bottle.tui.picture import picture


def test_a_picture_has_what_the_screen_has_after_the_keys_and_fetches_nothing():
    desk = FakeDesk()
    desk.ask("a.example.org", words="please")
    desk.ask("b.example.org")
    svg = picture(lambda: desk, keys=["j", "a"], size=(90, 28))
    text = svg.replace("&#160;", " ")
    assert "Approve 1 proposal of 1 bottle?" in text
    assert "b.example.org" in text
    assert re.findall(r"(?:href|src|url)\W*https?:", svg) == []
    assert desk.approvals == []


def test_without_a_terminal_the_command_says_what_to_take_instead(cli):
    done = cli("inbox")
    assert done.code == 64
    assert "bot-bottle approvals list" in done.stderr
    assert "bot-bottle inbox --web" in done.stderr
    assert done.stdout == ""
