"""kill -9 of each process at each phase: the agent is dead or has no way out, and cleanup leaves nothing."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.bottles import write_bottle, write_script
from support.leftovers import processes
from support.place import program, python
from support.waiting import wait_for

pytestmark = pytest.mark.namespace

PHASES = ("record", "bundle", "workspace", "sandbox", "door", "provision", "policy", "copy", "release",
          "running")  # fmt: skip
DRIVER = Path(__file__).with_name("driver.py")


def drive(place, agent, phase, whom):
    """Runs the keeper that is killed at `phase`."""
    return place.run([*python(), "-c", DRIVER.read_text(), agent, phase, whom], timeout=60)


def ended(cli):
    """The states of all runs."""
    return {item["state"] for item in json.loads(cli("list", "--all", "--json").stdout)}


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_keeper_takes_everything_with_it(place, cli, repository, phase):
    write_script(place, "work", "echo done > made-by-the-agent; sleep 600")
    done = drive(place, "work", phase, "keeper")
    assert done.code == -signal.SIGKILL, done.stderr
    wait_for(lambda: not processes(str(place.root), place.token), "every process to be gone")
    cleaned = cli("cleanup", "--json")
    assert cleaned.code == 0, cleaned.stderr + "".join(p.read_text() for p in place.home.rglob("crashes/*"))
    place.assert_nothing_left()
    assert ended(cli) <= {"ended"}, cleaned.stdout
    copies = [path for path in place.home.rglob("*") if path.name in ("workspace", "base")]
    assert copies == []
    assert cli("verify").code == 0


@pytest.mark.parametrize("phase", ["door", "provision", "supervise", "release", "running"])
def test_a_killed_keeper_takes_its_agents_supervise_server_with_it(place, cli, repository, phase):
    write_bottle(place, supervise=True, egress={"routes": []})
    write_script(place, "work", "curl -sS -m 20 -X POST $BOT_BOTTLE_SUPERVISE_URL; sleep 600")
    done = drive(place, "work", phase, "keeper")
    assert done.code == -signal.SIGKILL, done.stderr
    wait_for(lambda: not processes(str(place.root), place.token), "every process to be gone")
    assert cli("cleanup", "--json").code == 0
    place.assert_nothing_left()
    assert ended(cli) <= {"ended"}


@pytest.mark.parametrize("phase", PHASES[2:])
def test_a_killed_bundle_never_opens_a_way_out(place, cli, repository, phase):
    write_script(
        place,
        "dial",
        "for i in 1 2 3; do curl -sS -m 5 http://refused.example.org/ -o /dev/null -w '%{http_code} '; done; exit 0",
    )
    done = drive(place, "dial", phase, "bundle")
    assert "killed" in done.stdout
    assert set(done.stdout.split("killed")[1].split("exit")[0].split()) <= {"403", "000"}, done.stdout
    assert done.code != 0 or "exit" in done.stdout


@pytest.mark.parametrize("phase", PHASES[4:])
def test_a_killed_sandbox_is_the_end_of_the_run(place, cli, repository, phase):
    write_script(place, "work", "sleep 600")
    done = drive(place, "work", phase, "sandbox")
    assert "killed" in done.stdout
    assert "Traceback" not in done.stderr or "SandboxError" in done.stderr
    assert ended(cli) == {"ended"}


@pytest.mark.parametrize("phase", ["opening", "passing"])
def test_a_killed_door_helper_is_a_start_that_failed_and_left_nothing(place, cli, repository, phase):
    write_script(place, "work", "echo the agent ran")
    done = drive(place, "work", phase, "helper")
    assert "killed" in done.stdout
    assert "the agent ran" not in done.stdout
    assert "SandboxError" in done.stderr
    place.assert_nothing_left()
    assert ended(cli) == {"ended"}


@pytest.mark.parametrize("phase", ["copying", "remembering"])
def test_a_killed_copy_is_a_start_that_failed_and_left_nothing(place, cli, repository, phase):
    write_script(place, "work", "echo the agent ran")
    done = drive(place, "work", phase, "copier")
    assert "killed" in done.stdout
    assert "the agent ran" not in done.stdout
    assert "HostError: The workspace can't be copied" in done.stderr
    place.assert_nothing_left()
    assert [path for path in place.home.rglob("*") if path.name in ("workspace", "base")] == []
    assert ended(cli) == {"ended"}


def test_bubblewrap_is_not_needed_any_more_once_the_bottle_is_made(place, cli, repository):
    write_script(place, "work", "curl -sS -m 5 http://refused.example.org/ -o /dev/null -w '%{http_code}'")
    done = drive(place, "work", "running", "bubblewrap")
    assert "killed" in done.stdout
    assert "403" in done.stdout
    assert "exit 0" in done.stdout
    assert ended(cli) == {"ended"}


@pytest.mark.parametrize("attempt", range(12))
def test_a_keeper_killed_at_any_moment_leaves_nothing_after_cleanup(place, cli, repository, attempt):
    write_script(place, "work", "echo x > y; sleep 600")
    argv = place.argv([str(program()), "start", "work", "--headless"])
    keeper = subprocess.Popen(
        argv, env=place.environment, cwd=place.workspace, stdout=-3, stderr=-3, stdin=-3
    )
    until = time.monotonic() + random.Random(attempt * 2 + (place.uid > 0)).uniform(0.02, 0.4)
    while time.monotonic() < until:
        os.sched_yield()
    keeper.kill()
    keeper.wait()
    wait_for(lambda: not processes(str(place.root), place.token), "every process to be gone")
    cleaned = cli("cleanup", "--json")
    assert cleaned.code == 0, cleaned.stderr
    place.assert_nothing_left()
    assert ended(cli) <= {"ended"}, cleaned.stdout
    assert cli("verify").code == 0


def test_the_work_of_a_killed_run_is_kept(place, cli, repository):
    write_script(place, "work", "echo precious > work.txt; sync; echo ready; sleep 600")
    run = json.loads(cli("start", "work", "--headless", "--detach", "--json").stdout)["id"]
    wait_for(lambda: "ready" in cli("logs", run).stdout, "the agent's work")
    for pid in processes(str(place.root), place.token):
        with contextlib.suppress(ProcessLookupError):  # many end with the first
            os.kill(pid, signal.SIGKILL)
    assert cli("cleanup").code == 0
    assert "+precious" in cli("diff", run).stdout


def test_the_next_start_cleans_up_by_itself(place, cli, repository):
    write_script(place, "work", "sleep 600")
    write_script(place, "quick", "true")
    assert drive(place, "work", "running", "keeper").code == -signal.SIGKILL
    assert cli("start", "quick", "--headless").code == 0
    assert ended(cli) == {"ended"}


def test_a_detached_agent_outlives_the_command_that_started_it_but_not_its_keeper(place, cli, repository):
    write_script(place, "work", "sleep 600")
    assert cli("start", "work", "--headless", "--detach").code == 0
    alive = processes(str(place.root), place.token)
    assert alive
    assert cli("stop", "work", "--now").code == 0
    place.assert_nothing_left()


def test_ctrl_c_stops_in_order_and_twice_at_once(place, cli, repository):
    script = "trap 'echo asked' INT; trap 'echo told' TERM; echo ready; while :; do sleep 0.1; done"
    write_script(place, "stubborn", script)
    argv = place.argv([str(program()), "start", "stubborn", "--headless"])
    keeper = subprocess.Popen(
        argv,
        env=place.environment,
        cwd=place.workspace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout.readline() == "ready\n"
    keeper.send_signal(signal.SIGINT)
    assert keeper.stdout.readline() == "asked\n"
    keeper.send_signal(signal.SIGINT)
    keeper.communicate(timeout=20)
    assert keeper.returncode not in (0, None)


@pytest.mark.parametrize("mode", ["mount", "copy"])
def test_two_bottles_on_one_repository_and_ten_at_once_do_not_mix(place, cli, repository, mode):
    write_bottle(place)
    names = [f"agent-{letter}" for letter in "abcdefghij"]
    for name in names:
        write_script(place, name, f"echo {name} > {name}.txt; cat {name}.txt; echo $BOT_BOTTLE")
    argv = [place.argv([str(program()), "start", name, "--headless", "--workspace", mode]) for name in names]
    running = [
        subprocess.Popen(
            words,
            env=place.environment,
            cwd=place.workspace,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in argv
    ]
    for name, process in zip(names, running, strict=True):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.split()[0] == name
        assert out.split()[1].startswith(f"{name}-")
    there = {path.name for path in repository.glob("agent-*.txt")}
    assert there == ({f"{name}.txt" for name in names} if mode == "mount" else set())
    assert cli("verify").code == 0


def test_a_start_during_a_stop_is_unharmed(place, cli, repository):
    write_script(place, "slow", "trap 'sleep 1; exit 0' INT; echo ready; while :; do sleep 0.1; done")
    write_script(place, "quick", "echo fine")
    run = json.loads(cli("start", "slow", "--headless", "--detach", "--json").stdout)["id"]
    wait_for(lambda: "ready" in cli("logs", run).stdout, "the agent")
    stopping = subprocess.Popen(
        place.argv([str(program()), "stop", run]), env=place.environment, cwd=place.workspace
    )
    done = cli("start", "quick", "--headless")
    assert (done.code, done.stdout) == (0, "fine\n")
    assert stopping.wait(timeout=30) == 0


BROKEN = """
import os, sys, time
from bot_bottle.bundle import main
from bot_bottle.launch.sidecar import Sidecar

def lacking():
    time.sleep(float(sys.argv[1]))
    import a_part_that_is_missing

main._import_all = lacking
from bot_bottle.cli.main import main
code = main(["start", "work", "--headless"])
sys.stderr.flush()
os._exit(code)
"""


@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_what_a_bundle_lacks_is_said_whenever_it_is_noticed(place, cli, repository, seconds):
    """Before it was given its config, or when the door's listeners have nobody to go to."""
    write_script(place, "work", "true")
    done = place.run([*python(), "-c", BROKEN, seconds], timeout=60)
    assert (done.code, "No module named 'a_part_that_is_missing'" in done.stderr) == (71, True), done
    place.assert_nothing_left()
