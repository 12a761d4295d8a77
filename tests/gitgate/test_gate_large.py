"""Half a gigabyte, and a long history: they go through the gate both ways, in little memory, and nothing of them stays there."""

import os
import subprocess

import pytest

from support import gates
from support.gitservers import git, make_upstream
from support.watching import Peak

pytestmark = [pytest.mark.namespace, pytest.mark.slow, pytest.mark.timeout(600)]
FILES, SIZE = 6, 84 << 20
"""Bytes that don't compress, so the pack has them all."""
QUICK = (("core.bigFileThreshold", "1m"), ("core.compression", "0"))
"""Of the agent's git and the upstream's: without it they look for likenesses in noise, for more than a minute each."""
MOST = 128 << 10
"""In KiB, of all processes of the gate together; it takes about 60 MiB for whatever is pushed."""


def test_a_pack_of_500_mb_is_pushed_and_cloned_in_little_memory(gate, upstream, place_for_git):
    for name, value in QUICK:
        git(upstream, "config", name, value)
    work = gate.clone()
    for number in range(FILES):
        with (work / f"data-{number}").open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 20))
    for name, value in QUICK:
        gate.git("config", name, value, cwd=work)
    head = gate.commit(work)
    with Peak(gate.processes) as pushing:
        done = gate.git("push", "-q", "origin", "HEAD:refs/heads/bot/large", cwd=work, timeout=500)
    assert done.code == 0, done.said
    assert git(upstream, "rev-parse", "refs/heads/bot/large") == head
    gate.assert_nothing_stands()
    with Peak(gate.processes) as cloning:
        done = gate.git("clone", "-q", "--branch", "bot/large", gate.url(), "again", timeout=500)
    assert done.code == 0, done.said
    for number in range(FILES):
        same = ["cmp", f"work/data-{number}", f"again/data-{number}"]
        subprocess.run(same, cwd=gate.folder, check=True)
    assert max(pushing.kib, cloning.kib) < MOST, (pushing.kib, cloning.kib)


def test_a_history_of_50_000_objects_is_cloned_worked_on_and_fetched(gated, ssh, place_for_git):
    upstream = make_upstream(place_for_git / "srv/long.git", 17_000)
    gate = gated(gates.over_ssh(place_for_git, ssh, upstream))
    work = gate.clone()
    assert int(git(work, "rev-list", "--all", "--objects", "--count")) >= 50_000
    assert git(work, "rev-parse", "main") == git(upstream, "rev-parse", "main")
    head = gate.commit(work)
    done = gate.git("push", "-q", "origin", "HEAD:refs/heads/bot/x", cwd=work)
    assert done.code == 0, done.said
    assert git(upstream, "rev-parse", "refs/heads/bot/x") == head
    other = gate.clone("other")
    assert gate.git("fetch", "-q", "origin", cwd=other).code == 0
    assert git(other, "rev-parse", "origin/bot/x") == head
    gate.assert_nothing_stands()
