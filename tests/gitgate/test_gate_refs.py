"""What may be pushed where, through a real gate to a real server: nothing that was not granted, and nothing by halves."""

import pytest

from bot_bottle.policy.git import GitRules
from support import gates
from support.gitservers import git

pytestmark = pytest.mark.namespace


def granted(**keys):
    return GitRules(gitleaks=False, **keys)


def refs(upstream):
    listed = git(upstream, "for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split() for line in listed.splitlines())


def test_a_branch_of_the_bots_is_created_and_moved_forward(gate, upstream):
    work = gate.clone()
    for number in range(2):
        head = gate.commit(work, content=f"{number}\n")
        done = gate.git("push", "-q", "origin", "HEAD:refs/heads/bot/x", cwd=work)
        assert done.code == 0, done.said
        assert refs(upstream)["refs/heads/bot/x"] == head
        assert git(upstream, "fsck", "--strict", "--connectivity-only") == ""
    assert gate.kinds().count("git.pushed") == 2
    gate.assert_nothing_stands()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["HEAD:refs/heads/main"], "ref-push"),
        (["HEAD:refs/heads/other"], "ref-push"),
        (["HEAD:refs/tags/v2"], "ref-tags"),
        (["HEAD:refs/notes/x"], "ref-push"),
        (["+origin/main~1:refs/heads/bot/old"], "ref-force"),
        ([":refs/heads/bot/old"], "ref-delete"),
        ([":refs/heads/main"], "ref-push"),
        (["main~1:refs/heads/bot/../main"], ""),
        (["HEAD^{tree}:refs/heads/bot/tree"], ""),
    ],
)
def test_what_was_not_granted_changes_nothing_and_is_named(gate, upstream, words, rule):
    git(upstream, "branch", "bot/old", "main")
    before = refs(upstream)
    work = gate.clone()
    gate.commit(work)
    done = gate.git("push", "origin", *words, cwd=work)
    assert done.code != 0
    assert refs(upstream) == before
    if rule:
        assert f"[{rule}]" in done.said, done.said
        assert gate.told("git.refused")[-1]["rule"] == rule
    gate.assert_nothing_stands()


def test_several_refs_go_together_or_not_at_all(gate, upstream):
    work = gate.clone()
    head = gate.commit(work)
    refused = gate.git("push", "origin", "HEAD:bot/a", "HEAD:main", cwd=work)
    assert refused.code != 0
    assert sorted(refs(upstream)) == ["refs/heads/main", "refs/tags/v1"]
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/a", "HEAD:refs/heads/bot/b", cwd=work)
    assert done.code == 0, done.said
    assert refs(upstream)["refs/heads/bot/a"] == refs(upstream)["refs/heads/bot/b"] == head


def test_force_delete_and_tags_are_done_where_they_are_granted(gated, place_for_git, ssh, upstream):
    rules = granted(
        tags=("v*",), force=("refs/heads/bot/*", "refs/tags/v*"), delete=("refs/heads/bot/*", "refs/tags/v*")
    )
    gate = gated(gates.over_ssh(place_for_git, ssh, upstream, rules=rules))
    git(upstream, "branch", "bot/old", "main")
    work = gate.clone()
    gate.git("tag", "-m", "Two", "v2", cwd=work)
    for words in (["origin/main~1:refs/heads/bot/old"], ["v2"], ["main~2:refs/tags/v1"]):
        done = gate.git("push", "--force", "origin", *words, cwd=work)
        assert done.code == 0, done.said
    assert refs(upstream)["refs/heads/bot/old"] == git(upstream, "rev-parse", "main~1")
    assert git(upstream, "cat-file", "-t", "v2") == "tag"
    assert git(upstream, "rev-parse", "v1") == git(upstream, "rev-parse", "main~2")
    assert gate.git("push", "origin", ":bot/old", ":v2", cwd=work).code == 0
    assert "refs/heads/bot/old" not in refs(upstream)
    assert "refs/tags/v2" not in refs(upstream)


def test_an_upstream_that_has_moved_since_is_not_overwritten(gated, place_for_git, ssh, upstream):
    rules = granted(force=("refs/heads/bot/*",))
    gate = gated(gates.over_ssh(place_for_git, ssh, upstream, rules=rules))
    git(upstream, "branch", "bot/x", "main~2")
    hook = upstream / "hooks/pre-receive"
    work = gate.clone()
    gate.commit(work)
    # While the gate pushes, somebody else moves the branch: just before the upstream takes it.
    hook.write_text("#!/bin/sh\nunset GIT_QUARANTINE_PATH\ngit update-ref refs/heads/bot/x main\n")
    hook.chmod(0o755)
    done = gate.git("push", "--force", "origin", "HEAD:bot/x", cwd=work)
    assert done.code != 0, done.said
    assert refs(upstream)["refs/heads/bot/x"] == git(upstream, "rev-parse", "main")


def test_what_the_upstream_refuses_is_refused_with_its_own_words(gate, upstream):
    hook = upstream / "hooks/update"
    hook.write_text('#!/bin/sh\ncase $1 in *bad) echo "Not on a Friday" >&2; exit 1;; esac\n')
    hook.chmod(0o755)
    work = gate.clone()
    gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/good", "HEAD:refs/heads/bot/bad", cwd=work)
    assert done.code != 0
    assert "Not on a Friday" in done.said, done.said
    assert sorted(refs(upstream)) == ["refs/heads/main", "refs/tags/v1"]
    assert gate.kinds()[-1] == "git.failed"
    gate.assert_nothing_stands()
