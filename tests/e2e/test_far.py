"""Bottles whose bundle is a container of its own: with an engine that ssh leads to, and with one here where the bottle says so.

The agent, its door and what serves it are all there; the operator, the record and the inbox are here.
"""

import json
import os
import signal
import socket
import struct
from contextlib import ExitStack

import pytest
from test_asking_inside import ASKS, CLIENT, events, start, told, waiting

from bot_bottle.backends.docker.wire import Engine
from support import engine as engines
from support import sshd as far
from support.bottles import write_agent, write_bottle, write_script
from support.upstreams import Upstream
from support.waiting import wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("backend", ["docker"], indirect=True),
    pytest.mark.parametrize("who", ["root"], indirect=True),
]
SECRET = "tok-9f8e7d6c5b4a39281706"
GATEWAY = "docker0"


@pytest.fixture(params=["ssh", "container"])
def way(request):
    """How the engine is reached; `container`: it is here, and the bottle says `bundle: container`."""
    return request.param


@pytest.fixture
def server(way, tmp_path_factory):
    if way != "ssh":
        yield None
        return
    if missing := far.missing():
        pytest.skip(f"not installed: {missing}")
    with far.sshd(tmp_path_factory.mktemp("sshd") / "s") as made:
        yield made


@pytest.fixture
def cli(cli, place, server):
    """`bot-bottle` as somebody whose engine is there."""
    if server is None:
        return cli
    path = f"{server.environ['PATH'].partition(':')[0]}:{place.environment['PATH']}"
    given = {"DOCKER_HOST": "ssh://far", "PATH": path}
    return lambda *words, env=None, **options: cli(
        *words, env={**given, **(env or {})}, **{"timeout": 120, **options}
    )


@pytest.fixture
def bottle(place, way):
    """Writes the bottle's file, for the engine that is meant."""
    more = {"bundle": "container"} if way == "container" else {}

    def write(name="default", **keys):
        return write_bottle(place, name, **{**more, **keys})

    return write


@pytest.fixture
def upstream():
    """A server that containers reach, and so on an address of the host's that they see."""
    try:
        with Upstream(address=_address(GATEWAY)) as made:
            yield made
    except OSError as error:
        pytest.skip(f"the engine's bridge {GATEWAY} is not there: {error}")


def _address(interface):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        import fcntl

        found = fcntl.ioctl(sock, 0x8915, struct.pack("16s24x", interface.encode()))  # SIOCGIFADDR
    return socket.inet_ntoa(found[20:24])


@pytest.fixture
def engine():
    made = engines.engine()
    made.client.close()
    return Engine(made.endpoint.host.removeprefix("unix://"))


def containers(engine, run):
    wanted = json.dumps({"label": [f"bot-bottle.run={run}"]})
    return engine.call("GET", "/containers/json", all="1", filters=wanted)


def left(engine, run):
    """Everything with the run's label."""
    wanted = json.dumps({"label": [f"bot-bottle.run={run}"]})
    return [
        *(one["Names"] for one in containers(engine, run)),
        *(one["Name"] for one in engine.call("GET", "/networks", filters=wanted)),
        *(one["Name"] for one in engine.call("GET", "/volumes", filters=wanted)["Volumes"] or ()),
    ]


def test_it_works_there_and_its_changes_come_back(place, cli, repository, bottle, engine):
    bottle()
    write_script(
        place, "worker", "cat hello.txt; ln hello.txt again; echo new > new.txt; printf err >&2; exit 3"
    )
    done = cli("start", "worker", "--headless", "--json")
    assert done.code == 3, done.stderr
    run = json.loads(done.stdout)["id"]
    assert cli("logs", run).stdout.replace("err", "") == "hello\n"
    changes = cli("diff", run).stdout
    assert "+++ b/new.txt" in changes
    assert "+++ b/again" in changes
    assert not (place.workspace / "new.txt").exists()
    assert left(engine, run) == []


def test_it_asks_there_and_is_answered_here(place, cli, repository, bottle, upstream):
    route = {
        "host": "one.example.org",
        "protocol": "http",
        "paths": ["/old"],
        "upstream": f"http://{upstream.where}",
    }
    bottle("ask", supervise=True, egress={"routes": [route]})
    write_agent(place, "ask", ["python3", "-c", CLIENT + ASKS], bottle="ask")
    run = start(cli, "ask")
    [proposal] = wait_for(lambda: waiting(cli), "the proposal")
    approved = cli("approvals", "approve", f"{proposal['id']}@{proposal['digest']}", "--json")
    assert approved.code == 0, approved.stderr
    before, asked, after = told(cli, run)
    assert before == {"before": 403}
    assert (after["status"], after["after"]) == ("applied", "yes"), asked
    assert upstream.hosts == ["one.example.org"]
    assert events(cli, run, "supervise.began")[0]["confined"]["seccomp"]
    assert events(cli, run, "run.started")[0]["confined"]["seccomp"]


def test_a_credential_goes_out_from_there_and_stands_nowhere_else(
    place, cli, repository, bottle, upstream, engine
):
    route = {"host": "api.example.org", "protocol": "http", "upstream": f"http://{upstream.where}"}
    bottle(sensitive={"key": {"env": "KEY"}}, egress={"routes": [route], "secrets": {"on_match": "block"}})
    script = f"curl -sS -m 5 -o /dev/null -w '%{{http_code}}\\n' http://api.example.org/{SECRET}; sleep 1000"
    write_script(place, "sender", script)
    done = cli("start", "sender", "--headless", "--detach", "--json", env={"KEY": SECRET})
    assert done.code == 0, done.stderr
    run = json.loads(done.stdout)["id"]
    wait_for(lambda: "403" in cli("logs", run).stdout, "the refusal")
    wait_for(lambda: len(containers(engine, run)) == 2, "the door's helper to be gone")
    for one in containers(engine, run):
        whole = engine.call("GET", f"/containers/{one['Id']}/json")
        assert SECRET not in json.dumps(whole)
        assert whole["HostConfig"]["CapDrop"] == ["ALL"]
        assert not whole["HostConfig"]["Binds"]
        assert "no-new-privileges" in whole["HostConfig"]["SecurityOpt"]
        if one["Names"][0].endswith("-bundle"):
            assert whole["HostConfig"]["ReadonlyRootfs"]
            assert [mount["Type"] for mount in whole["Mounts"]] == ["volume"]
            assert whole["Config"]["User"].split(":")[0] not in ("", "0")
        else:
            assert whole["HostConfig"]["NetworkMode"] == "none"
            assert not [mount for mount in whole["Mounts"] if mount.get("Name", "").endswith("-door")]
    assert upstream.hosts == []
    assert cli("stop", run, "--now").code in (0, 1)
    assert left(engine, run) == []


def test_a_keeper_that_is_killed_ends_everything_there_and_its_changes_are_brought_back(
    place, cli, repository, bottle, engine, way
):
    bottle()
    write_script(place, "worker", "echo half > half.txt; echo up; sleep 1000")
    done = cli("start", "worker", "--headless", "--detach", "--json")
    assert done.code == 0, done.stderr
    run = json.loads(done.stdout)["id"]
    wait_for(lambda: "up" in cli("logs", run).stdout, "the agent to work")
    for pid in _keepers(place):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: containers(engine, run) == [], "its containers to end", within=30)
    assert bool([name for name in left(engine, run) if name.endswith("-work")]) == (way == "ssh")
    cleaned = cli("cleanup")
    assert run in cleaned.stdout, cleaned.stderr
    assert left(engine, run) == []
    assert "+half" in cli("diff", run).stdout


def _keepers(place):
    """The processes of the program that keeps a bottle here; what carries for it dies with it."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                ours = place.token.encode() in file.read()
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found += [int(name)] if ours and b"start" in file.read() else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize("way", ["container"], indirect=True)
def test_one_that_was_kept_goes_on_with_its_files(place, cli, repository, bottle, engine):
    bottle()
    write_script(
        place, "worker", "cat ~/note more.txt; echo home > ~/note; echo more >> more.txt; echo up; sleep 1000"
    )
    runs = []
    for words in (["worker"], None):
        done = cli("start", *(words or [runs[0]]), "--headless", "--detach", "--json")
        assert done.code == 0, done.stderr
        runs.append(json.loads(done.stdout)["id"])
        wait_for(lambda: "up" in cli("logs", runs[-1]).stdout, "the agent to work")
        assert cli("stop", "--keep", runs[-1]).code == 0
        assert left(engine, runs[-1]) == []
        assert "stopped" in cli("list").stdout
    assert [line for line in cli("logs", runs[1]).stdout.splitlines() if ":" not in line] == [
        "home",
        "more",
        "up",
    ]
    assert cli("stop", runs[1]).code == 0
    assert "stopped" not in cli("list").stdout
    assert "+more\n+more" in cli("diff", runs[1]).stdout


def test_what_is_typed_there_and_put_out_there_is_whole(place, cli, repository, bottle):
    """A stream of each kind, longer than what may be under way."""
    bottle()
    write_script(place, "worker", "sleep 1000")
    run = json.loads(cli("start", "worker", "--headless", "--detach", "--json").stdout)["id"]
    with ExitStack() as stack:
        stack.callback(cli, "stop", run, "--now")
        text = "".join(f"{number:07}\n" for number in range(200_000))
        assert cli("exec", run, "--", "cat", stdin=text).stdout == text
        assert cli("exec", run, "--", "sh", "-c", "exec 0<&-; sleep 0.2; exit 9", stdin=text).code == 9
        assert cli("exec", run, "--", "/nothing").code == 127
