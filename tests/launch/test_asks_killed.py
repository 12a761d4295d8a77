"""kill -9 of the keeper or the operator at a random call, 220 times: nothing acknowledged is lost, nothing applied twice, and
nothing said to be applied that is not in force.

Each life is a forked process that kills itself at its K-th call of a function of ours; K is drawn over all calls that a whole life
makes. What each was told, and what the bundle has in force, is in journals that are on the disk before anybody goes on.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.launch.keeping import Kept

from bot_bottle.operate.approvals import Approvals
from bot_bottle.policy.approval import Approval
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.state.proposals import Proposals
from bot_bottle.state.store import Store

RUN = "fixer-ab12"
HOSTS = ("one.example.org", "two.example.com", "three.example.net", "four.example.org")
POINTS = 110
"""A victim's; there are two."""
DEADLINE = 60.0
FINAL = ("applied", "failed", "rejected", "expired", "withdrawn")


class Journal:
    """Lines that are written whole, and on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, what: object) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, json.dumps(what).encode() + b"\n")
        os.close(descriptor)  # the process is killed, not the machine

    def read(self) -> list[Any]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


class Watching(Kept):
    """A keeper whose bundle writes down what it enforces before it confirms it."""

    enforced_in: Journal

    def confirm(self) -> None:
        policy = EgressPolicy.from_document(self.orders[-1]["policy"])
        self.enforced_in.say(sorted(route.host for route in policy.routes))
        super().confirm()


def keeper(folder: Path) -> None:
    """A run's whole life: it asks for everything, and lives until everything is answered."""
    kept = Watching(folder / "store.db", RUN)
    kept.enforced_in = Journal(folder / "enforced")
    told = Journal(folder / "told")
    for number, host in enumerate(HOSTS):
        arguments = {"hosts": [host]}
        kept.asks.hear({"ask": number, "tool": "pipelock-block", "arguments": arguments}, told.say)
    end = time.monotonic() + DEADLINE
    while kept.asks._open and time.monotonic() < end:
        kept.asks.tick()
        time.sleep(0.001)
    kept.asks.end()


def operator(folder: Path) -> None:
    """Looks until everything is there, approves most of it in one batch, refuses the last, waits; says what it was told."""
    said = Journal(folder / "said")
    with Approvals(Store.open(str(folder / "store.db")), who="me") as desk:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            waiting = desk.waiting()
            done = {each.proposal.id for each in desk.decided()}
            if len(waiting) + len(done) == len(HOSTS):
                break
            desk.changed(0.01)
        yes = [each for each in waiting if HOSTS[3] not in str(each.added)]
        said.say(
            [
                each._asdict()
                for each in desk.approve([Approval(each.proposal.id, each.digest) for each in yes], wait=0)
            ]
        )
        no = [each.proposal.id for each in waiting if HOSTS[3] in str(each.added)]
        said.say([each._asdict() for each in desk.reject(no, "no")])


def life(body: Callable[[Path], None], folder: Path, dies_at: int = 0) -> int:
    """Forks `body`; with `dies_at`, it kills itself at that call of ours. Without, it leaves how many there were."""
    pid = os.fork()
    if pid:
        return pid
    calls = 0

    def count(frame: Any, event: str, _: object) -> None:
        nonlocal calls
        if event == "call" and "/bot_bottle/" in frame.f_code.co_filename:
            calls += 1
            if calls == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.setprofile(count)
        body(folder)
        sys.setprofile(None)
        (folder / f"calls-{body.__name__}").write_text(str(calls))
        os._exit(0)
    except BaseException:
        sys.setprofile(None)
        import traceback

        (folder / f"failed-{body.__name__}").write_text(traceback.format_exc())
        os._exit(1)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def close_run(folder: Path) -> None:
    """As `bot-bottle cleanup` does for a run whose keeper died."""
    with Store.open(str(folder / "store.db")) as store:
        Proposals(store).close_run(RUN, "its keeper died")


def check(folder: Path) -> None:
    """Whatever was killed: what was said holds, and the store is whole."""
    assert not list(folder.glob("failed-*")), [path.read_text() for path in folder.glob("failed-*")]
    with Store.open(str(folder / "store.db")) as store:
        proposals = Proposals(store)
        every = {each.id: each for each in proposals.of_run(RUN, ("pending", "approved", *FINAL))}  # type: ignore[arg-type]
        grants = proposals.grants(RUN) + proposals.grants(RUN, ended=True)
        kinds = [(event.kind, event.data.get("proposal")) for event in store.events(RUN)]
        assert store.verify().ok, store.verify()
    enforced = {host for policy in Journal(folder / "enforced").read() for host in policy}
    for answer in Journal(folder / "told").read():
        assert "problem" not in answer, answer
        assert answer["proposal"] in every  # what was acknowledged is there
        if answer["state"] in FINAL:
            assert every[answer["proposal"]].state == answer["state"]
    for decided in (each for batch in Journal(folder / "said").read() for each in batch):
        if not decided["problem"]:
            state = every[decided["id"]].state
            assert (
                state == "rejected"
                if decided["state"] == "rejected"
                else state in ("approved", "applied", "failed")
            )
    for one in every.values():
        given = [grant for grant in grants if grant.proposal == one.id]
        assert len(given) == (one.state == "applied")
        assert kinds.count(("proposal.applied", one.id)) == (one.state == "applied")
        assert kinds.count(("proposal.approved", one.id)) <= 1
        assert kinds.count(("proposal.made", one.id)) == 1
        if one.state == "applied":
            assert {route.host for route in one.routes} <= enforced
    assert len(every) <= len(HOSTS)


def whole(folder: Path) -> dict[str, int]:
    """How many calls a whole life of each makes."""
    folder.mkdir()
    first, second = life(keeper, folder), life(operator, folder)
    assert (ended(first), ended(second)) == (0, 0), [path.read_text() for path in folder.glob("failed-*")]
    check(folder)
    with Store.open(str(folder / "store.db")) as store:
        states = sorted(each.state for each in Proposals(store).of_run(RUN, FINAL))  # type: ignore[arg-type]
    assert states == ["applied", "applied", "applied", "rejected"]
    return {path.name: int(path.read_text()) for path in folder.glob("calls-*")}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    found = whole(tmp_path_factory.mktemp("whole") / "life")
    assert found["calls-keeper"] > 300
    assert found["calls-operator"] > 300
    return found


@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("victim", ["keeper", "operator"])
def test_whoever_is_killed_at_whatever_moment_what_was_said_holds(tmp_path, calls, victim, part):
    draw = random.Random(f"{victim} {part}")
    for number in range(POINTS // 10):
        folder = tmp_path / str(number)
        folder.mkdir()
        at = draw.randint(1, calls[f"calls-{victim}"])
        first = life(keeper, folder, at if victim == "keeper" else 0)
        second = life(operator, folder, at if victim == "operator" else 0)
        if victim == "keeper":
            died = ended(first)
            if (folder / "store.db").exists():
                close_run(folder)
            os.kill(second, signal.SIGKILL)
            ended(second)
        else:
            died = ended(second)
            assert ended(life(operator, folder)) == 0  # another one goes on with what is left
            assert ended(first) == 0
        assert died in (0, -signal.SIGKILL), (died, at)
        check(folder)
        with Store.open(str(folder / "store.db")) as store:
            assert Proposals(store).of_run(RUN, ("pending", "approved")) == [] or victim == "keeper"
