"""Bottles that were stopped and kept: their files wait outside of every engine, and another run goes on with them."""

import json
import os
import shutil

import pytest

from support.backends import on_every_backend
from support.bottles import write_bottle, write_script
from support.waiting import wait_for

WORKER = "cat ~/note more.txt; echo home > ~/note; ln -sf /etc/passwd ~/link; echo more >> more.txt; echo up; sleep 1000"


def begin(cli, name, *more):
    done = cli("start", name, "--headless", "--detach", "--json", "--workspace", "copy", *more)
    assert done.code == 0, done.stderr
    run = json.loads(done.stdout)["id"]
    wait_for(lambda: "up" in cli("logs", run).stdout, "the agent to work")
    return run


def keep(cli, place):
    write_script(place, "worker", WORKER)
    run = begin(cli, "worker")
    done = cli("stop", "--keep", run)
    assert done.code == 0, done.stderr
    return run


def state(cli, run):
    return {one["id"]: one["state"] for one in json.loads(cli("list", "--all", "--json").stdout)}[run]


@on_every_backend
def test_another_run_goes_on_with_all_of_its_files(place, cli, repository, nothing_left):
    first = keep(cli, place)
    nothing_left()
    assert first in cli("list").stdout
    assert state(cli, first) == "stopped"
    assert "+more" in cli("diff", first).stdout
    second = begin(cli, first)
    assert cli("logs", second).stdout.splitlines()[:2] == ["home", "more"]
    assert state(cli, first) == "ended"
    assert cli("start", first, "--headless").code != 0, "it was given away"
    assert cli("stop", second).code == 0
    assert "+more\n+more" in cli("diff", second).stdout
    assert cli("list").stdout == ""
    assert cli("verify").code == 0


@pytest.mark.namespace
def test_attach_goes_on_with_it(place, cli, repository):
    first = keep(cli, place)
    write_script(place, "worker", "cat ~/note; exit 4")
    attached = cli("attach", first)
    assert (attached.code, attached.stdout.split()) == (4, ["home"]), attached.stderr


@pytest.mark.namespace
def test_stop_lets_it_go_with_its_changes_saved_and_forgetting_does_not(place, cli, repository):
    first = keep(cli, place)
    assert f"bot-bottle stop {first}" in cli("cleanup", "--forget").stdout
    assert state(cli, first) == "stopped"
    assert cli("stop", first).code == 0
    assert state(cli, first) == "ended"
    assert "+more" in cli("diff", first).stdout
    folder = place.home / ".local/state/bot-bottle/runs" / first
    assert sorted(os.listdir(folder)) == ["changes.json", "changes.patch", "output.log"]
    assert first in cli("cleanup", "--forget").stdout
    assert not folder.exists()


@pytest.mark.namespace
def test_one_that_can_not_be_started_again_is_as_it_was(place, cli, repository):
    first = keep(cli, place)
    folder = place.home / ".local/state/bot-bottle/runs" / first
    before = sorted(os.listdir(folder))
    archive = (folder / "home.tar").read_bytes()
    (folder / "home.tar").write_bytes(b"no archive" * 1000)
    failed = cli("start", first, "--headless")
    assert failed.code != 0
    assert sorted(os.listdir(folder)) == before
    assert state(cli, first) == "stopped"
    (folder / "home.tar").write_bytes(archive)
    assert cli("stop", begin(cli, first)).code == 0


@on_every_backend
def test_its_home_is_not_lost_by_a_start_that_fails_after_it_was_unpacked(place, cli, repository):
    write_bottle(place, git={"user": {"name": "Bot", "email": "bot@example.org"}})
    write_script(place, "worker", f"rm ~/.gitconfig; mkdir ~/.gitconfig; {WORKER}")
    first = begin(cli, "worker")
    assert cli("stop", "--keep", first).code == 0
    folder = place.home / ".local/state/bot-bottle/runs" / first
    archive = (folder / "home.tar").read_bytes()
    failed = cli("start", first, "--headless")
    assert failed.code != 0
    assert ".gitconfig" in failed.stderr
    assert (folder / "home.tar").read_bytes() == archive
    write_bottle(place)
    write_script(place, "worker", WORKER)
    second = begin(cli, first)
    assert cli("logs", second).stdout.splitlines()[0] == "home"
    assert not (place.home / ".local/state/bot-bottle/runs" / second / "home.tar").exists()
    assert cli("stop", second).code == 0


@pytest.mark.namespace
def test_it_is_kept_without_the_runtime_folder_as_after_a_reboot(place, cli, repository):
    first = keep(cli, place)
    shutil.rmtree(place.home / ".local/state/bot-bottle/run")
    assert cli("cleanup").code == 0
    assert cli("stop", begin(cli, first)).code == 0


@pytest.mark.namespace
def test_an_agent_of_that_name_comes_first_and_another_way_to_work_is_refused(place, cli, repository):
    first = keep(cli, place)
    refused = cli("start", first, "--headless", "--workspace", "mount")
    assert refused.code != 0
    assert "copy" in refused.stderr
    write_script(place, first, "echo the agent")
    assert cli("start", first, "--headless").stdout == "the agent\n"
    assert state(cli, first) == "stopped"
