"""The machine goes down with bottles on it and comes up again: after `cleanup` nothing is left, and what was kept goes on."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bottles import write_script
from support.own_engine import OwnEngine, with_base
from support.place import Place, make_place, program
from support.waiting import wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("own engine"),
]


@pytest.fixture
def engine() -> Iterator[OwnEngine]:
    with with_base() as made:
        yield made


@pytest.fixture
def place(engine: OwnEngine) -> Iterator[Place]:
    made = make_place(0, "docker")
    (made.workspace / "mine").write_text("the person's\n")
    try:
        yield made
        made.assert_nothing_left()
    finally:
        made.remove()


@pytest.fixture
def cli(place: Place, engine: OwnEngine):
    def run(*words: str):
        return place.run([str(program()), *words], env={"DOCKER_HOST": engine.host}, timeout=120)

    return run


def begin(cli, name: str) -> str:
    done = cli("start", name, "--headless", "--detach", "--json", "--workspace", "copy")
    assert done.code == 0, done.stderr
    run = str(json.loads(done.stdout)["id"])
    wait_for(lambda: "up" in cli("logs", run).stdout, "the agent to work")
    return run


def go_down(place: Place, engine: OwnEngine) -> None:
    """Every process is gone at one moment: keepers, the engine, what is in containers. Memory's file systems with them."""
    running = engine.connect()
    with contextlib.closing(running.client):
        api = running.client.api
        inside = [api.inspect_container(one["Id"])["State"]["Pid"] for one in api.containers()]
    token = f"BOT_BOTTLE_TEST={place.token}".encode()
    for pid in [*processes("environ", token), *processes("cmdline", str(engine.root).encode()), *inside]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for file in (engine.pid_file, engine.root / "run/containerd/containerd.pid"):
        file.unlink(missing_ok=True)
    wait_for(lambda: not processes("cmdline", str(engine.root).encode()), "the engine to be gone")
    wait_for(lambda: not processes("environ", token), "the keepers to be gone")
    shutil.rmtree(place.home / ".local/state/bot-bottle/run")


def processes(what: str, has: bytes) -> list[int]:
    """Those in whose `cmdline` or `environ` that stands."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            if has in Path(f"/proc/{pid}/{what}").read_bytes() and pid != os.getpid():
                found.append(pid)
    return found


def test_after_a_reboot_nothing_is_left_and_what_was_kept_goes_on(
    place: Place, engine: OwnEngine, cli
) -> None:
    write_script(place, "worker", "cat ~/note; echo home > ~/note; echo more >> mine; echo up; sleep 1000")
    kept = begin(cli, "worker")
    assert cli("stop", "--keep", kept).code == 0
    lost = begin(cli, "worker")
    assert engine.containers()
    go_down(place, engine)
    assert not engine.start()
    done = cli("cleanup")
    assert done.code == 0, done.stderr
    assert engine.containers() == []
    states = {one["id"]: one["state"] for one in json.loads(cli("list", "--all", "--json").stdout)}
    assert states == {kept: "stopped", lost: "ended"}
    assert "+more" in cli("diff", lost).stdout
    assert cli("verify").code == 0
    again = begin(cli, kept)
    assert cli("logs", again).stdout.splitlines()[0] == "home"
    assert cli("stop", again).code == 0
    assert engine.containers() == []
