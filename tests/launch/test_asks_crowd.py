"""Twenty bottles with sixteen proposals each, decided in one batch: each is applied once, by one change a bottle."""

import contextlib

from tests.launch.keeping import Kept

from bot_bottle.launch.asks_limits import EACH, MOST_OPEN
from bot_bottle.policy.approval import Approval

BOTTLES = 20


def test_all_of_them_are_decided_in_one_batch_and_each_is_applied_once(tmp_path):
    with contextlib.ExitStack() as stack:
        runs = [Kept(tmp_path / "store.db", f"fixer-{n:04d}") for n in range(BOTTLES)]
        for kept in runs:
            stack.callback(kept.close)
        answers = {}
        for number, kept in enumerate(runs):
            for index in range(MOST_OPEN):
                answers[number, index] = kept.ask(hosts=[f"h{index}.example{index}.org"])
                kept.clock.ahead += EACH
            for _ in range(50):
                kept.wait_for(answers[number, 0][0]["proposal"])
        desk = stack.enter_context(runs[0].desk())
        waiting = desk.waiting()
        assert len(waiting) == BOTTLES * MOST_OPEN
        assert all(len(each.alike) == BOTTLES - 1 for each in waiting)
        done = desk.approve([Approval(each.proposal.id, each.digest, each.terms) for each in waiting], wait=0)
        assert {(each.state, each.problem) for each in done} == {("approved", "")}
        for kept in runs:
            kept.asks.tick()
            assert len(kept.orders) == 1
            assert len(kept.policy.routes) == 1 + MOST_OPEN
        assert {tuple(each["state"] for each in said) for said in answers.values()} == {
            ("pending", "applied")
        }
        assert desk.waiting() == []
        assert len(desk.grants()) == BOTTLES * MOST_OPEN
        assert desk.changed(0)
        found = runs[0].store.verify()
        assert found.ok, found
