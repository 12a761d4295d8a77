"""Whoever dies, and whenever: the agent is dead or never ran, and no container, mount or folder is left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from bot_bottle.backends.docker import door
from bot_bottle.backends.docker.backend import _outlast as outlast
from bot_bottle.backends.docker.container import Names
from bot_bottle.backends.docker.dialing import traits
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from bot_bottle.backends.registry import backend
from bot_bottle.door.model import Listener
from bot_bottle.errors import SandboxError
from bot_bottle.testing.conformance import DEADLINE, SLEEP, shell, until

pytestmark = pytest.mark.docker

KEEPER = Path(__file__).with_name("docker_keeper.py")
MADE = ("confined", "made", "door", "spawned", "released")
"""From here on the containers live by the keeper, and nobody has to clean up after it."""
BEFORE = ("staged", "agent-created", "agent-starting", "helper-created", "helper-starting", "helper-there")
FURTHER = ("further-created", "further-starting")
"""Another helper is being made while the bottle runs."""


def containers(traces: dict) -> list[str]:
    return [each["Names"][0] for each in listed(traces)]


def alive(traces: dict) -> list[str]:
    """Those that the engine has not removed; Podman leaves what has ended, for the cleanup."""
    stays = ("exited", "stopped") if traits(Engine(traces["host"].removeprefix("unix://"))).podman else ()
    return [each["Names"][0] for each in listed(traces) if each["State"] not in stays]


def listed(traces: dict) -> list[dict]:
    names = Names(traces["run"], traces["root"])
    wanted = json.dumps({"label": [f"{key}={value}" for key, value in names.labels.items()]})
    engine = Engine(traces["host"].removeprefix("unix://"))
    return engine.call("GET", "/containers/json", all="1", filters=wanted)


def bury(root: Path, phase: str) -> dict:
    """Starts a keeper and kills it at `phase`; what it had recorded before."""
    (root / "workspace" / "kept").parent.mkdir(exist_ok=True)
    (root / "workspace" / "kept").write_text("mine")
    keeper = subprocess.Popen(
        [sys.executable, str(KEEPER), str(root), phase],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
    )
    with keeper.stdout:
        traces = json.loads(keeper.stdout.readline())
        assert keeper.stdout.readline() == b"here\n"
    keeper.kill()
    keeper.wait()
    return traces


@pytest.mark.parametrize("phase", [*BEFORE, "handed-over", *MADE, *FURTHER])
def test_a_keeper_that_is_killed_leaves_nothing_after_the_cleanup(tmp_path: Path, phase: str) -> None:
    if phase == "staged" and os.geteuid():
        pytest.skip("only root's files have to be shown as somebody else's")
    traces = bury(tmp_path, phase)
    if phase in MADE:
        until(lambda: not alive(traces), "the engine has removed what lived by its keeper")
    backend("docker").reap(traces)
    assert containers(traces) == []
    assert not traces["shown"] or not os.path.exists(traces["shown"])
    assert traces["run"] not in Path("/proc/self/mountinfo").read_text()
    assert (tmp_path / "workspace" / "kept").read_text() == "mine"
    assert (tmp_path / "workspace" / "ran").exists() == (phase == "released")
    assert backend("docker").reap(traces) == [], "and once more finds nothing"


def test_a_cleanup_touches_nothing_of_another_installation(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    ours = backend("docker").traces(make_bottle.plan)
    assert backend("docker").reap({**ours, "root": "0" * 16}) == []
    assert shell(bottle, "exit 3").code == 3


def test_a_container_that_somebody_removes_is_a_bottle_that_has_ended(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    traces = backend("docker").traces(make_bottle.plan)
    until(lambda: len(containers(traces)) == 1, "the helper is gone")
    [name] = containers(traces)
    subprocess.run(["docker", "rm", "-f", name.lstrip("/")], check=True, capture_output=True)
    assert bottle.agent.wait(DEADLINE) == 137
    with pytest.raises(SandboxError):
        shell(bottle, "true")
    bottle.destroy()


def kill_helper(helper: door.Helper) -> None:
    done = subprocess.run(["docker", "kill", helper.name], capture_output=True, check=False, text=True)
    gone = (
        "no such container" in done.stderr.lower()
    )  # Podman waits for its end, and may find it removed then
    assert done.returncode == 0 or gone, done.stderr


@pytest.mark.parametrize("step", ["start", "hand_over"])
def test_a_helper_that_dies_between_two_steps_is_said_and_the_next_try_works(
    make_bottle, monkeypatch, step: str
) -> None:
    whole = getattr(door.Helper, step)

    def die(self, *arguments) -> None:
        if step == "start":
            whole(self, *arguments)
        kill_helper(self)
        if step == "hand_over":
            whole(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(door.Helper, step, die)
        patched.setattr("bot_bottle.backends.docker.backend._PATIENCE", 5.0)
        with pytest.raises(SandboxError):
            make_bottle(*SLEEP)
    assert containers(backend("docker").traces(make_bottle.plan)) == []
    assert shell(make_bottle(*SLEEP), "exit 3").code == 3


def test_a_helper_that_dies_before_it_opens_the_door_is_said_and_another_opens_it(make_bottle) -> None:
    bottle = make_bottle(*SLEEP, release=False)
    kill_helper(bottle._helper)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(SandboxError):
            bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs)
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(10)
        bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs)
        assert ours.recv(10) == b"door"
    bottle.release()
    assert shell(bottle, "exit 3").code == 3


class Late:
    """An engine that a dead keeper has asked for a container: its name is taken, and it is in no list yet."""

    def __init__(self, name: str) -> None:
        self.asked_for, self.made, self.lists = name, set(), 0

    def call(self, method: str, path: str, body: object = None, **options: object) -> object:
        return self.begin(method, path, body, **options).finish()

    def begin(self, method: str, path: str, body: object = None, **options: object) -> "Late.Answer":
        return Late.Answer(self, method, path, str(options.get("name", "")))

    def comes_to_be(self) -> None:
        if self.asked_for:
            self.made.add(self.asked_for)
            self.asked_for = ""

    class Answer(NamedTuple):
        engine: "Late"
        method: str
        path: str
        name: str

        def finish(self) -> object:
            engine = self.engine
            if self.path == "/containers/json":
                engine.lists += 1
                if engine.lists == 3:
                    engine.comes_to_be()
                return [
                    {"Id": name, "Names": [f"/{name}"], "State": "created"} for name in sorted(engine.made)
                ]
            if self.method == "POST":
                if self.name in (engine.asked_for, *engine.made):
                    raise EngineRefusal("take a name", 409, "it is taken")
                engine.made.add(self.name)
            if self.method == "DELETE":
                engine.made.discard(self.path.rpartition("/")[2])
            return {}


@pytest.mark.parametrize("number", range(len(Names("run", "root").every)))
def test_what_a_dead_keeper_had_just_asked_for_is_waited_for_whatever_it_is_called(number: int) -> None:
    names = Names("run", "root")
    engine = Late(names.every[number])
    assert outlast(engine, names) == [names.every[number]]
    engine.comes_to_be()
    assert engine.made == set()
