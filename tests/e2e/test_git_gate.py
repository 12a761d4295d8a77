"""An agent's git in a real bottle: through the gate to a real server outside, and what of its work arrives there."""

import json

import pytest

from support import gitleaks as real
from support.backends import on_every_backend
from support.bottles import write_bottle, write_script
from support.gitservers import Ssh, git, make_upstream


@pytest.fixture
def gitleaks(place):
    """The real program, on the place's PATH."""
    found = real.program()
    if not found:
        pytest.skip(real.missing())
    place.programs.mkdir(exist_ok=True)
    (place.programs / "gitleaks").symlink_to(found)
    return found


@pytest.fixture
def ssh(place):
    server = Ssh(place.root / "ssh")
    yield server
    server.stop()


@pytest.fixture
def upstream(place):
    return make_upstream(place.root / "srv/project.git")


def write_remote(place, ssh, upstream, script, bottle=None, **keys):
    key = ssh.key_for(place.uid, place.home / "bot-key")
    remote = {"name": "origin", "url": ssh.url(upstream), "key": key, "known_host": ssh.public(), **keys}
    user = {"name": "Bot", "email": "bot@example.org"}
    write_bottle(place, git={"user": user, "remotes": [remote]}, **(bottle or {}))
    write_script(place, "git", script)


def run(cli, timeout=120):
    return cli("start", "git", "--headless", timeout=timeout)


def events(cli, *kinds):
    lines = cli("events", "--all", "--json").stdout.splitlines()
    return [event["data"] for event in map(json.loads, lines) if event["kind"] in kinds]


CLONE = "cd /tmp && git clone -q {url} work && cd work && "


@on_every_backend
def test_what_the_agent_pushes_arrives_and_the_key_stays_outside(
    place, cli, repository, ssh, upstream, gitleaks
):
    url = ssh.url(upstream)
    script = (
        CLONE.format(url=url)
        + """
        git log --format=%s | head -1
        git checkout -q -b bot/fix && echo fixed > fix.txt && git add . && git commit -q -m Fix
        git push -q origin bot/fix && echo PUSHED
        git fetch -q && git rev-parse origin/bot/fix
        find / -name bot-key 2>/dev/null; env | grep -i ssh; true
    """
    )
    write_remote(place, ssh, upstream, script)
    done = run(cli)
    assert done.code == 0, (done.stdout, done.stderr)
    lines = done.stdout.split()
    assert lines[:3] == ["Commit", "3", "PUSHED"], (
        done.stdout,
        done.stderr,
        events(cli, "git.died", "git.failed", "git.refused"),
    )
    assert lines[3:] == [git(upstream, "rev-parse", "bot/fix")]
    assert git(upstream, "show", "bot/fix:fix.txt") == "fixed"
    assert [one["refs"] for one in events(cli, "git.pushed")]


@on_every_backend
def test_what_it_commits_is_signed_with_a_key_that_it_never_sees(
    place, cli, repository, ssh, upstream, gitleaks
):
    write_remote(
        place, ssh, upstream, CLONE.format(url=ssh.url(upstream)) + """
        git commit -q --allow-empty -m Signed && git push -q origin HEAD:refs/heads/bot/signed
        git cat-file commit HEAD | grep -c 'BEGIN SSH SIGNATURE'; find / -name signing-key 2>/dev/null; true
    """)  # fmt: skip
    file = place.home / ".bot-bottle/bottles/default.md"
    key = ssh.key_for(place.uid, place.home / "signing-key", "other")
    signing = json.dumps({"key": key, "public": ssh.public("other")})
    file.write_text(file.read_text().replace('"remotes":', f'"signing": {signing}, "remotes":', 1))
    done = run(cli)
    assert (done.code, done.stdout) == (0, "1\n"), (done.stdout, done.stderr)
    assert len(events(cli, "git.signed")) == 1
    (place.root / "signers").write_text(f'* namespaces="git" {ssh.public("other")}\n')
    git(upstream, "-c", f"gpg.ssh.allowedSignersFile={place.root}/signers", "verify-commit", "bot/signed")
    assert "signs commits and tags with" in cli("plan", "git", "--headless").stdout


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"], indirect=True)
def test_the_gate_stands_beside_the_keeper_when_the_bundle_is_a_container(
    place, cli, repository, ssh, upstream, gitleaks
):
    write_remote(place, ssh, upstream, "git log --format=%s | head -1; git checkout -q -b bot/fix; git push -q origin bot/fix",
                 bottle={"bundle": "container", "workspace": "clone"})  # fmt: skip
    done = run(cli)
    assert (done.code, done.stdout) == (0, "Commit 3\n"), (done.stdout, done.stderr)
    assert git(upstream, "rev-parse", "bot/fix") == git(upstream, "rev-parse", "main")
