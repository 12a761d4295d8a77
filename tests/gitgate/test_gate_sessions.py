"""How often an upstream is entered, and what stays as it was when it is not asked."""

import pytest

from support import gates
from support.gitservers import git

pytestmark = pytest.mark.namespace


@pytest.fixture
def counted(place_for_git, ssh, upstream):
    """A remote whose server writes down each service that is asked for."""
    asked = place_for_git / "asked"
    asked.touch()
    asked.chmod(0o666)
    with (ssh.folder / "config").open("a") as config:
        config.write(f'ForceCommand echo "$SSH_ORIGINAL_COMMAND" >> {asked}; eval "$SSH_ORIGINAL_COMMAND"\n')
    ssh.stop()
    ssh.start()
    return gates.over_ssh(place_for_git, ssh, upstream), asked


def test_a_push_enters_the_upstream_once_to_look_and_once_to_push(gated, counted):
    remote, asked = counted
    gate = gated(remote)
    work = gate.clone()
    gate.commit(work)
    asked.write_text("")
    assert gate.git("push", "-q", "origin", "HEAD:refs/heads/bot/x", cwd=work).code == 0
    assert [line.split()[0] for line in asked.read_text().splitlines()] == [
        "git-upload-pack",
        "git-receive-pack",
    ]


def test_a_mirror_that_a_push_made_has_the_upstreams_head_for_who_clones(gate, upstream, place_for_git):
    git(upstream, "branch", "-m", "main", "trunk")
    git(upstream, "symbolic-ref", "HEAD", "refs/heads/trunk")
    git(place_for_git, "clone", "-q", str(upstream), "own")
    work = place_for_git / "own"
    gate.commit(work)
    assert gate.git("push", "-q", gate.url(), "HEAD:refs/heads/bot/x", cwd=work).code == 0
    copy = gate.clone("copy")
    assert git(copy, "rev-parse", "--abbrev-ref", "HEAD") == "trunk"
