"""What an engine can do to a bottle: not answer, end, run out of disk, lose an image. An error by kind, nothing left, and again."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from bot_bottle.backends.base import Backend, Bottle
from bot_bottle.backends.docker import images, wire
from bot_bottle.backends.registry import backend
from bot_bottle.door.model import Listener
from bot_bottle.errors import HostError, NotFoundError, SandboxError
from bot_bottle.plan.model import INSIDE_UID, ImageSpec, RunPlan
from support.backends import Factory, make_plan
from support.engine import BASE
from support.images import nonce, written
from support.own_engine import OwnEngine, with_base
from support.waiting import wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("own engine"),
    # the SDK leaves its sockets to the collector when an engine goes away under it
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LISTENERS = (Listener("proxy", "127.0.0.1", 3128),)

LONG = str(10_000_000 + os.getpid())
"""Seconds that an agent sleeps for; no other test's are as many, so its processes are found by them."""


@pytest.fixture(scope="module")
def running() -> Iterator[OwnEngine]:
    with with_base() as made:
        yield made


@pytest.fixture
def engine(running: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> OwnEngine:
    monkeypatch.setenv("DOCKER_HOST", running.host)
    return running


class Maker:
    """Makes bottles of the engine that is in trouble."""

    def __init__(self, root: Path, owned: ExitStack, engine: OwnEngine) -> None:
        self.engine = engine
        self.backend: Backend = backend("docker")
        self.root = root
        self.make = Factory(root, self.backend, owned, uid=INSIDE_UID, image=ImageSpec(reference=BASE))

    def plan(self, **changes) -> RunPlan:
        return make_plan(self.root, backend="docker", image=ImageSpec(reference=BASE), **changes)

    def works(self) -> None:
        """A bottle runs to its end, and nothing is left of it."""
        bottle = self.make("sh", "-c", "exit 7")
        assert bottle.agent.wait(30) == 7
        bottle.destroy()
        assert self.engine.containers() == []


@pytest.fixture
def maker(tmp_path: Path, engine: OwnEngine) -> Iterator[Maker]:
    with ExitStack() as owned:
        yield Maker(tmp_path, owned, engine)


@contextmanager
def silent(engine: OwnEngine) -> Iterator[None]:
    """It answers nobody, and nobody waits long for it."""
    with pytest.MonkeyPatch.context() as patched, engine.stopped():
        patched.setattr(wire, "PATIENCE", 0.5)
        yield


def test_an_engine_that_does_not_answer_is_said_and_the_next_try_works(maker: Maker) -> None:
    with silent(maker.engine), pytest.raises(HostError) as raised:
        maker.make("true")
    assert "does not answer" in raised.value.brief
    wait_for(lambda: maker.engine.containers() == [], "nothing to be left")
    maker.works()


def test_an_engine_that_stops_answering_does_not_keep_a_bottle_alive(maker: Maker) -> None:
    bottle = maker.make("sleep", LONG)
    inside = wait_for(lambda: _pids_of(f"sleep\0{LONG}", bottle), "the agent")
    with silent(maker.engine):
        with pytest.raises(HostError):
            bottle.destroy()
        wait_for(lambda: not any(map(_runs, inside)), "the agent to end without the engine")
    wait_for(lambda: maker.engine.containers() == [], "the engine to remove it")
    maker.works()


def test_an_engine_that_is_restarted_ends_its_bottles_and_a_new_one_works(maker: Maker) -> None:
    plan = maker.plan()
    bottle = maker.make("sleep", LONG, id=plan.id)
    maker.engine.restart()
    assert bottle.agent.wait(30) is not None
    with pytest.raises(SandboxError):
        bottle.write_files(())
    bottle.destroy()
    maker.backend.reap(maker.backend.traces(plan))
    assert maker.engine.containers() == []
    maker.works()


def test_an_engine_that_is_killed_leaves_nothing_that_runs_and_what_it_remembers_is_removed(
    maker: Maker,
) -> None:
    plan = maker.plan()
    bottle = maker.make("sleep", LONG, id=plan.id)
    inside = _pids_of(f"sleep\0{LONG}", bottle)
    maker.engine.kill()
    with pytest.raises(HostError):
        bottle.destroy()
    wait_for(lambda: not any(map(_runs, inside)), "the agent to end without the engine")
    with pytest.raises(HostError):
        maker.backend.reap(maker.backend.traces(plan))
    assert not maker.engine.start()
    maker.backend.reap(maker.backend.traces(plan))
    assert maker.engine.containers() == []
    assert maker.backend.reap(maker.backend.traces(plan)) == []
    maker.works()


def test_a_disk_that_is_full_while_building_is_said_and_the_next_try_works(
    maker: Maker, tmp_path: Path
) -> None:
    spec = written(
        tmp_path / "image", "FROM {base}\nRUN head -c 8000000 /dev/urandom >/large && echo " + nonce() + "\n"
    )
    plan = maker.plan()._replace(image=spec)
    with maker.engine.full(left=4 << 20), pytest.raises(HostError) as raised:
        maker.backend.prepare(plan, lambda _: None)
    assert "disk is full" in raised.value.brief or "no space left" in str(raised.value).lower()
    assert maker.engine.containers() == []
    maker.backend.prepare(plan, lambda _: None)


def test_a_disk_that_is_full_when_a_bottle_is_made_is_said_and_the_next_try_works(maker: Maker) -> None:
    maker.works()  # so that its image is there
    with maker.engine.full(), pytest.raises((HostError, SandboxError)) as raised:
        maker.make("true")
    assert "no space left" in str(raised.value).lower()
    wait_for(lambda: maker.engine.containers() == [], "nothing to be left")
    maker.works()


def test_a_disk_that_is_full_while_a_bottle_runs_ends_nothing(maker: Maker) -> None:
    bottle = maker.make(
        "sh", "-c", "dd if=/dev/zero of=/tmp/x bs=1M count=1 2>/dev/null; read x; exit 5", release=False
    )
    with maker.engine.full():
        bottle.release()
        assert bottle.agent.wait(30) == 5
        bottle.destroy()
    assert maker.engine.containers() == []


def test_the_bottles_image_that_vanished_is_made_again(maker: Maker) -> None:
    plan = maker.plan()
    maker.backend.prepare(plan, lambda _: None)
    _remove_images(maker.engine, images.BOTTLE)
    maker.works()


def test_an_image_that_is_gone_for_good_is_named_and_the_next_try_works_when_it_is_back(maker: Maker) -> None:
    _remove_images(maker.engine, images.BOTTLE)
    whole = maker.engine.connect()
    with closing(whole.client):
        whole.client.api.remove_image(BASE)
    with pytest.raises((NotFoundError, HostError)) as raised:
        maker.make("true")
    assert BASE in raised.value.brief
    assert maker.engine.containers() == []
    maker.engine.put_base()
    maker.works()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_helper_that_dies_or_stands_still_before_the_door_is_open_fails_that_bottle_alone(
    number: int, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bot_bottle.backends.docker import door

    monkeypatch.setattr(door, "_PATIENCE", 1.0)
    bottle = maker.make("true", release=False)
    for pid in _pids_of("/.bottle\x00door", bottle):
        os.kill(pid, number)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(SandboxError):
        bottle.open_door(LISTENERS, theirs)
    bottle.destroy()
    wait_for(lambda: maker.engine.containers() == [], "nothing to be left")
    maker.works()


def _remove_images(engine: OwnEngine, name: str) -> None:
    whole = engine.connect()
    with closing(whole.client):
        for one in whole.client.api.images(name.partition(":")[0]):
            whole.client.api.remove_image(one["Id"], force=True)


def _pids_of(words: str, bottle: Bottle) -> list[int]:
    """Processes of this machine whose command line begins so; they are all in containers of the test's engine."""
    return [pid for pid in _processes() if _line(pid).startswith(words.encode())]


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _runs(pid: int) -> bool:
    return bool(_line(pid))
