"""Whatever is interrupted, wherever: the upstream has a push whole or not at all, and nothing of it stands about."""

import os
import signal
import subprocess
import threading

import pytest

from support import gates
from support.gitservers import IDENTITY, git
from support.waiting import wait_for

pytestmark = pytest.mark.namespace


def refs(upstream):
    listed = git(upstream, "for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split() for line in listed.splitlines())


def hold(upstream, place, hook="pre-receive"):
    """The upstream waits in a hook until `go` is called; `here` is when it waits."""
    reached, release = place / f"{hook}-reached", place / f"{hook}-release"
    os.mkfifo(release)
    path = upstream / "hooks" / hook
    path.write_text(f"#!/bin/sh\ntouch {reached}\nread line <{release}\nexit 0\n")
    path.chmod(0o755)

    def go():
        path.unlink()
        descriptor = os.open(release, os.O_RDWR)
        os.write(descriptor, b"go\n" * 4)
        return descriptor

    return reached.exists, go


def pushing(gate, work, *words):
    return subprocess.Popen(
        ["git", "push", "origin", *words], cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**IDENTITY, "HOME": str(gate.folder)}, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["gate", "courier", "checker"])
def test_a_process_of_the_gate_that_is_killed_while_the_upstream_works_takes_nothing_with_it(
    gate, upstream, place_for_git, name
):
    work = gate.clone()
    head = gate.commit(work)
    here, go = hold(upstream, place_for_git)
    push = pushing(gate, work, "HEAD:refs/heads/bot/x")
    wait_for(here, "the upstream to be reached")
    os.kill(gate.pid(name), signal.SIGKILL)
    said, _ = push.communicate(timeout=60)
    assert push.returncode != 0, said
    held = go()
    wait_for(lambda: "git.died" in gate.kinds(), "it to be noticed")
    gate.assert_nothing_stands()
    again = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert again.code == 0, again.said
    os.close(held)
    assert refs(upstream)["refs/heads/bot/x"] == head
    assert git(upstream, "fsck", "--strict") == ""


def test_an_agent_that_goes_away_in_the_middle_of_its_pack_leaves_nothing(gate, upstream, place_for_git):
    work = gate.clone()
    (work / "large").write_bytes(os.urandom(30 << 20))
    gate.commit(work)
    before = refs(upstream)
    push = pushing(gate, work, "HEAD:refs/heads/bot/x")
    wait_for(gate.standing, "its quarantine")
    os.killpg(push.pid, signal.SIGKILL)
    push.communicate()
    gate.assert_nothing_stands()
    assert refs(upstream) in (before, {**before, "refs/heads/bot/x": git(work, "rev-parse", "HEAD")})


def test_an_upstream_that_goes_down_between_check_and_forward_is_said_and_has_nothing(
    gate, upstream, ssh, place_for_git
):
    work = gate.clone()
    head = gate.commit(work)
    here, go = hold(upstream, place_for_git)
    push = pushing(gate, work, "HEAD:refs/heads/bot/x")
    wait_for(here, "the upstream to be reached")
    ssh.stop()
    said, _ = push.communicate(timeout=120)
    held = go()
    assert push.returncode != 0, said
    gate.assert_nothing_stands()
    assert "bot-bottle: not done: " in said, said
    ssh.start()
    again = gate.git("push", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    os.close(held)
    assert again.code == 0, again.said
    assert refs(upstream)["refs/heads/bot/x"] == head


def test_an_upstream_that_is_down_is_said_and_nothing_old_is_served(gate, upstream, ssh):
    gate.clone()
    ssh.stop()
    done = gate.git("clone", "-q", gate.url(), "second")
    assert done.code != 0
    assert "fatal: remote error: bot-bottle: origin can't be reached now" in done.said
    assert gate.kinds()[-1] == "git.unavailable"
    ssh.start()
    gate.clone("third")


def test_pushes_at_the_same_time_arrive_each_once(gate, upstream):
    works = [gate.clone(f"work-{number}") for number in range(4)]
    heads = [gate.commit(work, f"file-{number}.txt") for number, work in enumerate(works)]
    done = {}

    def push(number):
        done[number] = gate.git("push", "origin", f"HEAD:refs/heads/bot/{number}", cwd=works[number])

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done[number].code for number in range(4)] == [0] * 4, done
    assert [refs(upstream)[f"refs/heads/bot/{number}"] for number in range(4)] == heads


def test_of_two_that_push_the_same_branch_one_wins_and_the_other_is_told(gate, upstream):
    works = [gate.clone(f"work-{number}") for number in range(2)]
    heads = [gate.commit(work, "same.txt", f"{number}\n") for number, work in enumerate(works)]
    done = {}

    def push(number):
        done[number] = gate.git("push", "origin", "HEAD:refs/heads/bot/same", cwd=works[number])

    threads = [threading.Thread(target=push, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number in range(2) if done[number].code == 0]
    assert len(winners) == 1, done
    assert refs(upstream)["refs/heads/bot/same"] == heads[winners[0]]


def test_the_gate_ends_when_nobody_comes_and_comes_back(gate, monkeypatch):
    monkeypatch.setattr("bot_bottle.launch.gitgate.gate.IDLE", 1.0)
    gate.clone()
    wait_for(lambda: not gate.gate.pids, "it to end", within=30)
    assert "git.died" not in gate.kinds()
    gate.clone("second")


def test_a_second_gate_of_the_same_remote_uses_the_mirror_at_the_same_time(
    gated, place_for_git, ssh, upstream, tmp_path
):
    remote = gates.over_ssh(place_for_git, ssh, upstream)
    one, other = gated(remote), gates.Gated(place_for_git / "other", remote)
    try:
        threads = [
            threading.Thread(target=each.clone, args=(f"work-{index}",))
            for index, each in enumerate((one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (one.folder / "work-0/file-1.txt").exists()
        assert (other.folder / "work-1/file-1.txt").exists()
    finally:
        other.close()
