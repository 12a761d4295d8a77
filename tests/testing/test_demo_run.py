"""The demo as a person runs it: the real Claude Code, in a real bottle."""

import json
import os
from pathlib import Path

import pytest

from support.place import program
from support.terminals import terminal
from support.waiting import wait_for

pytestmark = [pytest.mark.claude, pytest.mark.namespace]


@pytest.fixture
def outside(place, claude_data):
    """The variables of a person who has Claude Code."""
    data = place.root / "data" / "bot-bottle"
    data.mkdir(parents=True)
    (data / "providers").symlink_to(claude_data / "bot-bottle/providers")
    for folder in (data, data.parent):
        os.chown(folder, place.uid, -1)
    return {"XDG_DATA_HOME": str(data.parent), "TMPDIR": str(place.root)}


@pytest.mark.parametrize("who", ["user"], indirect=True)
def test_a_person_who_refuses_has_the_terminal_to_themself_and_the_agent_goes_on_without(
    place, outside, tmp_path
):
    variables = [
        f"{name}={value}" for name, value in {**place.environment, **outside}.items() if name != "TERM"
    ]
    argv = place.argv(["env", "-C", str(place.home), *variables, str(program()), "demo"])
    with terminal(tmp_path, argv, size=(100, 40)) as pane:
        pane.sees("Press Enter to decide")
        pane.type("Enter")
        pane.sees("What the agent says")

        def asked_why() -> bool:
            if "Reject 1 proposal?" not in pane.screen:
                pane.type("r")
            return "Reject 1 proposal?" in pane.screen

        wait_for(asked_why, "the question", within=30)
        assert "The agent works" not in pane.screen
        wait_for(lambda: pane.type("Enter") or "went on without" in pane.screen, "the end", within=60)
        assert "The diff it left" in pane.screen or "b/timesheet" in pane.screen
        assert "✗" not in pane.screen


@pytest.mark.parametrize("who", ["user"], indirect=True)
def test_the_demo_shows_the_key_outside_an_ask_that_is_answered_and_a_secret_that_stays(cli, outside):
    done = cli("demo", "--json", "--keep", env=outside, timeout=110)
    assert done.code == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["placeholder"].startswith("sk-ant-api03-placeholder-model-")
    assert [
        one["reason"] for one in told["refusals"] if one["target"].startswith("calendar.example.org")
    ] == [
        "path_not_allowed",
        "secret_found: github, url, base64",
    ]
    (asked,) = told["asked"]
    assert (asked["by"], asked["state"]) == ("the demo", "applied")
    assert "/2026.json" in asked["added"][0]
    assert "b/timesheet/holidays.json" in told["diff"]
    asked = [json.loads(line) for line in (Path(told["kept"]) / "model.jsonl").read_text().splitlines()]
    assert {one["path"] for one in asked} >= {"/v1/messages"}
    assert "/about" not in {one["path"] for one in asked}
    assert not [one for one in asked if "refused" in one]
