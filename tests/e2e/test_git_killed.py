"""The keeper is killed in the middle of a push: the upstream has it whole or not at all, nothing of it stands about, and the next
run pushes on."""

import os
import signal

import pytest
from tests.e2e.test_asking_inside import start
from tests.e2e.test_git_gate import CLONE, run, write_remote
from tests.e2e.test_killed_for_real import keeper_of
from tests.gitgate.test_gate_interrupted import hold, refs

from support.gitservers import Ssh, git, make_upstream
from support.waiting import wait_for

pytestmark = pytest.mark.namespace
PUSH = """
    head -c 20000000 /dev/urandom >large && git checkout -q -b bot/fix && git add . && git commit -q -m Fix
    git push -q origin bot/fix; echo NEVER
"""


@pytest.fixture
def ssh(place):
    server = Ssh(place.root / "ssh")
    yield server
    server.stop()


def standing(place):
    return [one for name in ("pushes", "held") for one in place.home.glob(f".local/**/git/{name}/*")]


@pytest.mark.parametrize("moment", ["receives", "upstream"])
def test_a_keeper_killed_in_a_push_leaves_the_upstream_whole_and_nothing_standing(
    place, cli, repository, ssh, moment
):
    upstream = make_upstream(place.root / "srv/project.git")
    before = refs(upstream)
    here, go = hold(upstream, place.root)
    write_remote(place, ssh, upstream, CLONE.format(url=ssh.url(upstream)) + PUSH, gitleaks=False)
    keeper = keeper_of(start(cli, "git"), place)
    wait_for(here if moment == "upstream" else lambda: standing(place), "the push to be under way")
    os.kill(keeper, signal.SIGKILL)
    held = go()
    assert cli("cleanup").code == 0
    wait_for(lambda: not standing(place), f"the quarantine to go: {standing(place)}", within=20)
    there = refs(upstream)
    if head := there.pop("refs/heads/bot/fix", ""):  # the upstream had all of it before
        assert git(upstream, "cat-file", "-s", f"{head}:large") == "20000000"
        assert git(upstream, "rev-parse", f"{head}^") == before["refs/heads/main"]
    assert there == before
    assert git(upstream, "fsck", "--strict") == ""
    write_remote(
        place,
        ssh,
        upstream,
        CLONE.format(url=ssh.url(upstream))
        + "git checkout -q -b bot/on && git commit -q --allow-empty -m On && git push -q origin bot/on && echo PUSHED",
        gitleaks=False,
    )
    done = run(cli)
    os.close(held)
    assert "PUSHED" in done.stdout, (done.stdout, done.stderr)
    assert set(refs(upstream)) - {"refs/heads/bot/fix"} == {*before, "refs/heads/bot/on"}
