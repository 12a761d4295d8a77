"""What an operator does in the terminal's inbox, and what must not happen by accident."""

import asyncio
import threading
import time

import pytest
from textual.widgets import Input, TextArea

from bot_bottle.errors import StateError
from bot_bottle.policy.approval import Decided, Effect, Terms
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.testing.desk import FakeDesk
from tui.driver import asynchronous, opened

SIZES = [(80, 24), (120, 36), (220, 60)]


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


def in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize("size", SIZES)
@asynchronous
async def test_the_effect_stands_before_the_words_and_the_words_behind_a_bar(desk, size):
    effect = Effect(12, 2, ("api.example.org",), ("paste.example.org",), ("It is new.",))
    desk.ask("a.example.org", words="please, it is harmless", effect=effect)
    async with opened(desk, size=size) as inbox:
        top = inbox.screen
        await inbox.press("d", "d")
        seen = top + inbox.screen
    assert in_order(
        seen,
        "+ {host: a.example.org}",
        "12 refused requests to 2 hosts",
        "! A credential is put in for api.example.org",
        "! Known for taking in whatever is sent there: paste.example.org",
        "! It is new.",
        "(•) 3 this bottle",
    )
    assert in_order(seen, "this bottle", "nobody has checked it", "please, it is harmless")
    words = next(line for line in seen.splitlines() if "please, it is harmless" in line)
    assert words[: words.index("please")].rstrip().endswith("▌")


@asynchronous
async def test_what_waits_is_listed_oldest_first_and_says_whose_it_is_and_how_old(desk):
    desk.ask("young.example.org", run="docs-1", agent="writer", bottle="docs", age=5)
    desk.ask("old.example.org", run="fixer-2", age=3700, repeats=2)
    async with opened(desk, size=(80, 24)) as inbox:
        assert in_order(inbox.screen, "old.example.org", "young.example.org")
        assert "fixer-2" in inbox.marked_line
        assert "1 h" in inbox.marked_line
        assert "asked 3 times" in inbox.screen


@asynchronous
async def test_the_same_ask_of_three_bottles_is_one_decision_and_can_be_taken_apart(desk):
    for run in ("a-1", "b-2", "c-3"):
        desk.ask("registry.example.org", run=run, words=f"words of {run}")
    async with opened(desk) as inbox:
        assert "3 proposals of 3 bottles in 1 decision" in inbox.screen
        assert all(f"words of {run}" in inbox.screen for run in ("a-1", "b-2", "c-3"))
        await inbox.press("a", "y")
        assert sorted(approval.id for approval in desk.approvals) == ["p0001", "p0002", "p0003"]
        await inbox.sees("3 approved and in force")
    again = FakeDesk()
    for run in ("a-1", "b-2"):
        again.ask("registry.example.org", run=run)
    async with opened(again) as inbox:
        await inbox.press("f", "a", "y")
        assert [approval.id for approval in again.approvals] == ["p0001"]


@asynchronous
async def test_bottles_where_the_same_ask_would_change_something_else_do_not_fold(desk):
    desk.put("b-2", EgressPolicy(routes=(Route("one.example.org", 443),)))
    for run in ("a-1", "b-2"):
        desk.ask("one.example.org", "two.example.org", run=run)
    async with opened(desk) as inbox:
        assert "in 1 decision" not in inbox.screen
        assert "2 proposals" in inbox.screen


@asynchronous
async def test_approving_takes_two_different_keys_and_names_the_digest_that_was_shown(desk):
    name = desk.ask("a.example.org")
    async with opened(desk) as inbox:
        for keys in (["a", "enter"], ["space"], ["a", "escape"], ["y"], ["a", "a"], ["enter"]):
            await inbox.press("escape", *keys)
            assert desk.approvals == [], keys
        await inbox.press("escape", "escape", "2", "a")
        shown = desk.show(name, Terms("time", 1800))
        assert "+ {host: a.example.org}" in inbox.screen
        await inbox.press("y")
        assert [(each.digest, each.terms) for each in desk.approvals] == [(shown.digest, shown.terms)]
        await inbox.sees("1 approved and in force")
        await inbox.sees("Nothing waits")


@asynchronous
async def test_keys_that_were_typed_ahead_approve_nothing(desk):
    desk.ask("a.example.org")
    async with opened(desk, settle=60.0) as inbox:
        inbox.page._came_up = 0.0
        await inbox.press("a", "y", "y", "enter", "y")
        assert desk.approvals == []
        await inbox.sees("only just now")


@asynchronous
async def test_an_approval_key_does_nothing_when_something_else_has_just_taken_the_place(desk):
    first = desk.ask("first.example.org", age=9)
    desk.ask("second.example.org")
    async with opened(desk, settle=60.0) as inbox:
        inbox.page._came_up = 0.0
        await inbox.press("r")
        await inbox.press("escape")
        inbox.app.decided.add(first)  # as if it had been decided here
        desk.end(first, "rejected")
        await inbox.sees("1 proposal of 1 bottle")
        assert "second.example.org" in inbox.marked_line
        for key in ("a", "r"):
            await inbox.press(key)
            assert inbox.app.screen is inbox.page
            await inbox.sees("only just now")


@asynchronous
async def test_the_selection_stays_on_its_proposal_when_others_come_and_go(desk):
    ids = [desk.ask(f"h{number}.example.org", age=100 - number) for number in range(8)]
    async with opened(desk, size=(80, 24)) as inbox:
        await inbox.press("down", "down", "down")
        assert inbox.selected == ids[3]
        line = inbox.lines.index(inbox.marked_line)
        desk.ask("older.example.org", age=5000)
        await inbox.sees("9 proposals")
        assert inbox.selected == ids[3]
        assert inbox.lines.index(inbox.marked_line) == line
        desk.end(ids[0], "expired")
        desk.end(ids[4], "expired")
        await inbox.sees("7 proposals")
        assert inbox.selected == ids[3]
        assert "h3.example.org" in inbox.marked_line


@asynchronous
async def test_what_vanishes_while_it_is_looked_at_stays_and_says_so_and_can_not_be_decided(desk):
    first = desk.ask("first.example.org", age=9)
    desk.ask("second.example.org")
    async with opened(desk) as inbox:
        desk.end(first, "rejected", "not today")
        await inbox.sees("It no longer waits: rejected (not today)")
        assert inbox.selected == first
        assert "first.example.org" in inbox.marked_line
        await inbox.press("a", "y", "r", "enter", "e", "1")
        assert (desk.approvals, desk.rejections) == ([], [])
        await inbox.press("down")
        assert "second.example.org" in inbox.marked_line
        assert "first.example.org" not in inbox.screen


@asynchronous
async def test_a_change_between_showing_and_deciding_is_taken_out_and_said(desk):
    desk.ask("a.example.org", "b.example.org")
    async with opened(desk) as inbox:
        await inbox.press("a")
        assert "+ {host: a.example.org}" in inbox.screen
        desk.put("fixer-2345", EgressPolicy(routes=(Route("a.example.org", 443),)))
        await inbox.sees("changed since it was shown")
        await inbox.press("y")
        assert desk.approvals == []
        await inbox.sees("Nothing is left to approve")


@asynchronous
async def test_a_change_that_only_the_desk_has_seen_does_not_count_and_the_screen_says_so(desk):
    desk.ask("a.example.org", "b.example.org")
    async with opened(desk) as inbox:
        await inbox.press("a")
        inbox.app._watch.stop()
        desk.put("fixer-2345", EgressPolicy(routes=(Route("a.example.org", 443),)))
        await inbox.press("y")
        assert desk.approvals == []
        await inbox.sees("did not come about")
        await inbox.sees("It changed since it was shown")


@asynchronous
async def test_what_vanishes_from_a_batch_is_left_out_and_the_rest_is_decided(desk):
    ids = [desk.ask(f"h{number}.example.org", run=f"r-{number}") for number in range(3)]
    async with opened(desk) as inbox:
        await inbox.press("asterisk", "a")
        await inbox.sees("Approve 3 proposals")
        desk.end(ids[1], "withdrawn")
        await inbox.sees("waits no more")
        await inbox.sees("Approve 2 proposals")
        await inbox.press("y")
        assert [each.id for each in desk.approvals] == [ids[0], ids[2]]


@asynchronous
async def test_a_batch_of_which_part_fails_says_of_each_what_became_of_it(desk):
    ids = [desk.ask(f"h{number}.example.org", run=f"r-{number}") for number in range(3)]
    desk.outcomes[ids[1]] = Decided(ids[1], "failed", "The policy changed meanwhile; look again.")
    async with opened(desk) as inbox:
        await inbox.press("asterisk", "a", "y")
        await inbox.sees("1 of 3 decisions did not come about")
        assert "2 approved and in force" in inbox.screen
        assert "The policy changed meanwhile" in inbox.screen
        await inbox.press("escape", "h")
        await inbox.sees("! failed")


@asynchronous
async def test_a_long_batch_must_be_seen_to_its_end_before_it_can_be_approved(desk):
    for number in range(40):
        desk.ask(f"h{number}.example.org", run=f"r-{number}")
    async with opened(desk, size=(80, 24)) as inbox:
        await inbox.press("asterisk", "a", "y")
        assert desk.approvals == []
        await inbox.sees("There is more below")
        await inbox.press("end", "y")
        assert len(desk.approvals) == 40


@asynchronous
async def test_marks_choose_what_the_keys_are_about(desk):
    ids = [desk.ask(f"h{number}.example.org", run=f"r-{number}") for number in range(4)]
    async with opened(desk) as inbox:
        await inbox.press("space", "down", "down", "space", "1", "a")
        await inbox.sees("Approve 2 proposals of 2 bottles?")
        assert "once" in inbox.screen
        await inbox.press("y")
        assert [(each.id, each.terms.scope) for each in desk.approvals] == [
            (ids[0], "once"),
            (ids[2], "once"),
        ]
        await inbox.press("asterisk", "escape", "r")
        await inbox.sees("Reject 1 proposal?")


@asynchronous
async def test_what_came_after_marking_all_is_not_marked(desk):
    first = desk.ask("a.example.org", run="r-1")
    async with opened(desk) as inbox:
        await inbox.press("asterisk")
        desk.ask("b.example.org", run="r-2")
        await inbox.sees("2 proposals")
        await inbox.press("a", "y")
        assert [each.id for each in desk.approvals] == [first]


@asynchronous
async def test_what_can_not_be_approved_says_why_and_is_left_out(desk):
    desk.ask("bad.example.org", run="r-1", problem="It is below a registry's own name.", age=5)
    desk.ask("good.example.org", run="r-2")
    async with opened(desk) as inbox:
        assert "Can't be approved so: It is below a registry's own name." in inbox.screen
        await inbox.press("a", "y")
        await inbox.sees("Nothing of this can be approved")
        await inbox.press("escape", "asterisk", "a", "y")
        assert [each.id for each in desk.approvals] == ["p0002"]


@asynchronous
async def test_a_change_that_nobody_could_look_at_can_not_be_approved(desk):
    desk.ask(routes=[Route(f"h{number}.example.org", 443, paths=("/" + "x" * 200,)) for number in range(200)])
    async with opened(desk) as inbox:
        assert "too much to be looked at" in inbox.screen
        await inbox.press("a", "end", "y")
        assert desk.approvals == []


@asynchronous
async def test_rejecting_gives_the_reason_and_whether_it_may_be_asked_again(desk):
    desk.ask("a.example.org", age=9)
    second = desk.ask("b.example.org")
    async with opened(desk) as inbox:
        await inbox.press("r", *"no way", "enter")
        assert desk.rejections == [("p0001", "no way", False)]
        await inbox.sees("1 rejected")
        await inbox.press("r", *"ay", "ctrl+t", "enter")
        assert desk.rejections[1] == (second, "ay", True)
        assert desk.approvals == []


@asynchronous
async def test_what_is_typed_as_a_reason_decides_nothing_else(desk):
    desk.ask("a.example.org")
    async with opened(desk) as inbox:
        await inbox.press("r", *"ayqge1*")
        assert inbox.app.screen.query_one(Input).value == "ayqge1*"
        await inbox.press("escape")
        assert (desk.approvals, desk.rejections) == ([], [])


@asynchronous
async def test_an_edit_is_worked_out_shown_again_and_approved_as_shown(desk):
    desk.ask("a.example.org", "b.example.org")
    async with opened(desk) as inbox:
        await inbox.press("e")
        editor = inbox.app.screen.query_one(TextArea)
        assert editor.text == "- {host: a.example.org}\n- {host: b.example.org}\n"
        editor.text = "- {host: a.example.org, port: x}\n"
        await inbox.press("ctrl+s")
        await inbox.sees("These are no routes")
        editor.text = "- {host: a.example.org, methods: [GET]}\n"
        await inbox.press("ctrl+s")
        await inbox.sees("With the routes as you edited them")
        assert desk.approvals == []
        assert "+ {host: a.example.org, methods: [GET]}" in inbox.screen
        assert "b.example.org}" not in inbox.screen
        await inbox.press("2", "a")
        assert "+ {host: a.example.org, methods: [GET]}" in inbox.screen
        await inbox.press("y")
        [approval] = desk.approvals
        assert approval.terms == Terms("time", 1800, (Route("a.example.org", 443, methods=("GET",)),))


@asynchronous
async def test_an_edit_can_be_dropped(desk):
    desk.ask("a.example.org", "b.example.org")
    async with opened(desk) as inbox:
        await inbox.press("e")
        inbox.app.screen.query_one(TextArea).text = "- {host: c.example.org}"
        await inbox.press("f2", "x")
        assert "+ {host: b.example.org}" in inbox.screen
        assert "c.example.org" not in inbox.screen


@asynchronous
async def test_terms_are_chosen_before_or_in_the_last_look(desk):
    desk.ask("a.example.org")
    async with opened(desk) as inbox:
        await inbox.press("1")
        assert "(•) 1 once" in inbox.screen
        await inbox.press("a", "4")
        await inbox.sees("the bottle's file ·")
        await inbox.press("y")
        assert [each.terms for each in desk.approvals] == [Terms("manifest")]


@asynchronous
async def test_how_long_it_waits_goes_on_in_the_list_and_beside_it(desk, monkeypatch):
    desk.ask("a.example.org", age=5)
    async with opened(desk) as inbox:
        now = time.time() + 120
        monkeypatch.setattr(time, "time", lambda: now)
        inbox.page._tick()
        await inbox.sees("2 m ago")
        assert inbox.screen.count("2 m") == 2


@asynchronous
async def test_what_an_approval_for_good_writes_into_the_bottles_file_is_shown_before(desk):
    desk.ask("a.example.org")
    async with opened(desk) as inbox:
        assert "In the bottle's file" not in inbox.screen
        await inbox.press("4")
        assert in_order(inbox.screen, "In the bottle's file", "+    - {host: a.example.org}")
        await inbox.press("a")
        assert inbox.screen.count("In the bottle's file") >= 1
        desk.file = "another line"  # somebody edits the file meanwhile
        desk.put("other", EgressPolicy())
        await inbox.sees("changed since it was shown")
        await inbox.press("y")
        assert desk.approvals == []


@asynchronous
async def test_an_approval_that_is_only_recorded_says_so(desk):
    desk.ask(kind="capability", title="Have graphviz installed")
    async with opened(desk) as inbox:
        assert "records an approval of this kind, and can't" in inbox.screen
        await inbox.press("a")
        assert "Recorded, not applied." in inbox.screen
        await inbox.press("y", "h")
        await inbox.sees("approved, which is recorded and not applied")


@asynchronous
async def test_grants_are_seen_and_withdrawn_after_a_question(desk):
    desk.ask("a.example.org")
    async with opened(desk) as inbox:
        await inbox.press("a", "y", "g")
        await inbox.sees("1 grant in force")
        await inbox.press("w", "n")
        assert desk.withdrawals == []
        await inbox.press("w", "y")
        assert desk.withdrawals == ["g0001"]
        await inbox.sees("No grant is in force")


@asynchronous
async def test_history_tells_what_was_decided_on_what_terms_and_why(desk):
    desk.ask("a.example.org", age=9)
    desk.ask("b.example.org")
    async with opened(desk) as inbox:
        await inbox.press("1", "a", "y", "r", *"never", "enter", "h")
        await inbox.sees("Reason: never")
        await inbox.press("down")
        await inbox.sees("Outcome: approved, and in force")
        assert "Terms: once" in inbox.screen
        assert "+ {host: a.example.org}" in inbox.screen


@asynchronous
async def test_a_store_that_fails_is_said_and_survived(desk):
    desk.ask("a.example.org")
    async with opened(desk) as inbox:
        desk.trouble = StateError("The record can't be read", details="disk I/O error")
        await inbox.press("a", "y")
        await inbox.sees("Approving failed")
        assert "disk I/O error" in inbox.screen
        await inbox.press("escape")
        desk.ask("b.example.org")
        await inbox.sees("(trying again)")
        assert "a.example.org" in inbox.screen
        desk.trouble = None
        await inbox.sees("b.example.org")
        assert "trying again" not in inbox.screen
        await inbox.press("a", "y")
        assert [each.id for each in desk.approvals] == ["p0001"]


@asynchronous
async def test_a_store_that_fails_at_the_beginning_is_said_too(desk):
    desk.trouble = StateError("The record can't be read")
    async with opened(desk) as inbox:
        await inbox.sees("! The record can't be read (trying again)")
        desk.trouble = None
        await inbox.sees("Nothing waits")


@asynchronous
async def test_the_screen_stays_live_while_a_decision_is_on_its_way_and_it_is_not_taken_twice(desk):
    desk.ask("a.example.org", age=9)
    desk.gate.clear()
    async with opened(desk) as inbox:
        await inbox.press("a", "y")
        await inbox.sees("Approving 1 proposal …")
        await inbox.press("a", "y", "r")
        await inbox.sees("It is being decided.")
        desk.ask("b.example.org", run="other-1")
        await inbox.sees("b.example.org")
        desk.gate.set()
        await inbox.sees("1 approved and in force")
        assert [each.id for each in desk.approvals] == ["p0001"]
        assert "b.example.org" in inbox.marked_line


@asynchronous
async def test_three_hundred_and_twenty_proposals_are_shown_moved_through_and_decided_together(desk):
    ids = [
        desk.ask(f"h{number}.example.org", run=f"r-{number % 20}", age=1000 - number) for number in range(320)
    ]
    async with opened(desk) as inbox:
        assert "320 proposals of 20 bottles" in inbox.screen
        await inbox.press("end")
        assert inbox.selected == ids[-1]
        assert "h319.example.org" in inbox.marked_line
        await inbox.press("pageup", "home", "asterisk", "a", "end", "y")
        assert len(desk.approvals) == 320
        await inbox.sees("320 approved and in force")


@asynchronous
async def test_many_changes_are_shown_together(desk, monkeypatch):
    desk.ask("a.example.org")
    async with opened(desk) as inbox:
        taken = []
        take = inbox.app._take
        monkeypatch.setattr(inbox.app, "_take", lambda news: (taken.append(len(news.waiting)), take(news)))
        for number in range(300):
            desk.ask(f"h{number}.example.org", run=f"r-{number}")
        await inbox.sees("301 proposals")
        assert len(taken) < 150, taken
        assert taken[-1] == 301


def test_an_error_that_nobody_foresaw_ends_it_and_is_raised(desk, monkeypatch):
    async def fails() -> None:
        async with opened(desk) as inbox:
            monkeypatch.setattr(desk, "waiting", lambda: 1 / 0)
            desk.ask("a.example.org")
            await inbox.until(lambda: inbox.app._exception, "the end")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fails())


@asynchronous
async def test_help_lists_every_key(desk):
    async with opened(desk, size=(80, 24)) as inbox:
        await inbox.press("question_mark")
        seen = inbox.screen
        await inbox.press("end")
        assert "approve: shows once more" in seen
        assert "nobody has checked them" in inbox.screen
        await inbox.press("escape")
        assert inbox.app.screen is inbox.page


@asynchronous
async def test_nothing_but_the_main_thread_is_left_behind(desk):
    before = set(threading.enumerate())
    async with opened(desk):
        pass
    left = [each.name for each in set(threading.enumerate()) - before if each.name.startswith("inbox-watch")]
    assert left == []
