"""A store that can't be written for a while: the keeper goes on, says nothing that is not so, and writes everything down after."""

import sqlite3

import pytest
from tests.launch.keeping import Kept

from bot_bottle.errors import StateError
from bot_bottle.events import NewEvent
from bot_bottle.launch import asks_unstored
from bot_bottle.launch.asks_limits import BURST
from bot_bottle.policy.approval import Approval, Terms
from bot_bottle.state import patient
from bot_bottle.state.patient import PatientStore
from bot_bottle.state.proposals import Proposals
from bot_bottle.state.store import Store

RUN = "fixer-ab12"


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """A write that waits in vain does so for a moment only."""
    for name in ("WAITS", "WAITS_AGAIN", "TRY_EACH"):
        monkeypatch.setattr(patient, name, 0.01)
    monkeypatch.setattr(patient, "BUSY_SECONDS", 0.05)


class Away:
    """Another program that holds the store, as long as this is open."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def over(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


@pytest.fixture
def kept(tmp_path):
    made = Kept(tmp_path / "store.db", RUN)
    yield made
    made.close()


def approve(kept: Kept, terms: Terms | None = None) -> str:
    """What waits, approved in the store; the keeper has not looked yet."""
    with kept.desk() as desk:
        [shown] = desk.waiting()
        if terms is not None:
            shown = desk.show(shown.proposal.id, terms)
        [decided] = desk.approve([Approval(shown.proposal.id, shown.digest, shown.terms)], wait=0)
        assert decided.problem == ""
        return decided.id


def state_of(kept: Kept, proposal: str) -> tuple[str, str]:
    [found] = Proposals(kept.store).get([proposal])
    return found.state, found.reason


def test_what_is_in_force_is_said_to_be_so_once_the_record_has_it(kept):
    answers = kept.ask(hosts=["one.example.org"])
    name = approve(kept)
    away = Away(kept.path)
    kept.asks.decided()
    assert kept.enforced[-1] != kept.enforced[0], "it is enforced"
    assert [each["state"] for each in answers] == ["pending"], "and nobody was told of it"
    kept.fire()
    assert [each["state"] for each in kept.wait_for(name)] == ["approved"]
    away.over()
    kept.fire()
    assert [each["state"] for each in answers] == ["pending", "applied"]
    assert state_of(kept, name)[0] == "applied"
    assert len(kept.enforced) == 2, "it was enforced once"
    assert [event.kind for event in kept.store.events(RUN)].count("proposal.applied") == 1
    assert kept.store.verify().ok


def test_a_use_that_ends_it_ends_it_in_the_record_as_well(kept):
    kept.ask(hosts=["one.example.org"])
    name = approve(kept, Terms("once"))
    away = Away(kept.path)
    kept.asks.decided()
    [grant] = kept.asks.holding.grants
    kept.asks.hear_bundle({"used": grant})
    away.over()  # and nothing has been tried again yet
    kept.asks.hear_bundle({"spent": grant})
    assert kept.enforced[-1] == kept.enforced[0], "it is not in force any more"
    for _ in range(4):
        kept.fire()
    assert state_of(kept, name)[0] == "applied"
    [found] = Proposals(kept.store).grants(RUN, ended=True)
    assert (found.used, found.ended) == (1, "used")
    assert Proposals(kept.store).grants(RUN) == []
    assert kept.store.verify().ok


def test_an_end_is_said_once_the_record_has_it(kept):
    kept.ask(hosts=["one.example.org"])
    approve(kept)
    kept.asks.decided()
    [grant] = kept.asks.holding.grants
    away = Away(kept.path)
    told: list[tuple[bool, str]] = []
    kept.asks.withdraw(grant, "me", lambda ended, why: told.append((ended, why)))
    assert kept.enforced[-1] == kept.enforced[0]
    assert told == []
    away.over()
    kept.fire()
    assert told == [(True, "")]
    assert [each.id for each in Proposals(kept.store).grants(RUN, ended=True)] == [grant]


def test_a_run_that_ends_meanwhile_leaves_no_word_on_what_nobody_knows(kept):
    kept.ask(hosts=["one.example.org"])
    name = approve(kept)
    away = Away(kept.path)
    kept.asks.decided()
    with pytest.raises(StateError):
        kept.asks.end()
    away.over()
    with Store.open(kept.path) as store:
        Proposals(store).close_run(RUN, "its keeper died")
    assert state_of(kept, name) == ("failed", "its keeper died before it was recorded as in force")


def test_an_ask_waits_for_another_program_and_is_answered_as_if_nothing_had_been(kept):
    away = Away(kept.path)
    asked = [kept.ask(hosts=[f"{n}.example.org"]) for n in range(BURST)]
    again = kept.ask(hosts=["0.example.org"])
    kept.fire()
    assert asked == [[]] * BURST, "nobody was told anything"
    away.over()
    kept.fire()
    assert [[each["state"] for each in answers] for answers in (*asked, again)] == [["pending"]] * (BURST + 1)
    assert again[0]["proposal"] == asked[0][0]["proposal"]
    with kept.desk() as desk:
        waiting = [each.proposal for each in desk.waiting()]
    assert [each.routes[0].host for each in waiting] == [f"{n}.example.org" for n in range(BURST)], "in order"
    assert waiting[0].repeats == 1
    assert kept.ask(hosts=["more.example.org"])[0]["problem"].startswith("REFUSED for now"), (
        "each was counted, once"
    )
    assert kept.timers == []


def test_an_ask_waits_no_longer_than_its_tool(kept):
    away = Away(kept.path)
    first = kept.ask(hosts=["one.example.org"])
    kept.clock.ahead += asks_unstored.WITHIN / 2
    second = kept.ask(hosts=["two.example.org"])
    kept.fire()
    assert (first, second) == ([], [])
    kept.clock.ahead += asks_unstored.WITHIN / 2
    kept.fire()
    assert "could not be stored" in first[0]["problem"]
    assert second == []
    away.over()
    kept.fire()
    assert [each["state"] for each in second] == ["pending"]


def test_those_that_wait_are_bounded_and_none_of_them_stands_in_the_way(kept, monkeypatch):
    tried = []
    real = kept.asks.proposals.add

    def add(*args: object) -> object:
        tried.append(args)
        return real(*args)

    monkeypatch.setattr(kept.asks.proposals, "add", add)
    away = Away(kept.path)
    asked = [kept.ask(hosts=[f"{n}.example.org"]) for n in range(100)]
    assert [bool(answers) for answers in asked] == [False] * asks_unstored.MOST + [True] * (
        100 - asks_unstored.MOST
    )
    assert len(tried) == 1, "the others stand behind the first"
    kept.fire()
    assert len(tried) == 2
    away.over()


def test_a_disk_that_is_full_is_said_at_once(kept, monkeypatch):
    def fails(*_: object) -> None:
        raise StateError("The disk is full")

    monkeypatch.setattr(kept.asks.proposals, "add", fails)
    asked = [kept.ask(hosts=[f"{n}.example.org"]) for n in range(BURST + 1)]
    assert ["could not be stored" in each[0]["problem"] for each in asked] == [True] * BURST + [False]
    assert kept.timers == []


def test_what_cant_be_read_is_said_not_to_be_known(kept, monkeypatch):
    kept.ask(hosts=["one.example.org"])
    name = approve(kept)
    kept.asks.decided()

    def fails(*_: object) -> None:
        raise StateError("The store can't be read or written")

    monkeypatch.setattr(kept.store, "rows", fails)
    [answer] = kept.wait_for(name)
    assert answer["problem"].startswith("NOT KNOWN")


def events(*numbers: int) -> list[NewEvent]:
    return [NewEvent(RUN, float(number), "egress.allowed", {"n": number}) for number in numbers]


def test_events_wait_in_order_and_the_record_says_that_they_did(tmp_path, monkeypatch):
    monkeypatch.setattr(patient, "MOST", 4)
    path = str(tmp_path / "store.db")
    store = PatientStore.over(Store.open(path), RUN)
    store.begin_loop()
    store.append(events(1))
    away = Away(path)
    store.append(events(2))
    store.append(events(3, 4, 5, 6, 7))
    assert store.tick() is not None
    assert [event.data["n"] for event in store.events(RUN)] == [1]
    away.over()
    store.transact(lambda _: (None, events(8)))
    found = store.events(RUN)
    assert [event.data.get("n", event.kind) for event in found] == [1, 2, 3, 4, 5, "record.late", 8]
    assert (found[5].data["events"], found[5].data["lost"]) == (4, 2)
    assert store.tick() is None
    store.append(events(9))
    assert [event.kind for event in store.events(RUN)].count("record.late") == 1
    assert store.verify().ok
    store.close()
