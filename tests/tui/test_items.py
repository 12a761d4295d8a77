"""What folds into one decision, and how a selection finds its proposal again."""

from bot_bottle.policy.approval import Effect, Terms
from bot_bottle.testing.desk import FakeDesk
from bot_bottle.tui.inbox import age, find, fold, terms_text


def ids(items):
    return [item.ids for item in items]


def three_alike() -> FakeDesk:
    desk = FakeDesk()
    for number, run in enumerate(("a-1", "b-2", "c-3")):
        desk.ask("x.example.org", run=run, age=10 - number, effect=Effect(number, 1))
    return desk


def test_the_same_ask_of_several_bottles_folds_whatever_each_would_have_let_through():
    assert ids(fold(three_alike().waiting())) == [("p0001", "p0002", "p0003")]
    assert len(fold(three_alike().waiting(), unfolded=True)) == 3


def test_what_an_operator_would_decide_otherwise_does_not_fold():
    for parts in (
        {"problem": "no"},
        {"title": "another"},
        {"effect": Effect(sinks=("x.example.org",))},
        {"effect": Effect(credentialed=("x.example.org",))},
        {"effect": Effect(notes=("new",))},
    ):
        desk = three_alike()
        desk.say("p0002", **parts)
        assert ids(fold(desk.waiting())) == [("p0001", "p0003"), ("p0002",)], parts
    desk = three_alike()
    shown = [desk.show("p0001"), desk.show("p0002", Terms("once")), desk.show("p0003")]
    assert ids(fold(shown)) == [("p0001", "p0003"), ("p0002",)]


def test_two_asks_of_one_bottle_are_two_decisions_even_if_they_call_each_other_alike():
    desk = FakeDesk()
    for run in ("a-1", "a-1", "b-2"):
        desk.ask("x.example.org", run=run)
    assert all(len({member.proposal.run for member in item.members}) == len(item.members)
               for item in fold(desk.waiting()))  # fmt: skip


def test_a_selection_is_found_again_by_its_first_then_by_what_is_left_of_it():
    desk = three_alike()
    [item] = fold(desk.waiting())
    desk.end("p0001", "expired")
    [left] = fold(desk.waiting())
    assert find([left], item) == left
    assert left.signature != item.signature
    desk.end("p0002", "expired")
    desk.end("p0003", "expired")
    assert find(fold(desk.waiting()), item) is None


def test_a_changed_digest_or_problem_changes_the_signature():
    desk = three_alike()
    [item] = fold(desk.waiting())
    for number in (1, 2, 3):
        desk.say(f"p000{number}", problem="no")
    [now] = fold(desk.waiting())
    assert now.signature != item.signature


def test_times_and_terms_are_said_in_one_unit():
    assert [age(0, seconds) for seconds in (-5, 0, 59, 60, 7199, 7200, 200000)] == [
        "0 s", "0 s", "59 s", "1 m", "1 h", "2 h", "2 d"]  # fmt: skip
    assert terms_text(Terms("time", 5400)) == "1 h"
    assert terms_text(Terms("time", 1800)) == "30 minutes"


def test_the_credentials_of_two_bottles_are_two_decisions_whatever_they_are_called():
    desk = three_alike()
    for name, bottle in (("p0001", "one"), ("p0002", "two"), ("p0003", "one")):
        desk.say(name, bottle=bottle, effect=Effect(credentialed=("x.example.org",)))
    assert ids(fold(desk.waiting())) == [("p0001", "p0003"), ("p0002",)]
