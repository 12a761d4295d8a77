"""The demo as a person runs it: the real Claude Code, in a real bottle."""

import json
import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.claude, pytest.mark.namespace]


@pytest.mark.parametrize("who", ["user"], indirect=True)
def test_the_demo_shows_the_key_outside_an_ask_that_is_answered_and_a_secret_that_stays(
    cli, place, claude_data
):
    data = place.root / "data" / "bot-bottle"
    data.mkdir(parents=True)
    (data / "providers").symlink_to(claude_data / "bot-bottle/providers")
    for folder in (data, data.parent):
        os.chown(folder, place.uid, -1)
    outside = {"XDG_DATA_HOME": str(data.parent), "TMPDIR": str(place.root)}
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
