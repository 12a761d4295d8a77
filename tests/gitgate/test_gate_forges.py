"""The gate before what behaves as GitHub and GitLab do by their documentation; a real forge is in `test_gate_gitea.py`."""

from base64 import b64encode

import pytest

from bot_bottle.host.secrets import Held, Vault
from bot_bottle.launch.outward import Outside
from bot_bottle.plan.model import Credential, GitRemote
from bot_bottle.secret import Secret
from support import gates
from support.authorities import Authority
from support.forges import NAME, Forge
from support.gitservers import git

pytestmark = pytest.mark.namespace
TOKEN = "made-up-token-of-a-forge-0123456789"
GITHUB = {"realm": "GitHub"}
GITLAB = {"realm": "GitLab", "logins": ("oauth2", "private-token", "deployer"), "redirects_to_git": True}
LOGINS = {
    "github, an app's or user's token": (GITHUB, "x-access-token"),
    "github, a user's name": (GITHUB, "somebody"),
    "gitlab, a personal or project token": (GITLAB, "oauth2"),
    "gitlab, any name with a personal token": (GITLAB, "private-token"),
    "gitlab, a deploy token": (GITLAB, "deployer"),
}


@pytest.fixture
def forge(place_for_git, upstream):
    made = []

    def make(**shape):
        authority = made[0][1] if made else Authority("forge")
        forge = Forge(
            place_for_git / f"forge-{len(made)}", place_for_git / "srv", authority, token=TOKEN, **shape
        )
        made.append((forge, authority))
        return forge, authority

    yield make
    for one, _ in made:
        one.close()


def gate_to(gated, place, forge, authority, *, user="x-access-token", token=TOKEN, path=f"{NAME}.git"):
    header = "Basic " + b64encode(f"{user}:{token}".encode()).decode()
    item = Credential("forge", "env:FORGE", "header", "Authorization", "Basic ")
    vault = Vault({"forge": Held(Secret(header), Secret(token))})
    remote = GitRemote(
        "origin", forge.host + path, str(place / "mirrors/forge.git"), rules=gates.ONLY_REFS,
        credential=item if token else None,
    )  # fmt: skip
    return gated(remote, vault=vault, outside=Outside(authority.pem))


def hook(upstream, name, script):
    path = upstream / "hooks" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("login", LOGINS)
def test_each_login_that_is_documented_clones_and_pushes(gated, place_for_git, upstream, forge, login):
    shape, user = LOGINS[login]
    served, authority = forge(**shape)
    gate = gate_to(gated, place_for_git, served, authority, user=user)
    work = gate.clone()
    head = gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code == 0, done.said
    assert git(upstream, "rev-parse", "bot/x") == head
    assert TOKEN not in done.said + str(gate.events)


def test_github_knows_a_repository_without_git_at_its_end(gated, place_for_git, forge):
    served, authority = forge(**GITHUB)
    gate = gate_to(gated, place_for_git, served, authority, path=NAME)
    gate.clone()


def test_gitlabs_nested_groups_are_followed_to_their_repository(gated, place_for_git, forge):
    nested = "/group/within/deeper/project"
    served, authority = forge(**GITLAB, name=nested)
    gate = gate_to(gated, place_for_git, served, authority, user="oauth2", path=f"{nested}.git")
    gate.clone()


def test_gitlab_sends_elsewhere_without_git_at_the_end_and_that_is_said(gated, place_for_git, forge):
    served, authority = forge(**GITLAB)
    gate = gate_to(gated, place_for_git, served, authority, user="oauth2", path=NAME)
    done = gate.git("clone", "-q", gate.url(), "work")
    assert done.code != 0
    assert "redirects elsewhere" in done.said


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"token": "a-token-that-was-withdrawn-01234"}, "did not take the bottle's credential"),
        ({"token": ""}, "credential"),
        ({"path": "/group/private.git"}, "there is no such repository"),
    ],
    ids=["a token that is good no more", "no token", "a private repository"],
)
def test_who_is_not_let_in_is_told_why(gated, place_for_git, forge, keys, why):
    served, authority = forge(**GITHUB)
    gate = gate_to(gated, place_for_git, served, authority, **keys)
    done = gate.git("clone", "-q", gate.url(), "work")
    assert done.code != 0
    assert why in done.said, done.said


def test_a_renamed_repository_does_not_take_the_credential_to_another_host(gated, place_for_git, forge):
    other, authority = forge(**GITHUB)
    served, _ = forge(**GITHUB, elsewhere=other.host)
    gate = gate_to(gated, place_for_git, served, authority, path="/group/renamed.git")
    done = gate.git("clone", "-q", gate.url(), "work")
    assert done.code != 0
    assert "redirects elsewhere" in done.said, done.said
    assert served.asked
    assert other.asked == []


REFUSALS = {
    "github": (
        "echo 'error: GH006: Protected branch update failed for refs/heads/bot/x.' >&2\nexit 1",
        "GH006: Protected branch update failed",
    ),
    "gitlab": (
        "echo 'GitLab: You are not allowed to push code to protected branches on this project.' >&2\nexit 1",
        "You are not allowed to push code to protected branches",
    ),
    "gitlab, a push rule": (
        "echo \"GitLab: Commit message does not follow the pattern 'ISSUE-.*'\" >&2\nexit 1",
        "Commit message does not follow the pattern",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_a_forge_refuses_is_told_in_its_words_and_nothing_is_taken(
    gated, place_for_git, upstream, forge, what
):
    script, words = REFUSALS[what]
    hook(upstream, "pre-receive", script)
    served, authority = forge(**GITHUB)
    gate = gate_to(gated, place_for_git, served, authority)
    work = gate.clone()
    gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code != 0
    assert words in done.said, done.said
    assert git(upstream, "for-each-ref", "refs/heads/bot") == ""
    gate.assert_nothing_stands()


def test_the_link_to_a_merge_request_reaches_the_agent_without_what_steers_a_terminal(
    gated, place_for_git, upstream, forge
):
    link = "https://gitlab.example.org/group/project/-/merge_requests/new?merge_request%5Bsource_branch%5D=bot%2Fx"
    hook(
        upstream,
        "post-receive",
        f"printf '\\nTo create a merge request for bot/x, visit:\\n  {link.replace('%', '%%')}\\033[2J\\n' >&2",
    )
    served, authority = forge(**GITLAB)
    gate = gate_to(gated, place_for_git, served, authority, user="oauth2")
    work = gate.clone()
    gate.commit(work)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code == 0, done.said
    assert link in done.said, done.said
    assert "\033[2J" not in done.said
