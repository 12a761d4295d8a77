"""The gate before a real Gitea, by each way in, as its users write it."""

import os
import shutil
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest

from bot_bottle.host.secrets import Held, Vault
from bot_bottle.launch.outward import Outside
from bot_bottle.plan.model import Credential, GitRemote
from bot_bottle.secret import Secret
from support import gates, gitea

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(bool(gitea.missing()), reason=gitea.missing()),
    pytest.mark.xdist_group("gitea"),
]


@pytest.fixture(scope="module")
def forge():
    folder = Path(tempfile.mkdtemp(prefix="bb-gitea-", dir="/tmp"))
    folder.chmod(0o755)
    server = gitea.Gitea(folder / "gitea")
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def by_https(forge, place, authorization, url, name):
    """With `authorization` as the whole header."""
    kind, _, secret = authorization.partition(" ")
    item = Credential("forge", "env:FORGE", "header", "Authorization", f"{kind} ")
    vault = Vault({"forge": Held(Secret(authorization), Secret(secret))})
    remote = GitRemote(
        "origin", url, str(place / f"mirrors/{name}.git"), credential=item, rules=gates.ONLY_REFS
    )
    return remote, vault


def basic(user, password):
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def work(gate, forge, repository, branch="bot/fix"):
    """Clones, pushes, and looks at what the forge says it has."""
    copy = gate.clone()
    head = gate.commit(copy)
    done = gate.git("push", "origin", f"HEAD:refs/heads/{branch}", cwd=copy)
    assert done.code == 0, (done.said, gate.events)
    assert forge.heads(repository)[branch] == head
    return copy


@pytest.mark.parametrize("suffix", [".git", ""])
@pytest.mark.parametrize("login", ["bearer", "token", "login", "password"])
def test_https_with_each_kind_of_login_that_it_knows(gated, place_for_git, forge, login, suffix):
    repository = forge.repository(f"https-{login}-{suffix.strip('.') or 'bare'}")
    said = {
        "bearer": f"Bearer {forge.token}",
        "token": f"token {forge.token}",
        "login": basic("x-access-token", forge.token),
        "password": basic(gitea.USER, gitea.PASSWORD),
    }[login]
    url = f"https://localhost:{forge.port}/{repository}{suffix}"
    remote, vault = by_https(forge, place_for_git, said, url, "https")
    gate = gated(remote, vault=vault, outside=Outside(forge.authority.pem))
    copy = work(gate, forge, repository)
    seen = "".join(one.read_text(errors="replace") for one in copy.rglob("*") if one.is_file())
    assert forge.token not in seen
    assert gitea.PASSWORD not in seen


def test_a_login_that_it_does_not_take_is_said_in_words(gated, place_for_git, forge):
    repository = forge.repository("locked")
    forge.ask("PATCH", f"repos/{repository}", private=True)
    url = f"https://localhost:{forge.port}/{repository}.git"
    remote, vault = by_https(forge, place_for_git, "token 0123456789abcdef", url, "locked")
    gate = gated(remote, vault=vault, outside=Outside(forge.authority.pem))
    done = gate.git("clone", "-q", gate.url(), "work")
    assert done.code != 0
    assert "did not take the bottle's credential" in done.said, (done.said, gate.events)


@pytest.mark.parametrize(
    "form", ["ssh://git@127.0.0.1:{port}/{name}.git", "ssh://git@127.0.0.1:{port}/{name}"]
)
def test_ssh_with_its_own_server_and_its_host_key(gated, place_for_git, forge, form):
    repository = forge.repository(f"ssh-{'bare' if form.endswith('name}') else 'git'}")
    key = place_for_git / "key"
    shutil.copy(forge.key, key)
    key.chmod(0o600)
    os.chown(key, os.geteuid(), os.getegid())
    url = form.format(port=forge.ssh_port, name=repository)
    mirror = str(place_for_git / "mirrors/ssh.git")
    remote = GitRemote("origin", url, mirror, key=str(key), known_host=forge.host_key, rules=gates.ONLY_REFS)
    work(gated(remote), forge, repository)


def test_a_branch_that_it_protects_is_refused_by_it_and_said(gated, place_for_git, forge):
    repository = forge.repository("protected")
    forge.ask("POST", f"repos/{repository}/branch_protections", rule_name="bot/kept", enable_push=False)
    url = f"https://localhost:{forge.port}/{repository}.git"
    remote, vault = by_https(forge, place_for_git, f"token {forge.token}", url, "protected")
    gate = gated(remote, vault=vault, outside=Outside(forge.authority.pem))
    copy = gate.clone()
    gate.commit(copy)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/kept", "HEAD:refs/heads/bot/other", cwd=copy)
    assert done.code != 0
    assert "protected branch" in done.said, (done.said, gate.events)
    assert set(forge.heads(repository)) == {"main"}, "all of a push or nothing of it"


def test_several_branches_and_a_tag_arrive_together(gated, place_for_git, forge):
    repository = forge.repository("several")
    url = f"https://localhost:{forge.port}/{repository}.git"
    remote, vault = by_https(forge, place_for_git, f"token {forge.token}", url, "several")
    remote = remote._replace(rules=remote.rules._replace(tags=("v*",)))
    gate = gated(remote, vault=vault, outside=Outside(forge.authority.pem))
    copy = gate.clone()
    gate.commit(copy)
    gate.git("tag", "v1", cwd=copy)
    done = gate.git("push", "origin", "HEAD:refs/heads/bot/a", "HEAD~:refs/heads/bot/b", "v1", cwd=copy)
    assert done.code == 0, (done.said, gate.events)
    assert set(forge.heads(repository)) == {"main", "bot/a", "bot/b"}
    assert [one["name"] for one in forge.ask("GET", f"repos/{repository}/tags")] == ["v1"]
