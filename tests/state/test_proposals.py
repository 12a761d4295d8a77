"""Proposals in the store: decided once, whoever races; every edit of their tables is found; nothing of them is taken back."""

import os
import sqlite3
import time

import pytest

from bot_bottle.errors import NotFoundError, StateError
from bot_bottle.policy.approval import Ask, Grant, Proposal, Terms
from bot_bottle.policy.approval_change import Standing
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.state import migrations
from bot_bottle.state.proposals import Outcome, Proposals
from bot_bottle.state.rows import Decision
from bot_bottle.state.store import Store

ROUTE = Route("docs.example.org", 443, methods=("GET",), paths=("/3/**",))
STANDING = Standing(EgressPolicy((ROUTE,)), EgressPolicy((ROUTE,)), credentials=("key",))


def proposal(name: str, *, run: str = "fixer-ab12", host: str = "", **more) -> Proposal:
    subject = {"wanted": [f"https://{host or name + '.example.org'}"], "methods": []}
    now = time.time()
    return Proposal(
        name, run, Ask("egress", subject, "because"), (ROUTE,), "pending", now, now + 1000
    )._replace(**more)


def decision(one: Proposal, verdict: str = "approved") -> Decision:
    return Decision(
        one.id, verdict, time.time(), "me", "d" * 64, "p" * 64, Terms("time", 60, (ROUTE,)), ("- {host: x}",)
    )


def grant(one: Proposal) -> Grant:
    return Grant("g" + one.id, one.id, one.run, "time", (ROUTE,), time.time(), time.time() + 60)


@pytest.fixture
def path(tmp_path):
    """A store with a proposal in every state, and grants."""
    where = str(tmp_path / "store.db")
    with Store.open(where) as store:
        proposals = Proposals(store)
        for name in ("pending", "approved", "applied", "failed", "rejected", "expired", "withdrawn"):
            proposals.add(proposal(name), STANDING)
        yes = proposals.decide(["approved", "applied", "failed"], lambda one, _: decision(one))
        assert [each.state for each in yes] == ["approved"] * 3
        proposals.decide(["rejected"], lambda one, _: decision(one, "rejected"))
        proposals.finish(
            [Outcome("applied", "applied", "", grant(proposal("applied"))), Outcome("failed", "failed", "no")]
        )
        proposals.finish(
            [Outcome("expired", "expired"), Outcome("withdrawn", "withdrawn")], before=("pending",)
        )
        proposals.use("gapplied", 3, 5.0)
    return where


def verdict(path: str):
    with Store.open(path) as store:
        return store.verify()


def test_everything_reads_back_as_it_was_written(path):
    with Store.open(path) as store:
        proposals = Proposals(store)
        for name in ("pending", "approved", "applied", "failed", "rejected", "expired", "withdrawn"):
            found = proposals.find(name)
            assert (found.state, found.ask, found.routes) == (name, proposal(name).ask, (ROUTE,))
        assert proposals.decisions(["approved"])["approved"].terms == Terms("time", 60, (ROUTE,))
        assert proposals.decisions(["approved"])["approved"].added == ("- {host: x}",)
        [held] = proposals.grants()
        assert (held.id, held.routes, held.used, held.used_at) == ("gapplied", (ROUTE,), 3, 5.0)
        assert proposals.standing("fixer-ab12") == STANDING
        assert not proposals.standing("nobody").trusts
        assert [each.id for each in proposals.pending()] == ["pending"]
        with pytest.raises(NotFoundError):
            proposals.find("e" * 5)
        with pytest.raises(NotFoundError, match="several"):
            proposals.find("ap")
    assert verdict(path).ok


EDITS = [
    *(f"UPDATE proposals SET {change} WHERE id = '{name}'"
      for name, changes in {
          "pending": ("state = 'approved'", "routes = '[]'", "words = 'x'", "subject = '{}'", "expires_at = 9e12", "repeats = 9",
                      "run = 'other-cd34'", "content = 'x'", "kind = 'git'", "reason = 'x'", "made_at = 1.0", "decided_at = 1.0"),
          "approved": ("state = 'applied'", "state = 'pending'"),
          "rejected": ("state = 'pending'", "state = 'approved'", "reason = 'yes'"),
          "failed": ("state = 'applied'",), "expired": ("state = 'pending'",), "withdrawn": ("ended_at = 0.0",),
          "applied": ("id = 'other'",),
      }.items() for change in changes),
    "DELETE FROM proposals WHERE id = 'rejected'",
    "INSERT INTO proposals SELECT 'new', run, kind, subject, words, 'c', routes, state, made_at, expires_at, decided_at, ended_at,"
    " reason, repeats FROM proposals WHERE id = 'applied'",
    *(f"UPDATE decisions SET {change} WHERE proposal = 'approved'"
      for change in ("verdict = 'rejected'", "who = 'you'", "digest = 'x'", "policy = 'x'", "scope = 'manifest'", "seconds = 9",
                     "routes = ''", "added = '[]'", "removed = '[\"x\"]'", "again = 1", "at = 1.0")),
    "DELETE FROM decisions WHERE proposal = 'rejected'",
    "UPDATE decisions SET proposal = 'pending' WHERE proposal = 'rejected'",
    *(f"UPDATE grants SET {change} WHERE id = 'gapplied'"
      for change in ("scope = 'bottle'", "until = 0.0", "routes = '[]'", "used = 0",
                     "ended = 'x'", "id = 'g'", "run = 'other-cd34'",
                     "since = 1.0", "proposal = 'pending'")),
    "DELETE FROM grants",
    "INSERT INTO grants SELECT 'gnew', 'pending', run, scope, routes, since, until, used, used_at, ended, ended_at FROM grants",
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_tables_is_found(path, edit):
    raw = sqlite3.connect(path, isolation_level=None)
    guards = [sql for (sql,) in raw.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    assert raw.execute(edit).rowcount == 1
    for guard in guards:
        raw.execute(guard)
    raw.close()
    found = verdict(path)
    assert not found.ok
    assert found.why
    if "INSERT" not in edit:
        assert found.first_bad is not None


def test_the_first_of_several_edits_is_named(path):
    with Store.open(path) as store:
        last = {
            event.data["proposal"]: event.number
            for event in store.events()
            if event.kind.startswith("proposal.")
        }
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("DROP TRIGGER proposals_that_ended_stay")
    for name in ("failed", "rejected", "pending"):
        raw.execute("UPDATE proposals SET words = 'x' WHERE id = ?", (name,))
    raw.execute(next(sql for step in migrations.STEPS for sql in step if "proposals_that_ended_stay" in sql))
    raw.close()
    found = verdict(path)
    assert (found.ok, found.first_bad) == (
        False,
        min(last[name] for name in ("failed", "rejected", "pending")),
    )
    assert "pending in proposals is not what event" in found.why


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE proposals SET state = 'pending' WHERE state = 'rejected'",
        "UPDATE proposals SET state = 'applied' WHERE state = 'failed'",
        "DELETE FROM proposals",
        "UPDATE decisions SET verdict = 'approved'",
        "DELETE FROM decisions",
        "DELETE FROM grants",
    ],
)
def test_the_guards_stop_what_takes_a_decision_back(path, edit):
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute(edit)
    raw.close()


def test_a_grant_that_ended_does_not_hold_again(path):
    with Store.open(path) as store:
        proposals = Proposals(store)
        assert [each.ended for each in proposals.end_grants(["gapplied"], "over")] == ["over"]
        assert proposals.end_grants(["gapplied"], "again") == []
        assert proposals.use("gapplied", 1, 9.0) is None
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="hold again"):
        raw.execute("UPDATE grants SET ended = ''")
    raw.close()
    assert verdict(path).ok


def test_a_proposal_is_decided_once_and_finished_once(path):
    with Store.open(path) as store:
        proposals = Proposals(store)
        before = len(store.events())
        for name in ("approved", "applied", "failed", "rejected", "expired", "withdrawn"):
            [done] = proposals.decide([name], lambda one, _: decision(one))
            assert (done.state, "decided already" in done.problem) == (name, True)
        assert proposals.finish([Outcome("applied", "applied", "", grant(proposal("applied")))]) == []
        assert proposals.finish([Outcome("rejected", "applied")], before=("approved", "pending")) == []
        assert len(store.events()) == before


def test_a_batch_is_whole_or_not_at_all(path):
    with Store.open(path) as store:
        proposals = Proposals(store)
        proposals.add(proposal("second"), STANDING)

        def judge(one: Proposal, _: Standing) -> Decision:
            if one.id == "second":
                raise StateError("The disk is full")
            return decision(one)

        with pytest.raises(StateError):
            proposals.decide(["pending", "second"], judge)
        assert {each.id for each in proposals.pending()} == {"pending", "second"}
        with pytest.raises(NotFoundError):
            proposals.decide(["pending", "nobody"], lambda one, _: decision(one))
        assert {each.id for each in proposals.pending()} == {"pending", "second"}
    assert verdict(path).ok


def test_the_same_ask_of_a_run_is_one_proposal_while_it_is_open(path):
    with Store.open(path) as store:
        proposals = Proposals(store)
        again = proposals.add(proposal("other", host="pending.example.org"), STANDING)
        assert again.id == "pending"
        assert (
            proposals.add(proposal("third", host="pending.example.org", run="other-cd34"), STANDING).id
            == "third"
        )
        assert proposals.add(proposal("fourth", host="rejected.example.org"), STANDING).id == "fourth"


def test_what_has_expired_can_t_be_decided_any_more(path):
    with Store.open(path) as store:
        late = Proposals(store, clock=lambda: time.time() + 5000)
        [done] = late.decide(["pending"], lambda one, _: decision(one))
        assert done.problem == "it has expired"
        assert late.pending() == []


def race(path: str, number: int, names: list[str]) -> list[str]:
    """Decides all of them, one after the other; those that counted."""
    answer = decision(proposal("x"), "approved" if number % 2 else "rejected")._replace(who=str(number))
    won = []
    with Store.open(path) as store:
        proposals = Proposals(store)
        for name in names if number < 3 else names[::-1]:
            [done] = proposals.decide([name], lambda one, _: answer._replace(proposal=one.id))
            won += [] if done.problem else [name]
    return won


def test_of_many_who_decide_at_once_one_wins_and_the_others_are_told(tmp_path):
    path = str(tmp_path / "store.db")
    names = [f"p{n}" for n in range(24)]
    with Store.open(path) as store:
        for name in names:
            Proposals(store).add(proposal(name), STANDING)
    workers = []
    for number in range(6):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, ",".join(race(path, number, names)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        workers.append((number, pid, reading))
    winners: dict[str, str] = {}
    for number, pid, reading in workers:
        with open(reading) as said:
            for name in filter(None, said.read().split(",")):
                assert name not in winners
                winners[name] = str(number)
        os.waitpid(pid, 0)
    assert sorted(winners) == sorted(names)
    with Store.open(path) as store:
        decisions = Proposals(store).decisions(names)
        assert {name: each.who for name, each in decisions.items()} == winners
    assert verdict(path).ok


def test_a_store_of_the_version_before_gets_the_tables_and_keeps_its_events(tmp_path, monkeypatch):
    path = str(tmp_path / "store.db")
    steps = migrations.STEPS
    monkeypatch.setattr(migrations, "STEPS", steps[:1])
    monkeypatch.setattr(migrations, "VERSION", 1)
    from bot_bottle.events import NewEvent

    with Store.open(path) as store:
        store.append([NewEvent("fixer-ab12", 1.0, "run.started", {})])
    monkeypatch.setattr(migrations, "STEPS", steps)
    monkeypatch.setattr(migrations, "VERSION", len(steps))
    with Store.open(path) as store:
        assert Proposals(store).pending() == []
        assert [event.kind for event in store.events()] == ["run.started"]
    assert verdict(path).ok
