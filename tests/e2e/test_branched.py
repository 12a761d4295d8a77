"""Copies of stopped bottles, and other limits for them, through the installed program."""

import json
import os
import subprocess

import pytest

from support.backends import on_every_backend
from support.bottles import write_bottle, write_script
from support.waiting import wait_for

WORKER = "cat ~/note more.txt; echo home > ~/note; echo more >> more.txt; echo up; sleep 1000"
ASKER = "echo token $(cat ~/.bot-bottle/supervise.token); echo up; sleep 1000"


def begin(cli, name, *more):
    done = cli("start", name, "--headless", "--detach", "--json", *more)
    assert done.code == 0, done.stderr
    run = json.loads(done.stdout)["id"]
    wait_for(lambda: "up" in cli("logs", run).stdout, "the agent to work")
    return run


def keep(cli, name, *more):
    run = begin(cli, name, *more)
    done = cli("stop", "--keep", run)
    assert done.code == 0, done.stderr
    return run


def runs_folder(place):
    return place.home / ".local/state/bot-bottle/runs"


def listed(cli):
    return {one["id"]: one["state"] for one in json.loads(cli("list", "--all", "--json").stdout)}


@on_every_backend
def test_a_branch_and_its_source_are_gone_on_with_each_by_itself(place, cli, repository, nothing_left):
    write_script(place, "worker", WORKER)
    first = keep(cli, "worker", "--workspace", "copy")
    made = cli("branch", first, "other", "--json")
    assert made.code == 0, made.stderr
    assert json.loads(made.stdout)["source"] == first
    assert listed(cli) == {first: "stopped", "other": "stopped"}
    assert cli("diff", "other").stdout == cli("diff", first).stdout
    second = begin(cli, "other")
    assert cli("logs", second).stdout.splitlines()[:2] == ["home", "more"]
    assert cli("stop", second).code == 0
    assert "+more\n+more" in cli("diff", second).stdout
    assert cli("diff", first).stdout.count("+more\n") == 1, "what the branch wrote is the branch's"
    third = begin(cli, first)
    assert cli("logs", third).stdout.splitlines()[:2] == ["home", "more"]
    assert cli("stop", third).code == 0
    assert cli("verify").code == 0
    nothing_left()


@pytest.mark.namespace
def test_a_branch_has_no_token_and_no_proposal_of_its_source(place, cli, repository):
    write_bottle(place, supervise=True)
    write_script(place, "asker", ASKER)
    first = keep(cli, "asker", "--workspace", "copy")
    assert cli("branch", first, "other").code == 0
    assert sorted(os.listdir(runs_folder(place) / "other")) == ["base", "home.tar", "kept.json", "workspace"]
    tokens = [cli("logs", run).stdout.split()[1] for run in (first, begin(cli, "other"))]
    assert all(len(token) > 20 for token in tokens)
    assert tokens[0] != tokens[1]
    for run in listed(cli):
        cli("stop", run)


@pytest.mark.namespace
def test_what_can_not_be_branched_is_refused_by_name_and_nothing_is_made(place, cli, repository):
    write_script(place, "worker", WORKER)
    mounted = keep(cli, "worker", "--workspace", "mount")
    refused = cli("branch", mounted, "other")
    assert refused.code == 64
    assert "works on the workspace itself" in refused.stderr
    running = begin(cli, "worker", "--workspace", "copy")
    refused = cli("branch", running, "other")
    assert f"bot-bottle stop --keep {running}" in refused.stderr
    assert cli("stop", "--keep", running).code == 0
    for name in ("worker", running, "Not A Name", "../up"):
        assert cli("branch", running, name).code == 64
    assert cli("stop", running).code == 0
    assert "was not kept" in cli("branch", running, "other").stderr
    assert set(listed(cli)) == {mounted, running}


@pytest.mark.namespace
def test_a_copy_that_fails_leaves_nothing_and_its_source_as_it_was(place, cli, repository):
    write_script(place, "worker", WORKER)
    first = keep(cli, "worker", "--workspace", "copy")
    base = runs_folder(place) / first / "base"
    base.rename(base.with_name("away"))
    assert cli("branch", first, "other").code != 0
    base.with_name("away").rename(base)
    left = runs_folder(place) / ".new-killed"
    left.mkdir()
    os.chown(left, base.stat().st_uid, -1)
    assert set(listed(cli)) == {first}
    assert not (runs_folder(place) / ".new-other").exists()
    assert cli("branch", first, "other").code == 0
    assert not left.exists(), "what a killed copying left goes with the next"
    assert cli("stop", begin(cli, first)).code == 0


@pytest.mark.namespace
def test_another_size_is_kept_with_the_bottle_and_refused_by_name_where_it_can_not_be_kept(
    place, cli, repository
):
    write_script(place, "worker", WORKER)
    first = keep(cli, "worker", "--workspace", "copy")
    refused = cli("resize", first, "--disk", "4GiB")
    assert refused.code != 0
    assert "resources.disk: the namespace backend can't keep it" in refused.stderr
    for wrong in (["--memory", "much"], ["--cpus", "-1"], ["--cpus", "two"], []):
        assert cli("resize", first, *wrong).code == 64
    asked = json.loads((runs_folder(place) / first / "kept.json").read_text())
    assert asked["resources"] == [], "what was refused is not asked for"
    assert cli("stop", begin(cli, first)).code == 0


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"], indirect=True)
def test_another_size_holds_from_the_next_start_and_in_every_branch(place, cli, repository):
    write_bottle(place, resources={"memory": "512MiB", "pids": 300})
    write_script(place, "worker", WORKER)
    first = keep(cli, "worker", "--workspace", "copy")
    assert cli("resize", first, "--memory", "256MiB").code == 0
    assert json.loads(cli("resize", first, "--cpus", "1", "--json").stdout) == {
        "resources": {"memory": 256 << 20, "cpus": 1.0}
    }
    assert cli("branch", first, "other").code == 0
    for name in (first, "other"):
        run = begin(cli, name)
        found = subprocess.run(
            ["docker", "ps", "--quiet", "--no-trunc", "--filter", f"label=bot-bottle.run={run}"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        # the door's helper may have ended meanwhile: then it is missing in the answer, which is an error
        told = subprocess.run(["docker", "inspect", *found], capture_output=True, text=True, check=False)
        assert 256 << 20 in {one["HostConfig"]["Memory"] for one in json.loads(told.stdout)}
        again = cli("stop", "--keep", run)
        assert again.code == 0, again.stderr
        asked = json.loads((runs_folder(place) / run / "kept.json").read_text())
        assert dict(asked["resources"]) == {"memory": 256 << 20, "cpus": 1.0}
        cli("stop", run)
