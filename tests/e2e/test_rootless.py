"""Bottles on a rootless Docker: its users are not this machine's, so the bundle is a container and the workspace a copy."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import engine as engines
from support import rootless as engine
from support.place import Done, Place
from support.rootless import Rootless

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("rootless"),
]


@pytest.fixture(scope="module")
def made() -> Iterator[Rootless]:
    if why := engine.missing():
        pytest.skip(why)
    root = Path(tempfile.mkdtemp(prefix="bb-rootless-", dir="/tmp"))
    try:
        with engine.rootless(root) as running:
            yield running
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def start(made: Rootless):
    root = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    root.chmod(0o755)
    place = Place(root, made.uid, "namespace")
    for folder in (place.home, place.workspace):
        folder.mkdir()
        os.chown(folder, made.uid, made.uid)
    (place.workspace / "mine").write_text("the person's\n")
    os.chown(place.workspace / "mine", made.uid, made.uid)

    def run(script: str, *words: str, **keys: object) -> Done:
        bottle = {"backend": "docker", "image": engines.BASE, **keys}
        lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in bottle.items())
        place.write(".bot-bottle/bottles/default.md", f"---\n{lines}---\n")
        agent = {"provider": "command", "command": ["sh", "-c", script]}
        lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in agent.items())
        place.write(".bot-bottle/agents/one.md", f"---\n{lines}---\n")
        return bot_bottle("start", "one", "--headless", *words)

    def bot_bottle(*words: str) -> Done:
        from support.place import program

        env = {"DOCKER_HOST": made.host, "XDG_RUNTIME_DIR": str(made.runtime)}
        return place.run([str(program()), *words], env=env, timeout=200)

    run.bot_bottle = bot_bottle  # type: ignore[attr-defined]
    yield run
    place.remove()


def containers(made: Rootless) -> list[str]:
    running = engines.connect({"DOCKER_HOST": made.host})
    try:
        api = running.client.api
        named = [one["Names"][0] for one in api.containers(all=True)]
        named += [one["Name"] for one in api.volumes()["Volumes"] or ()]
        return named + [one["Name"] for one in api.networks() if one["Name"].startswith("bot-bottle")]
    finally:
        running.client.close()


def test_the_agent_is_not_root_works_on_a_copy_and_reaches_nothing(start, made: Rootless) -> None:
    script = """
        id -u; cat mine; echo more >> mine; echo made > made; ls -d /proc/1/root 2>&1 | tail -1 >/dev/null
        python3 - <<'END'
import socket
for place in (("169.254.169.254", 80), ("10.0.2.2", 80), ("172.17.0.1", 80)):
    try:
        sock = socket.create_connection(place, 3)
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        print(sock.recv(12)[9:12].decode())
    except OSError as error:
        print(error.strerror or "timed out")
try: print(socket.getaddrinfo("example.net", 80))
except OSError: print("no name")
END
    """
    done = start(script)
    assert done.code == 0, (done.stdout, done.stderr)
    lines = done.stdout.split("\n")
    assert lines[:2] == [str(made.uid), "the person's"]
    assert set(lines[2:5]) <= {"403", "Connection refused"}, lines
    assert lines[5] == "no name"
    [run] = [one["id"] for one in json.loads(start.bot_bottle("list", "--all", "--json").stdout)]
    changed = start.bot_bottle("diff", run).stdout
    assert "+more" in changed
    assert "+made" in changed
    assert containers(made) == []


def test_a_mounted_workspace_and_limits_that_would_not_be_kept_are_refused_by_name(
    start, made: Rootless
) -> None:
    done = start("true", "--workspace", "mount")
    assert done.code != 0
    assert "rootless" in done.stderr
    done = start("true", resources={"memory": "256MiB"})
    kept = "keeps memory" in start.bot_bottle("doctor").stdout
    assert (done.code == 0) == kept, done.stderr
    assert kept or "resources.memory" in done.stderr
    assert containers(made) == []


def test_doctor_says_that_it_is_rootless(start) -> None:
    assert "rootless: it runs as a user; bundles are containers" in start.bot_bottle("doctor").stdout
