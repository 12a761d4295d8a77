"""A bottle with `engine: pipelock`: started with it, closed without it, and gone with everything of it."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.bottles import write_bottle, write_script
from support.leftovers import processes
from support.pipelock import KINDS, STAND_IN, provide, skip_unless_there
from support.place import program
from support.waiting import wait_for

pytestmark = pytest.mark.namespace

ROUTES = [{"host": "one.example.org", "protocol": "http"}]


@pytest.fixture(params=KINDS)
def pipelock(request, place):
    """A bottle whose engine it is."""
    skip_unless_there(request.param)
    write_bottle(place, egress={"engine": "pipelock", "routes": ROUTES})
    return provide(request.param, place.root) / "pipelock"


def running(place):
    """The process ids of the place's pipelocks."""
    found = []
    for pid in processes(str(place.root), place.token):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"--config" in words and b"run" in words:
            found.append(pid)
    return found


def detached(place, cli, name):
    """Starts the agent and gives the run's id; the agent goes on when `go` says so."""
    return json.loads(cli("start", name, "--headless", "--detach", "--json", "--workspace", "mount").stdout)[
        "id"
    ]


def events(cli, run):
    return [json.loads(line) for line in cli("events", run, "--json").stdout.splitlines()]


def test_the_record_says_with_which_pipelock_and_config_it_ran_and_none_is_left(
    place, cli, repository, pipelock
):
    write_script(place, "work", "true")
    done = cli("start", "work", "--headless")
    assert done.code == 0, done.stderr
    run = json.loads(cli("list", "--all", "--json").stdout)[0]["id"]
    [started] = [event for event in events(cli, run) if event["kind"] == "run.started"]
    assert "pipelock" in started["data"]["pipelock"]["version"]
    assert len(started["data"]["pipelock"]["config"]) == 64
    assert running(place) == []


def test_a_pipelock_that_dies_is_started_again_three_times_and_then_the_door_stays_shut(
    place, cli, repository, pipelock
):
    place.run(["mkfifo", "pipe"])
    write_script(place, "wait", "read go < pipe; curl -sS -m 9 http://one.example.org/; true")
    run = detached(place, cli, "wait")
    for times in (1, 2, 3):
        [pid] = running(place)
        os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda times=times: [e["data"] for e in events(cli, run) if e["kind"] == "door.opened"][
                times - 1 :
            ],
            "the door to be open again",
        )
    [pid] = running(place)
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: [e for e in events(cli, run) if e["kind"] == "door.closed"][3:],
        "the door to be closed for good",
    )
    assert running(place) == []
    place.run(["sh", "-c", "echo go > pipe"])
    wait_for(lambda: run not in cli("list").stdout, "the agent to end")
    assert not [e for e in events(cli, run) if e["kind"] == "egress.closed"]


def allowed(place):
    """What the running pipelock's config lists."""
    [config] = place.home.rglob("pipelock/pipelock.yaml")
    return json.loads(config.read_text())["api_allowlist"]


def test_a_change_of_the_bottles_file_reaches_pipelock_and_the_bundle(place, cli, repository, pipelock):
    write_script(place, "work", "sleep 600")
    run = detached(place, cli, "work")
    assert allowed(place) == ["one.example.org"]
    write_bottle(place, egress={"engine": "pipelock", "routes": [*ROUTES, {"host": "*.example.com"}]})
    done = json.loads(cli("reload", run, "--json").stdout)
    assert done["applied"], done
    assert allowed(place) == ["*.example.com", "one.example.org"]
    write_bottle(place, egress={"routes": ROUTES})
    assert cli("reload", run, "--json").code != 0  # the engine itself can't be changed
    assert allowed(place) == ["*.example.com", "one.example.org"]
    assert cli("stop", run, "--now").code == 0


def test_a_change_that_pipelock_does_not_take_is_in_force_nowhere(place, cli, repository):
    write_bottle(place, egress={"engine": "pipelock", "routes": ROUTES})
    write_script(place, "work", "sleep 600")
    target = provide("stand-in", place.root) / "pipelock"
    stubborn = "                config, digest = load(self.path)\n"
    text = STAND_IN.read_text()
    assert stubborn in text
    refuse = (
        '                if "two.example.org" in str(config):\n                    raise ValueError("no")\n'
    )
    target.write_text(text.replace(stubborn, stubborn + refuse))
    run = detached(place, cli, "work")
    write_bottle(place, egress={"engine": "pipelock", "routes": [*ROUTES, {"host": "two.example.org"}]})
    done = cli("reload", run, "--json")
    assert done.code != 0
    assert "refused a new config" in done.stdout + done.stderr
    assert allowed(place) == ["one.example.org"]
    assert not [event for event in events(cli, run) if event["kind"] == "policy.changed"]
    assert cli("stop", run, "--now").code == 0


def test_a_killed_keeper_leaves_no_pipelock(place, cli, repository, pipelock):
    write_script(place, "work", "echo ready; sleep 600")
    argv = place.argv([str(program()), "start", "work", "--headless"])
    keeper = subprocess.Popen(
        argv, env=place.environment, cwd=place.workspace, stdout=subprocess.PIPE, stderr=-3, stdin=-3
    )
    assert keeper.stdout.readline() == b"ready\n"
    keeper.stdout.close()
    assert len(running(place)) == 1
    keeper.kill()
    keeper.wait()
    wait_for(lambda: not running(place), "the end of pipelock")
    assert cli("cleanup").code == 0


def test_without_pipelock_there_is_no_run_and_the_person_is_told_how_to_get_it(place, cli, repository):
    write_bottle(place, egress={"engine": "pipelock", "routes": ROUTES})
    write_script(place, "work", "echo the agent ran")
    path = os.pathsep.join(str(folder) for folder in ("/usr/bin", "/bin"))
    done = cli("start", "work", "--headless", env={"PATH": path})
    assert done.code != 0
    assert "the agent ran" not in done.stdout
    assert "Pipelock was not found" in done.stderr
    assert "go install github.com/luckyPipewrench/pipelock" in done.stderr
    said = cli("doctor", env={"PATH": path}).stdout
    assert "go install github.com/luckyPipewrench/pipelock" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("pipelock 2.3.0 (stand-in)", "pipelock 2.2.9"), "too old"),
        (
            ('listed = self.config["api_allowlist"]', 'listed = ["bot-bottle-probe.invalid"]'),
            "does not refuse",
        ),
    ],
    ids=["old", "open"],
)
def test_a_pipelock_that_cannot_be_relied_on_is_a_start_that_failed_and_left_nothing(
    place, cli, repository, change, said
):
    write_bottle(place, egress={"engine": "pipelock", "routes": ROUTES})
    write_script(place, "work", "echo the agent ran")
    target = provide("stand-in", place.root) / "pipelock"
    text = STAND_IN.read_text()
    assert change[0] in text
    target.write_text(text.replace(*change))
    done = cli("start", "work", "--headless", timeout=90)
    assert done.code != 0
    assert "the agent ran" not in done.stdout
    assert said in done.stderr
    place.assert_nothing_left()
