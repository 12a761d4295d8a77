"""The inbox in a terminal over a real bottle: what waits at its door shows up by itself, and goes on once it is approved."""

import json

import pytest

from support.bottles import write_bottle, write_script
from support.place import program
from support.terminals import terminal
from support.upstreams import Upstream
from support.waiting import wait_for

pytestmark = pytest.mark.namespace
ASK = "curl -sS -m 110 -o /dev/null -w '%{http_code}\\n' http://one.example.org/new"


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server.where


@pytest.fixture
def pane(place, tmp_path):
    """The inbox of the place's user, in a terminal of theirs."""
    variables = [f"{name}={value}" for name, value in place.environment.items() if name != "TERM"]
    with terminal(
        tmp_path, place.argv(["env", "-C", str(place.home), *variables, str(program()), "inbox"])
    ) as pane:
        pane.sees("Nothing waits.")
        yield pane


def press(pane, *keys: str, until: str) -> None:
    """Presses the keys again and again (too early, they do nothing) until the screen says so."""

    def pressed() -> bool:
        if until in pane.screen:
            return True
        pane.type(*keys)
        return False

    wait_for(pressed, until, within=60)


def start(cli) -> str:
    """A run of the agent that asks at the door."""
    started = cli("start", "asker", "--headless", "--detach", "--json")
    assert started.code == 0, started.stderr
    return json.loads(started.stdout)["id"]


def says(cli, run: str, text: str) -> None:
    wait_for(lambda: cli("logs", run).stdout == text, f"{text!r} from {run}", within=30)


def test_what_waits_at_the_door_is_seen_at_once_and_goes_on_as_it_was_decided(
    place, cli, repository, upstream, pane
):
    route = {"host": "one.example.org", "protocol": "http", "paths": ["/old"], "upstream": upstream}
    write_bottle(place, supervise=True, egress={"routes": [route], "ask": ["one.example.org"]})
    write_script(place, "asker", ASK)
    run = start(cli)
    pane.sees("Let a waiting request through")
    assert run in pane.screen
    assert "/new" in pane.screen
    assert "(•) 1 once" in pane.screen
    press(pane, "a", until="Approve 1 proposal of 1 bottle?")
    press(pane, "y", until="Nothing waits.")
    says(cli, run, "200\n")
    again = start(cli)
    pane.sees("Let a waiting request through")  # once was once
    press(pane, "r", until="Reject 1 proposal?")
    press(pane, "Enter", until="Nothing waits.")
    says(cli, again, "403\n")
    pane.type("h")
    pane.sees("✗ rejected")
    pane.sees("✓ in force")
    pane.type("q")
    pane.sees("bot-bottle inbox")
    pane.type("q")
    pane.ends()
    wait_for(lambda: json.loads(cli("list", "--json").stdout) == [], "the end of the runs")
