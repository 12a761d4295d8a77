"""kill -9 of `bot-bottle inbox` in a real terminal, at random points of a proposal's life, while a person at it says yes or no.

The person marks what waits, chooses terms, and answers; the inbox dies once it has used a random part of the processor time that
all of that takes, or the answer alone. What it had said on its screen by then has to be so, and what it did not come to decide
another operator decides. The rest is compared with the record as in `test_killed_for_real`, whose bottle this is.
"""

import contextlib
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from test_approvals import URL, Supervised  # type: ignore[import-not-found]
from test_killed_for_real import SEED, Bottle, operators, sdk, upstream  # type: ignore[import-not-found]

from bot_bottle.tui import telling
from support.killing import Killer, alive, used
from support.place import Place, program
from support.terminals import Terminal, terminal
from support.waiting import wait_for

__all__ = ["operators", "sdk", "upstream"]
pytestmark = [pytest.mark.namespace, pytest.mark.slow, pytest.mark.timeout(600)]

PARTS, DEATHS = 2, 10
MOST_AT_ONCE = 3
KEYS = {
    "once": ("1", "once"),
    "30m": ("2", "30 minutes"),
    "bottle": ("3", "this bottle"),
    "manifest": ("4", "the bottle's file"),
}
SAID = {
    "approved and in force": ("applied",),
    "approved, but not seen in force yet": ("approved", "applied", "failed"),
    "could not be put in force": ("failed",),
    "rejected": ("rejected",),
}
"""What the inbox says of decisions, and what the record may have of them then."""
NOTHING = "nothing yet"


class Inbox:
    """The real program in a real terminal, and the hands of a person in front of it."""

    def __init__(self, pane: Terminal, place: Place) -> None:
        variables = [f"{name}={value}" for name, value in place.environment.items() if name != "TERM"]
        self._argv = place.argv(["env", "-C", str(place.home), *variables, str(program()), "inbox"])
        self._pane = pane

    def open(self, *, until: str = "Nothing waits.") -> None:
        self._pane.tmux("respawn-pane", "-k", *self._argv)
        self._pane.sees(until)
        self.pid = int(self._pane.tmux("display", "-p", "#{pane_pid}"))

    def ask_for(self, count: int, terms: str) -> None:
        """As far as the question whose answer decides all of them on these terms."""
        self._until(lambda: self._next(count, terms) == "", "the question")

    def decide(self, count: int, terms: str) -> None:
        """Answers it, and waits until it says what became of it, or is no more."""
        yes = "Enter" if terms == "reject" else "y"
        self._until(lambda: self.said() or self._press(self._next(count, terms) or yes), "an end")

    def _until(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for it, or for the inbox's death."""
        try:
            wait_for(lambda: self.gone() or condition(), what)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self._pane.screen}") from None

    def gone(self) -> bool:
        return not alive(self.pid)

    def _next(self, count: int, terms: str) -> str:
        """Presses what a person would press next; the question is there when there is nothing."""
        key = self._key(self._pane.screen, count, terms)
        if key:
            self._press(key)
        return key

    def _key(self, shown: str, count: int, terms: str) -> str:
        what = telling.counted(count, "proposal")
        if _outcomes(shown):
            return NOTHING  # what any key says would stand in its place
        if f"Reject {what}?" in shown:
            return "" if "[x] It may ask again" in shown else "C-t"
        if f"Approve {what} of 1 bottle?" in shown:
            key, name = KEYS[terms]
            named = {
                one for _, one in KEYS.values() if f"· {one} ·" in shown
            }  # by those that the screen has room for
            return "" if named == {name} else key
        if f"{what} of 1 bottle" not in shown or "Approving" in shown or "Rejecting" in shown:
            return NOTHING
        if count > 1 and f"{count} marked" not in shown:
            return "*"
        return "r" if terms == "reject" else "a"

    def _press(self, key: str) -> None:
        """And waits for what comes of it; what came up only just now takes no answer, and is asked again."""
        before = self._pane.screen
        if key != NOTHING:
            self._pane.type(key)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self.gone() or self._pane.screen != before, "a change", within=0.5)

    def said(self) -> Counter[str]:
        """How many decisions it said became of what."""
        return _outcomes(self._pane.screen)

    def last_words(self) -> Counter[str]:
        """What was on its screen when it died."""
        self._pane.ends()
        return self.said()


def _outcomes(shown: str) -> Counter[str]:
    every = "|".join(map(re.escape, SAID))
    found = re.findall(rf"(\d+) ({every})", " ".join(shown.split()))
    return Counter({what: int(number) for number, what in found})


class Lives:
    """One bottle's asks, each decided at an inbox that dies meanwhile."""

    def __init__(self, bottle: Bottle, inbox: Inbox) -> None:
        self.bottle, self.inbox, self.draw = bottle, inbox, bottle.draw
        self.spans = {"life": 0, "answer": 0}
        self.ends: Counter[str] = Counter()

    def measure(self) -> None:
        """How much work it is, when nobody dies."""
        self.inbox.open()
        numbers = self._asked(1, "bottle")
        began = used(self.inbox.pid)
        self.inbox.ask_for(1, "bottle")
        middle = used(self.inbox.pid)
        self.inbox.decide(1, "bottle")
        assert self.inbox.said() == {"approved and in force": 1}
        self.spans = {"life": used(self.inbox.pid) - began, "answer": used(self.inbox.pid) - middle}
        self._over(numbers, "bottle")

    def live(self) -> None:
        """Up to three asks, and an inbox that is killed."""
        count = self.draw.randint(1, MOST_AT_ONCE)
        terms = self.draw.choice([*KEYS, "reject"])
        when = self.draw.choice(["life", "answer", "answer"])
        after = self.draw.randint(0, self.spans[when])
        self.inbox.open()
        killer = Killer(self.inbox.pid, after) if when == "life" else None
        try:
            numbers = self._asked(count, terms)
            self.inbox.ask_for(count, terms)
            killer = killer or Killer(self.inbox.pid, after)
            self.inbox.decide(count, terms)
        finally:
            if killer:
                killer.now()
        said = self.inbox.last_words()
        states = Counter(self._row(number)["state"] for number in numbers)
        self.ends[f"{'said' if said else 'decided' if states['pending'] < count else 'waits'}"] += 1
        assert sum(said.values()) in (0, count), said
        assert states["pending"] in (0, count), "all of a batch is decided, or nothing"
        for what, number in said.items():
            assert sum(states[state] for state in SAID[what]) >= number, (said, states)
        self._over(numbers, terms)

    def _asked(self, count: int, terms: str) -> list[int]:
        """New proposals, in the record."""
        numbers = []
        for _ in range(count):
            self.bottle.number += 1
            numbers.append(self.bottle.number)
            self.bottle.terms[self.bottle.number] = terms
            self.bottle.order(ask=f"http://one.example.org{self.bottle.path}", number=self.bottle.number)
        for number in numbers:
            wait_for(lambda number=number: self._row(number), f"the proposal {number}")
        return numbers

    def _row(self, number: int) -> dict[str, Any]:
        every = self.bottle.operators.json("approvals", "list", "--all")
        return next((row for row in every if row["title"].endswith(f"/{number}")), {})

    def _over(self, numbers: list[int], terms: str) -> None:
        """What nobody decided another one decides; then the agent has all of its answers."""
        last = self.bottle.number
        for self.bottle.number in numbers:
            wait_for(lambda: self.bottle.over(terms), f"an end of {self.bottle.number}")
        self.bottle.number = last


@pytest.fixture
def inbox(place, tmp_path):
    with terminal(tmp_path, ["true"], size=(180, 90)) as pane:
        yield Inbox(pane, place)


@pytest.mark.parametrize("part", range(PARTS))
def test_an_inbox_killed_at_any_point_has_decided_all_that_it_said_and_nothing_by_half(
    place,
    operators,
    sdk,
    inbox,
    part,
):
    seed = SEED or f"{os.urandom(4).hex()} {part}"
    print(f"BOT_BOTTLE_SEED={seed!r}")
    bottle = Bottle(place, operators, random.Random(seed))
    bottle.live()
    bottle.live()
    lives = Lives(bottle, inbox)
    lives.measure()
    for _ in range(DEATHS):
        lives.live()
    bottle.live("keeper")
    wait_for(lambda: operators.run("cleanup").code == 0, "cleanup")
    states = bottle.check()
    assert operators.run("verify").code == 0
    assert operators.json("approvals", "grants") == []
    assert list(sdk.parent.glob("*.new")) == []
    print(lives.ends, states)


def test_after_an_inbox_was_killed_nobody_is_there_and_the_agent_is_told(place, cli, repository, inbox):
    watched = Supervised(place, cli)
    folder = place.home / ".local/state/bot-bottle/inboxes"
    try:
        for number in range(3):
            inbox.open(until=f"{2 * number} proposals" if number else "Nothing waits.")
            call = watched.asker.ask("pipelock-block", urls=[f"{URL}/{number}"], reason="to read it")
            assert watched.asker.answer(call)["present"]
            os.kill(inbox.pid, signal.SIGKILL)
            inbox.last_words()
            call = watched.asker.ask("pipelock-block", urls=[f"{URL}/{number}/more"], reason="to read it")
            assert not watched.asker.answer(call)["present"]
        for left in folder.iterdir():
            os.utime(left, (0, 0))  # old enough not to be somebody's who is just coming
        call = watched.asker.ask("pipelock-block", urls=[f"{URL}/last"], reason="to read it")
        assert not watched.asker.answer(call)["present"]
        assert list(folder.iterdir()) == []
    finally:
        watched.close()
