"""Whoever takes part in a bottle in a real microVM is killed: nothing goes on without its keeper, and nothing is left."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.microvms import DEADLINE, Place, children, is_gone, until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]
Running = tuple[subprocess.Popen[bytes], str, int]


@pytest.fixture
def running(place: Place) -> Iterator[Running]:
    """A bottle whose agent sleeps: its keeper, its machine's name and process."""
    place.agent("sh", "-c", "touch ready; exec sleep 1000")
    with place.running() as keeper:
        (name,) = place.machines.names()
        yield keeper, name, place.process(name)


def test_a_keeper_that_is_killed_takes_its_machine_along_and_cleanup_removes_the_rest(
    place: Place, running: Running
) -> None:
    keeper, name, pid = running
    keeper.kill()
    keeper.wait()
    until(lambda: is_gone(pid), "the machine's process ends with the keeper")
    assert place.machines.names() == [name]
    said = place.run("cleanup")
    assert name in said.stdout + said.stderr
    assert place.machines.names() == []


def test_a_machine_that_is_killed_ends_the_run_and_leaves_nothing(place: Place, running: Running) -> None:
    keeper, _, pid = running
    os.kill(pid, signal.SIGKILL)
    assert keeper.wait(DEADLINE) != 0
    assert place.machines.names() == []


def test_a_relay_that_is_killed_outside_ends_the_run_and_its_machine(place: Place, running: Running) -> None:
    keeper, _, pid = running
    (relay,) = children(keeper.pid, b"relay\0outside")
    os.kill(relay, signal.SIGKILL)
    assert keeper.wait(DEADLINE) != 0
    assert is_gone(pid)
    assert place.machines.names() == []


def test_a_keeper_that_is_killed_while_its_machine_starts_leaves_no_machine_that_runs(place: Place) -> None:
    place.agent("sleep", "1000")
    with place.keeper() as keeper:
        until(
            lambda: starts(keeper) or keeper.poll() is not None,
            "its machine starts",
        )
        keeper.kill()
        keeper.wait()
        until(lambda: not place.processes(), "what started the machine ends without a keeper")
        (name,) = place.machines.names()
        said = place.run("cleanup")
        assert name in said.stdout + said.stderr
        assert place.machines.names() == []


def starts(keeper: subprocess.Popen[bytes]) -> bool:
    """Whether the keeper's smolvm starts a machine just now."""
    for pid in children(keeper.pid, b""):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"\0machine\0start\0" in file.read():
                    return True
        except OSError:
            continue
    return False
