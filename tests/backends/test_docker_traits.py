"""What decides how bottles are made on an engine: whether it shares this machine, which limits it keeps, whether it is Podman."""

import http.server
import json
import os
import socketserver
import threading
from pathlib import Path

import pytest

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.docker.dialing import read, refuse_far_podman, traits
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.backends.registry import backend
from bot_bottle.errors import BotBottleError, HostError
from bot_bottle.plan.model import Limits
from support.backends import make_plan

KEEPS = {"MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True}
HERE = {"KernelVersion": os.uname().release, "SecurityOptions": ["name=seccomp,profile=default"], **KEEPS}


class Said:
    """An engine that says `info` at `path`, and how often it was asked."""

    def __init__(self, path: Path, info: dict[str, object]) -> None:
        self.asked = 0
        said = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said.asked += 1
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(info).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = socketserver.UnixStreamServer(str(path), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


def test_an_engine_is_asked_once_and_another_at_the_same_place_anew(tmp_path, own_home) -> None:
    path = tmp_path / "s"
    first = Said(path, HERE)
    try:
        assert traits(Engine(str(path))) == (True, ("memory", "cpus", "pids"), False)
        assert traits(Engine(str(path))).local
        assert first.asked == 1
        path.unlink()
        second = Said(path, {**HERE, "KernelVersion": "another", "MemoryLimit": False})
        try:
            assert traits(Engine(str(path))) == (False, ("cpus", "pids"), False)
            assert second.asked == 1
        finally:
            second.end()
    finally:
        first.end()


def test_after_a_bottle_could_not_be_made_engines_are_asked_anew(tmp_path, own_home, monkeypatch) -> None:
    path = tmp_path / "s"
    engine = Said(path, HERE)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    try:
        assert traits(Engine(str(path))).local
        with open(os.devnull, "r+b") as nothing, pytest.raises(BotBottleError):
            backend("docker").create(make_plan(tmp_path, backend="docker"), Stdio(*[nothing.fileno()] * 3))
        assert traits(Engine(str(path))).local
        assert engine.asked == 2
    finally:
        engine.end()


def test_what_is_remembered_and_can_t_be_read_is_asked_again(tmp_path, own_home) -> None:
    path = tmp_path / "s"
    engine = Said(path, HERE)
    try:
        assert traits(Engine(str(path))).local
        [memory] = own_home.rglob("engine.json")
        for broken in (
            "",
            "[]",
            "{",
            '{"mark": 1}',
            json.dumps({**json.loads(memory.read_text()), "mark": "x"}),
        ):
            memory.write_text(broken)
            assert traits(Engine(str(path))).local
        assert engine.asked == 6
    finally:
        engine.end()


@pytest.mark.parametrize("option", ["name=rootless", "name=userns"])
def test_engines_whose_users_are_not_this_machine_s_share_nothing(option: str) -> None:
    assert read(HERE, here=True).local
    assert not read({**HERE, "SecurityOptions": ["name=seccomp", option]}, here=True).local
    assert not read(HERE, here=False).local
    assert not read({}, here=True).local


PODMAN = {**HERE, "BuildahVersion": "1.28.2"}


def test_podman_holds_bottles_as_root_on_this_machine_and_is_refused_by_name_elsewhere() -> None:
    refuse_far_podman(read(HERE, here=True), "container")
    refuse_far_podman(read(PODMAN, here=True), "keeper")
    for here, options, bundle in (
        (False, [], "keeper"),
        (True, ["name=rootless"], "keeper"),
        (True, [], "container"),
    ):
        with pytest.raises(HostError, match="Podman"):
            refuse_far_podman(read({**PODMAN, "SecurityOptions": options}, here=here), bundle)


@pytest.mark.parametrize(
    ("info", "limits", "said"),
    [
        (
            {**HERE, "MemoryLimit": False},
            Limits(memory=1 << 30, stated=("memory", "disk")),
            "resources.memory",
        ),
        ({**HERE, "PidsLimit": False}, Limits(pids=10, stated=("pids",)), "resources.pids"),
        ({**PODMAN, "SecurityOptions": ["name=rootless"]}, Limits(), "sockets can't be shared"),
        ({**HERE, "SecurityOptions": ["name=rootless"]}, Limits(), "rootless"),
    ],
)
def test_a_run_that_an_engine_can_t_keep_is_refused_before_anything_is_made(
    tmp_path, own_home, monkeypatch, info: dict[str, object], limits: Limits, said: str
) -> None:
    engine = Said(tmp_path / "s", info)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    try:
        with pytest.raises(HostError) as caught:
            backend("docker").place(make_plan(tmp_path, backend="docker", limits=limits))
        assert said in caught.value.details
        assert engine.asked == 1, "nothing else is asked of it"
    finally:
        engine.end()


def test_what_is_not_stated_is_not_asked_of_an_engine(tmp_path, own_home, monkeypatch) -> None:
    engine = Said(tmp_path / "s", {**HERE, "MemoryLimit": False, "PidsLimit": False})
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    try:
        assert (
            backend("docker").place(make_plan(tmp_path, backend="docker", limits=Limits(memory=1 << 30)))
            is None
        )
    finally:
        engine.end()
