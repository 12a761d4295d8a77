"""A bundle that is a container of its own, and an engine that ends under it; the deputy killed; what is found again afterwards."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.docker.dialing import engine_at
from bot_bottle.backends.docker.endpoint import Endpoint
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.backends.registry import backend
from bot_bottle.door.model import Hatch, Listener
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import BotBottleError, SandboxError
from bot_bottle.plan.model import ImageSpec, RunPlan
from support.backends import make_plan
from support.engine import BASE
from support.own_engine import OwnEngine, with_base
from support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def running() -> Iterator[OwnEngine]:
    with with_base("1500m") as made:
        yield made


@pytest.fixture
def engine(running: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("DOCKER_HOST", running.host)
    return engine_at(Endpoint(running.host, "the test"), os.environ)


class Far:
    """A bottle on the test's engine, its bundle's container and what is left of the two."""

    def __init__(self, root: Path, owned: ExitStack, engine: Engine) -> None:
        (root / "workspace").mkdir(exist_ok=True)
        (root / "run").mkdir(exist_ok=True)
        self.engine = engine
        spec = ImageSpec(reference=BASE)
        self.plan: RunPlan = make_plan(root, backend="docker", image=spec, bundle="container")
        self.backend = backend("docker")
        place = self.backend.place(self.plan)
        assert place is not None
        self.place = place
        owned.callback(place.close)
        with open(os.devnull, "r+b") as nothing:
            stdio = Stdio(nothing.fileno(), nothing.fileno(), nothing.fileno())
            self.bottle = self.backend.create(self.plan, stdio, meanwhile=lambda: None)
        owned.callback(self.bottle.destroy)

    def left(self) -> list[str]:
        wanted = json.dumps({"label": [f"bot-bottle.run={self.plan.id}"]})
        return [
            *(
                one["Names"][0]
                for one in self.engine.call("GET", "/containers/json", all="1", filters=wanted)
            ),
            *(one["Name"] for one in self.engine.call("GET", "/networks", filters=wanted)),
            *(one["Name"] for one in self.engine.call("GET", "/volumes", filters=wanted)["Volumes"] or ()),
        ]


@pytest.fixture
def make(tmp_path: Path, engine: Engine) -> Iterator:
    with ExitStack() as owned:
        yield lambda: Far(tmp_path, owned, engine)


LISTENERS = (Listener("proxy", "127.0.0.1", 3128),)


def test_it_is_made_and_removed_without_a_trace(make):
    far = make()
    channel, line = far.place.bundle()
    far.bottle.open_door(LISTENERS, Hatch(channel))
    far.bottle.release()
    far.bottle.destroy()
    assert far.place.end(channel) == -9
    line.close()
    far.place.close()
    assert far.left() == []


def test_an_engine_that_is_restarted_ends_it_and_reaping_finds_the_rest(make, running):
    far = make()
    far.bottle.release()
    running.restart()
    assert far.bottle.agent.wait(30) == 137
    with pytest.raises(SandboxError):
        far.place.bundle()
    with pytest.raises(BotBottleError):
        far.bottle.open_door(LISTENERS, Hatch(1))
    assert far.left()
    far.backend.reap(json.loads(json.dumps(far.backend.traces(far.plan))))
    assert far.left() == []
    again = make()
    again.bottle.release()
    assert again.bottle.agent.poll() is None


def test_an_engine_that_is_killed_is_an_error_and_the_rest_is_found_when_it_is_back(make, running):
    far = make()
    far.bottle.release()
    running.kill()
    assert far.bottle.agent.wait(30) == 137
    with pytest.raises(BotBottleError):
        far.place.close()
    assert not running.start()
    far.backend.reap(far.backend.traces(far.plan))
    assert far.left() == []


def test_a_deputy_that_is_killed_takes_the_bottle_along(make):
    far = make()
    far.bottle.release()
    deputy = next(name for name in far.left() if name.endswith("-bundle"))
    far.engine.call("POST", f"/containers{deputy}/kill")
    assert far.bottle.agent.wait(30) == 137
    wait_for(lambda: not [name for name in far.left() if name.startswith("/")], "both containers to be gone")
    with pytest.raises(SandboxError):
        far.bottle.spawn(far.plan.command, Stdio(0, 1, 2))


def test_its_listeners_come_here_from_an_engine_that_shares_this_machine_and_from_no_other(make):
    far = make()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        far.place.local = False
        with pytest.raises(SandboxError):
            far.bottle.open_door(LISTENERS, theirs)
        far.place.local = True
        far.bottle.open_door(LISTENERS, theirs)
        [listener] = receive_listeners(ours, len(LISTENERS), 10)
        assert listener.getsockname() == (LISTENERS[0].address, LISTENERS[0].port)
        listener.close()
    with pytest.raises(SandboxError):
        far.bottle.open_door(LISTENERS, Hatch(77))
