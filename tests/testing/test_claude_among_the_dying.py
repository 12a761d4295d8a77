"""kill -9 around the real Claude Code: whoever dies while it asks, it gets what was decided, once, and goes on to its end."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from bot_bottle.testing.model import serving
from bot_bottle.testing.script import parse
from support.bottles import front_matter, write_bottle
from support.killing import Killer
from support.operators import Operators
from support.place import python
from support.upstreams import Upstream
from support.waiting import wait_for

sys.path.append(str(Path(__file__).parents[1] / "e2e"))
from test_killed_for_real import FINAL, Bottle, keeper_of  # type: ignore[import-not-found]
from test_supervised_claude import inbox, result  # type: ignore[import-not-found]  # noqa: F401

pytestmark = [pytest.mark.claude, pytest.mark.namespace, pytest.mark.slow, pytest.mark.timeout(900)]

SEED = os.environ.get("BOT_BOTTLE_SEED", "")
VICTIMS = ("operator", "operator", "supervise", "supervise", "bundle")
SPAN = 25_000_000
"""Nanoseconds of processor time: about what a server or a bundle uses for one ask."""
CALLS = 4000
"""Calls of our functions that an approval makes, about."""
AGAIN = "for n in $(seq 50); do curl -s -m 5 {url} | grep -q words && break; sleep 0.1; done; curl -sS -m 10 {url}"


def url(number: int) -> str:
    return f"http://one.example.org/claude/{number}"


def turns(count: int) -> list[dict]:
    """For each page: asked for, and read as soon as that works; asked for again while it does not."""
    found: list[dict] = []
    for number in range(1, count + 1):
        ask = {
            "tool": "mcp__supervise__pipelock-block",
            "input": {"urls": [url(number)], "reason": "The task is to read it."},
        }
        read = {"tool": "Bash", "input": {"command": AGAIN.format(url=url(number)), "timeout": 120000}}
        again = [
            {"when": "not_allowed", "goto": f"ask {number}"}
        ]  # whom it asked may have died before that was kept
        found += [{"label": f"ask {number}", **ask}, {**read, "branch": again}]
    return [*found, {"text": "read: {{last_result}}"}]


class ClaudesBottle(Bottle):
    """The same, for an agent that says what it saw in its log."""

    stem = "claude"
    patience = 240.0
    """Claude Code gives up on a call only when it has heard nothing for 90 seconds since its server died, and looks each 30."""

    def __init__(self, place, operators: Operators, draw: random.Random, run: str) -> None:
        self.place, self.operators, self.draw, self.run = place, operators, draw, run
        self.keeper = keeper_of(run, place)
        self.number, self.calls = 0, CALLS
        self.terms, self.acknowledged, self.killed = {}, [], []

    def told(self, **_: object) -> list[dict]:
        return []

    def live(self, victim: str = "") -> None:
        self.number += 1
        self.terms[self.number] = "bottle"
        killer = None
        try:
            if victim in ("supervise", "bundle", "keeper"):
                pid = wait_for(lambda: self.child(victim), f"the {victim}", within=self.patience)
                killer = Killer(pid, self.draw.randint(0, SPAN))
            self.decide(
                "bottle", dies_at=self.draw.randint(1, self.calls or CALLS) if victim == "operator" else 0
            )
            wait_for(self.done, f"an end of {self.number}", within=self.patience)
        finally:
            if killer:
                killer.now()
                self.killed += [victim] if killer.early else []

    def done(self) -> bool:
        row = self.row()
        return self.gone() or bool(row and row["state"] in FINAL)


@pytest.fixture
def start(place, repository, claude_data):
    with Upstream(b"new words") as upstream, serving(parse({"turns": turns(len(VICTIMS))})) as api:
        routes = [
            {"host": "model.example.org", "protocol": "http", "upstream": f"http://127.0.0.1:{api.port}"},
            {
                "host": "one.example.org",
                "protocol": "http",
                "paths": ["/old"],
                "upstream": f"http://{upstream.where}",
            },
        ]
        write_bottle(place, supervise=True, egress={"routes": routes})
        keys = {"provider": "claude", "base_url": "http://model.example.org"}
        place.write(".bot-bottle/agents/worker.md", front_matter(keys))
        own = place.write(".local/share/bot-bottle/own", "").parent
        (own / "providers").symlink_to(claude_data / "bot-bottle/providers")

        def run() -> str:
            words = ("start", "worker", "--headless", "--detach", "--json", "--prompt", "Read it.")
            done = place.run([*python(), "-m", "bot_bottle", *words])
            assert done.code == 0, done.stderr
            return json.loads(done.stdout)["id"]

        yield run


@pytest.fixture
def operators(place):
    made = Operators(place)
    yield made
    made.close()


def told(cli, run: str) -> str:
    """What the record and the agent's log end with, for whoever reads a failure."""
    return cli("events", run).stdout[-6000:] + cli("logs", run).stdout[-6000:]


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("last", ["agent", "keeper"])
def test_whoever_dies_while_it_asks_claude_gets_what_was_decided_and_goes_on(
    place,
    cli,
    start,
    inbox,  # noqa: F811
    operators,
    last,
    part,
):
    seed = SEED or f"{os.urandom(4).hex()} {part}"
    print(f"BOT_BOTTLE_SEED={seed!r}")
    draw = random.Random(seed)
    bottle = ClaudesBottle(place, operators, draw, start())
    order = draw.sample(VICTIMS, len(VICTIMS))
    for victim in order[:-1] if last == "keeper" else order:
        try:
            bottle.live(victim)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{order} {bottle.killed}\n{told(cli, bottle.run)}") from error
    if last == "keeper":
        bottle.live("keeper")
        wait_for(bottle.gone, "the keeper to be gone")
        wait_for(lambda: operators.run("cleanup").code == 0, "cleanup")
    else:
        wait_for(lambda: bottle.run not in cli("list").stdout, "the agent to end", within=bottle.patience)
        said, lines = result(cli, bottle.run)
        assert said == "read: new words", "\n".join(lines)[-3000:]
    states = bottle.check()
    assert states["applied"] >= len(VICTIMS) - 1, states
    assert operators.run("verify").code == 0
    assert operators.json("approvals", "grants") == []
    print(bottle.killed, states)
