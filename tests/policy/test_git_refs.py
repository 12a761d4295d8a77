"""What may be pushed, as a pure decision: nothing that was not granted, whatever it is called."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.plan.remotes import spellings
from bot_bottle.policy.git import BRANCHES, NOTHING, TAGS, GitRules, Update, is_sound, judge, matches

A, B = "a" * 40, "b" * 40
REFS = st.text(alphabet="abot/.*?-~^: @{}\\\n\x1b\u200d", min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("update", "rules", "forward", "rule"),
    [
        (Update("refs/heads/bot/x", NOTHING, A), GitRules(), False, None),
        (Update("refs/heads/bot/x", A, B), GitRules(), True, None),
        (Update("refs/heads/bot/x", A, B), GitRules(), False, "ref-force"),
        (Update("refs/heads/bot/x", A, B), GitRules(force=("refs/heads/bot/*",)), False, None),
        (Update("refs/heads/bot/x", A, NOTHING), GitRules(), False, "ref-delete"),
        (Update("refs/heads/bot/x", A, NOTHING), GitRules(delete=("refs/heads/bot/*",)), False, None),
        (Update("refs/heads/main", A, B), GitRules(), True, "ref-push"),
        (Update("refs/heads/main", A, NOTHING), GitRules(delete=("*",)), False, "ref-push"),
        (Update("refs/heads/main", A, B), GitRules(force=("*",)), False, "ref-push"),
        (Update("refs/tags/v1", NOTHING, A), GitRules(), False, "ref-tags"),
        (Update("refs/tags/v1", NOTHING, A), GitRules(tags=("v*",)), False, None),
        (Update("refs/tags/v1", A, B), GitRules(tags=("v*",)), True, "ref-force"),
        (Update("refs/tags/bot/x", NOTHING, A), GitRules(), False, "ref-tags"),
        (Update("refs/notes/bot/x", NOTHING, A), GitRules(push=("*",), tags=("*",)), False, "ref-push"),
        (Update("refs/heads/bot", NOTHING, A), GitRules(), False, "ref-push"),
        (Update("refs/heads/robot/x", NOTHING, A), GitRules(), False, "ref-push"),
        (Update("refs/heads/bot/x", NOTHING, A), GitRules(push=()), False, "ref-push"),
    ],
)
def test_each_thing_takes_its_own_grant(update, rules, forward, rule):
    refusal = judge(update, rules, forward=forward)
    assert (refusal.rule if refusal else None) == rule


@given(REFS)
def test_a_name_that_git_would_not_take_is_never_let_through(name):
    for prefix in (BRANCHES, TAGS, ""):
        ref = prefix + name
        refusal = judge(Update(ref, NOTHING, A), GitRules(push=("*",), tags=("*",)), forward=False)
        if refusal is None:
            assert subprocess.run(["git", "check-ref-format", ref], check=False).returncode == 0, ref
            assert ref.isprintable()


@given(REFS)
def test_what_is_not_granted_is_refused_whatever_it_is_called(name):
    ref = BRANCHES + name
    if judge(Update(ref, NOTHING, A), GitRules(), forward=False) is None:
        assert ref.startswith("refs/heads/bot/")
        assert is_sound(ref)


def test_a_pattern_stands_for_the_whole_name():
    assert matches("bot/x\n", ("bot/x",)) is False
    assert matches("xbot/x", ("bot/*",)) is False
    assert matches("bot/a/b", ("bot/*",)) is True
    assert matches("bot.x", ("bot?x",)) is True
    assert matches("anything", ()) is False


@pytest.mark.parametrize(
    "url", ["git@example.org:me/repo.git", "ssh://git@example.org/me/repo", "https://example.org/me/repo.git"]
)
def test_whatever_a_forge_calls_a_repository_is_the_same_remote(url):
    known = spellings(url)
    for wanted in (
        "git@example.org:me/repo.git", "git@example.org:me/repo", "ssh://git@example.org/me/repo.git",
        "https://example.org/me/repo", "https://example.org/me/repo.git",
    ):  # fmt: skip
        assert wanted in known, wanted
