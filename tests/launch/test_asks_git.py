"""From `git-block` to rules that the gate goes by: nothing is told before the gate has said so, and what was once is gone."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.launch.keeping import Kept
from tests.launch.test_asks import approve, kinds, reject, states, waiting

from bot_bottle.policy.approval import Terms
from bot_bottle.policy.approval_change import Standing
from bot_bottle.policy.approval_show import Changed, problem
from bot_bottle.policy.git import GitRules

FINGERPRINT = "0123456789abcdef0123"
REFUSED = {"remote": "origin", "ref": "refs/heads/bot/x", "rule": "github-pat", "commit": "1" * 40, "path": "tests/a.py", "line": 3,
           "fingerprint": FINGERPRINT, "why": "a secret (github-pat) in the file"}  # fmt: skip


class StandInGate:
    """A gate that says when the test wants that it goes by changed rules."""

    def __init__(self) -> None:
        self.confirms = True
        self.orders: list[tuple[str, GitRules, GitRules | None]] = []
        self.waiting: list[Callable[[str], None]] = []

    def base(self) -> tuple[tuple[str, GitRules], ...]:
        return (("origin", GitRules()), ("docs", GitRules(push=("*",))))

    def change(
        self, remote: str, rules: GitRules, once: GitRules | None, told: Callable[[str], None]
    ) -> None:
        self.orders.append((remote, rules, once))
        self.waiting.append(told)
        if self.confirms:
            self.confirm()

    def confirm(self) -> None:
        while self.waiting:
            self.waiting.pop(0)("")


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path / "store.db")
    kept.gate = StandInGate()
    yield kept
    kept.close()


def ask(kept, **arguments: Any) -> tuple[list[dict[str, Any]], Any]:
    answers = kept.ask(
        "git-block", **{"operation": "push", "remote": "origin", "reason": "to hand it in", **arguments}
    )
    return answers, next(each for each in waiting(kept) if each.proposal.id == answers[0]["proposal"])


def refused(kept, **data: Any) -> None:
    from bot_bottle.events import NewEvent

    kept.store.append([NewEvent("fixer-ab12", 1.0, "git.refused", {**REFUSED, **data})])


def test_a_ref_is_asked_shown_granted_at_the_gate_and_told_in_that_order(kept):
    kept.gate.confirms = False
    answers, shown = ask(kept, ref="main")
    assert states(answers) == ["pending"]
    assert shown.added == ("- git origin: push the branch main",)
    assert shown.title == "git push origin refs/heads/main"
    assert shown.applies
    assert any("main is a branch" in note for note in shown.effect.notes)
    approve(kept, shown)
    assert kept.gate.orders[-1] == ("origin", GitRules(push=("bot/*", "main")), None)
    assert states(answers) == ["pending"]
    assert kept.asks.proposals.grants() == []
    kept.gate.confirm()
    assert states(answers) == ["pending", "applied"]
    assert answers[-1]["message"].startswith("APPROVED and in force now")
    assert answers[-1]["added"] == ["- git origin: push the branch main"]
    assert kinds(kept) == ["proposal.made", "proposal.approved", "proposal.applied"]
    assert kept.store.verify().ok


@pytest.mark.parametrize(
    ("asked", "rules"),
    [
        ({"ref": "refs/tags/v1"}, GitRules(tags=("v1",))),
        (
            {"ref": "bot/x", "operation": "force"},
            GitRules(push=("bot/*", "bot/x"), force=("refs/heads/bot/x",)),
        ),
        (
            {"ref": "main", "operation": "delete"},
            GitRules(push=("bot/*", "main"), delete=("refs/heads/main",)),
        ),
        (
            {"ref": "refs/tags/v1", "operation": "force"},
            GitRules(tags=("v1",), force=("refs/tags/v1",)),
        ),
        ({"path": ".github/workflows/x.yml"}, GitRules(paths=(".github/workflows/x.yml",))),
        ({"fingerprint": FINGERPRINT}, GitRules(allowed=(FINGERPRINT,))),
    ],
)
def test_a_tag_a_path_and_a_finding_are_granted_exactly(kept, asked, rules):
    answers, shown = ask(kept, **asked)
    approve(kept, shown)
    assert states(answers) == ["pending", "applied"]
    assert kept.gate.orders[-1] == ("origin", rules, None)


def test_force_and_delete_are_shown_as_what_they_are(kept):
    _, forced = ask(kept, ref="bot/x", operation="force")
    assert forced.added == (
        "- git origin: push the branch bot/x, also with force: what it has now is left behind",
    )
    assert any("can be lost" in note for note in forced.effect.notes)
    _, deleted = ask(kept, ref="refs/tags/v1", operation="delete")
    assert deleted.added == ("- git origin: push the tag v1, and delete it",)
    assert any("can be lost" in note for note in deleted.effect.notes)


def test_what_is_pushed_for_good_is_written_by_hand_and_that_is_said(kept):
    _, shown = ask(kept, ref="main")
    standing = Standing(kept.policy, kept.policy)
    why = problem(
        shown.proposal, standing, Terms(scope="manifest"), Changed(kept.policy, kept.policy, (), ())
    )
    assert "by hand" in why


def test_a_finding_is_shown_with_where_it_was_found_and_never_with_the_secret(kept):
    refused(kept)
    _, shown = ask(kept, fingerprint=FINGERPRINT)
    assert (
        shown.effect.notes[0]
        == "The finding is: github-pat in tests/a.py:3: a secret (github-pat) in the file."
    )
    _, other = ask(kept, fingerprint="f" * 20)
    assert "Nothing with this fingerprint" in other.effect.notes[0]


def test_what_is_granted_once_is_gone_after_the_push_that_needed_it(kept):
    answers, shown = ask(kept, path=".github/workflows/x.yml")
    approve(kept, shown, scope="once")
    assert states(answers) == ["pending", "applied"]
    assert kept.gate.orders[-1] == ("origin", GitRules(), GitRules(paths=(".github/workflows/x.yml",)))
    kept.asks.hear_gate({"pushed": "origin", "refs": ["refs/heads/bot/x"], "once": False})
    assert len(kept.asks.proposals.grants()) == 1
    kept.asks.hear_gate({"pushed": "docs", "refs": ["refs/heads/bot/x"], "once": True})
    assert len(kept.asks.proposals.grants()) == 1
    kept.asks.hear_gate({"pushed": "origin", "refs": ["refs/heads/bot/x"], "once": True})
    assert kept.asks.proposals.grants() == []
    assert kept.gate.orders[-1] == ("origin", GitRules(), None)
    assert "NOT IN FORCE ANY MORE" in kept.wait_for(shown.proposal.id)[-1]["message"]


def test_what_is_granted_once_ends_when_nobody_knows_whether_it_was_used(kept):
    _, once = ask(kept, path=".github/workflows/x.yml")
    approve(kept, once, scope="once")
    _, lasting = ask(kept, ref="main")
    approve(kept, lasting)
    kept.asks.hear_gate({})
    assert [grant.proposal for grant in kept.asks.proposals.grants()] == [lasting.proposal.id]
    assert kept.gate.orders[-1] == ("origin", GitRules(push=("bot/*", "main")), None)


def test_a_grant_is_withdrawn_at_the_gate_before_anybody_is_told(kept):
    _, shown = ask(kept, ref="main")
    approve(kept, shown)
    [grant] = kept.asks.proposals.grants()
    kept.gate.confirms = False
    told: list[tuple[bool, str]] = []
    kept.asks.withdraw(grant.id, "me", lambda ended, why: told.append((ended, why)))
    assert kept.gate.orders[-1] == ("origin", GitRules(), None)
    assert told == []
    assert kept.asks.proposals.grants() == [grant]
    kept.gate.confirm()
    assert told == [(True, "")]
    assert kept.asks.proposals.grants() == []


def test_a_grant_ends_when_its_time_is_over_and_counts_its_uses(kept):
    _, shown = ask(kept, ref="main")
    approve(kept, shown, scope="time", seconds=600)
    kept.asks.hear_gate({"pushed": "origin", "refs": ["refs/heads/main"], "once": False})
    kept.asks.hear_gate({"pushed": "origin", "refs": ["refs/heads/bot/x"], "once": False})
    assert [grant.used for grant in kept.asks.proposals.grants()] == [1]
    kept.clock.ahead = 601
    kept.asks.tick()
    assert kept.asks.proposals.grants() == []
    assert kept.gate.orders[-1] == ("origin", GitRules(), None)


def test_a_change_of_the_egress_policy_and_a_git_grant_leave_each_other_alone(kept):
    _, one = ask(kept, ref="main")
    kept.ask(hosts=["docs.example.org"])
    other = next(each for each in waiting(kept) if each.proposal.ask.kind == "egress")
    approve(kept, one, other)
    assert {route.host for route in kept.policy.routes} == {"known.example.org", "docs.example.org"}
    for grant in kept.asks.proposals.grants():
        kept.asks.withdraw(grant.id, "me", lambda _ended, _why: None)
    assert {route.host for route in kept.policy.routes} == {"known.example.org"}
    assert kept.asks.proposals.grants() == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"remote": "evil", "ref": "main"}, "no remote of that name"),
        ({"operation": "fetch"}, "allowed already"),
        ({}, "Name the `ref`"),
        ({"operation": "force"}, "Name the `ref`"),
        ({"operation": "delete", "fingerprint": FINGERPRINT}, "Name the `ref`"),
        ({"operation": "mirror", "ref": "main"}, "push, fetch, force or delete"),
        ({"operation": "delete", "ref": "bot/*"}, "one branch or tag"),
        ({"ref": "bot/*"}, "one branch or tag"),
        ({"ref": "refs/notes/x"}, "one branch or tag"),
        ({"ref": "main..other"}, "one branch or tag"),
        ({"path": ".github/workflows/*"}, "the one path"),
        ({"path": "a?b"}, "the one path"),
        ({"fingerprint": "all"}, "20 digits and letters"),
        ({"ref": "bot/x"}, "ALLOWED ALREADY"),
    ],
)
def test_what_stands_for_many_or_for_nothing_is_not_asked_of_anybody(kept, asked, said):
    answers = kept.ask("git-block", **{"operation": "push", "remote": "origin", "reason": "x", **asked})
    assert said in str(answers)
    assert waiting(kept) == []


def test_a_bottle_without_a_gate_has_nothing_to_grant(kept):
    kept.gate = None
    answers = kept.ask("git-block", operation="push", remote="origin", ref="main", reason="x")
    assert "no git remote" in answers[0]["problem"]


def test_a_refusal_sticks_to_what_was_refused_and_not_to_the_remote(kept):
    _, shown = ask(kept, ref="main")
    reject(kept, shown)
    assert states(
        kept.ask("git-block", operation="push", remote="origin", ref="refs/heads/main", reason="y")
    ) == ["rejected"]
    assert states(kept.ask("git-block", operation="push", remote="origin", ref="release", reason="y")) == [
        "pending"
    ]


def test_what_is_said_of_the_gate_by_nobody_known_changes_nothing(kept):
    _, shown = ask(kept, path=".husky/pre-push")
    approve(kept, shown, scope="once")
    messages: list[Mapping[str, Any]] = [
        {"pushed": 1, "refs": []}, {"pushed": "origin"}, {"pushed": "origin", "refs": "x", "once": True},
        {"pushed": "origin", "refs": [], "once": 1},
    ]  # fmt: skip
    for message in messages:
        kept.asks.hear_gate(message)
    assert len(kept.asks.proposals.grants()) == 1
