"""An engine behind a real sshd on loopback: reached by the ordinary client, and what is said when it can't be."""

import os
import signal
from collections.abc import Iterator

import pytest

from bot_bottle.backends.docker import endpoint
from bot_bottle.backends.docker.dialing import engine_at, traits
from bot_bottle.backends.docker.engine import connect
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.backends.registry import backend
from bot_bottle.errors import HostError
from bot_bottle.plan.model import ImageSpec
from support import sshd as far
from support.backends import Factory
from support.engine import BASE
from support.waiting import wait_for

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[far.Sshd]:
    if missing := far.missing():
        pytest.skip(f"not installed: {missing}")
    with far.sshd(tmp_path_factory.mktemp("sshd") / "s") as made:
        yield made


@pytest.fixture
def folder(tmp_path_factory) -> Iterator[str]:
    """Short, as a run's folder is: a socket's path has 107 bytes at most."""
    import shutil
    import tempfile

    made = tempfile.mkdtemp(prefix="bb-", dir="/tmp")
    yield made
    shutil.rmtree(made)


def test_both_ways_of_speaking_to_it_find_the_same_engine_and_call_it_far(server, folder):
    found = connect(server.environ)
    engine = engine_at(endpoint.find(server.environ), server.environ, folder=folder)
    try:
        assert not found.local
        assert not traits(engine).local
        assert "ssh://far" in found.describe()
        assert (
            engine.call("GET", "/version")["Version"]
            == found.version["Version"]
            == found.client.version()["Version"]
        )
    finally:
        found.client.close()
        engine.close()


def test_further_connections_share_the_first_and_all_of_them_end(server, folder):
    engine = engine_at(endpoint.find(server.environ), server.environ, folder=folder)
    before = server.log.read_text().count("Accepted publickey")
    for _ in range(3):
        engine.call("GET", "/_ping")
    assert server.log.read_text().count("Accepted publickey") == before + 1
    assert os.listdir(folder) == ["ssh"]
    engine.close()
    engine.close()
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("ssh://nobody-here@127.0.0.1:{port}", "verification failed"),
        ("ssh://far/nowhere.sock", "nowhere.sock"),
        ("ssh://127.0.0.1:1", "refused"),
    ],
)
def test_what_ssh_says_is_told(server, host, said):
    environ = {**server.environ, "DOCKER_HOST": host.format(port=server.port)}
    for ask in (
        lambda: connect(environ),
        lambda: engine_at(endpoint.find(environ), environ).call("GET", "/version"),
    ):
        with pytest.raises(HostError) as raised:
            ask()
        assert said in raised.value.details
        assert "ssh" in raised.value.resolution


def test_a_key_that_is_not_accepted_is_no_question_to_anybody(server, tmp_path):
    wrong = {**server.environ, "HOME": str(tmp_path)}
    config = server.config.read_text().replace(f"{server.config.parent}/user", f"{tmp_path}/none")
    (tmp_path / "config").write_text(config)
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {tmp_path}/config "$@"\n')
    (tmp_path / "ssh").chmod(0o755)
    with pytest.raises(HostError) as raised:
        connect({**wrong, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert "Permission denied" in raised.value.details


def test_a_connection_that_is_lost_is_an_error_and_the_next_call_works(server, folder):
    engine = engine_at(endpoint.find(server.environ), server.environ, folder=folder)
    try:
        engine.call("GET", "/_ping")
        for process, _ in engine._dialer._running:
            os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: all(one.poll() is not None for one, _ in engine._dialer._running), "ssh to be gone")
        assert engine.call("GET", "/_ping") in (b"OK", "OK")
    finally:
        engine.close()


def test_a_runtime_that_the_engine_does_not_have_is_refused_by_its_name(tmp_path):
    from contextlib import ExitStack

    with ExitStack() as owned:
        make = Factory(tmp_path, backend("docker"), owned, image=ImageSpec(reference=BASE))
        with pytest.raises(HostError) as raised:
            make("true", runtime="no-such-runtime")
    assert "runtime" in raised.value.brief
    assert "no-such-runtime" in raised.value.details


def test_an_engine_without_a_word_of_ssh_is_as_it_was():
    assert isinstance(engine_at(endpoint.Endpoint("unix:///x", "the test"), {}), Engine)
