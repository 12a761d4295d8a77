"""What leaves a bottle, and what does not: real clients inside, a real server outside, through the whole of it."""

import json
import os
import signal

import pytest

from support.backends import on_every_backend
from support.bottles import write_agent, write_bottle, write_script
from support.bundles import bundles
from support.pipelock import KINDS, provide, skip_unless_there
from support.upstreams import Upstream
from support.waiting import wait_for

pytestmark = pytest.mark.namespace


@pytest.fixture(params=("builtin", *KINDS))
def engine(request, place):
    """What the bottle's file calls the engine; `pipelock` is on PATH when it is that."""
    if request.param == "builtin":
        return "builtin"
    skip_unless_there(request.param)
    provide(request.param, place.root)
    return "pipelock"


@pytest.fixture
def upstream(place, engine):
    """A server on the host's loopback, and a bottle whose one route leads to it."""
    with Upstream() as server:
        routes = [{"host": "ok.example.org", "protocol": "http", "upstream": server.where}]
        write_bottle(place, egress={"engine": engine, "routes": routes})
        yield server


PYTHON = """
import socket
for host in ("ok.example.org", "no.example.org", "203.0.113.9"):
    try:
        sock = socket.create_connection((host, 80), 5)
        sock.sendall(f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        print(host, sock.makefile("rb").readline().split()[1].decode())
    except OSError as error:
        print(host, "refused")
"""
NODE = """
for (const host of ["ok.example.org", "no.example.org"])
  await fetch(`http://${host}/`).then(r => console.log(host, r.status), e => console.log(host, "refused"));
"""


@on_every_backend
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["curl", "-sS", "-m", "5", "http://ok.example.org/"], ["yes"]),
        (["curl", "-sS", "-m", "5", "--noproxy", "*", "http://ok.example.org/"], ["yes"]),
        (
            ["python3", "-c", PYTHON],
            ["ok.example.org", "200", "no.example.org", "refused", "203.0.113.9", "403"],
        ),
    ],
    ids=["by the proxy", "past the proxy", "a raw socket"],
)
def test_an_allowed_host_answers_and_nothing_else_does(place, cli, repository, upstream, argv, said):
    write_agent(place, "dial", argv)
    done = cli("start", "dial", "--headless")
    assert done.stdout.split() == said, done.stdout + done.stderr
    assert upstream.hosts == ["ok.example.org"]


def test_a_client_that_knows_no_proxy_is_held_to_the_same_policy(place, cli, repository, upstream):
    write_script(
        place,
        "dial",
        "command -v node >/dev/null || { echo none; exit; }\nnode --input-type=module -e '" + NODE + "'",
    )
    done = cli("start", "dial", "--headless")
    if done.stdout.strip() == "none":
        pytest.skip("there is no node in /usr")
    assert done.stdout.split() == ["ok.example.org", "200", "no.example.org", "refused"], done.stderr
    assert upstream.hosts == ["ok.example.org"]


@on_every_backend
def test_a_bundle_that_dies_is_started_again_with_the_same_policy(place, cli, repository, upstream):
    place.run(["mkfifo", "pipe"])
    write_script(
        place,
        "wait",
        "read go < pipe; curl -sS -m 5 http://ok.example.org/; curl -m 5 http://no.example.org/; true",
    )
    run = json.loads(cli("start", "wait", "--headless", "--detach", "--json", "--workspace", "mount").stdout)[
        "id"
    ]
    [bundle] = bundles(place)
    os.kill(bundle, signal.SIGKILL)
    wait_for(lambda: "door.opened" in cli("events", run, "--json").stdout, "the door to be open again")
    place.run(["sh", "-c", "echo go > pipe"])
    wait_for(lambda: run not in cli("list").stdout, "the agent to end")
    said = cli("logs", run).stdout
    assert "yes" in said
    assert "host_not_allowed" in said
    kinds = [json.loads(line)["kind"] for line in cli("events", run, "--json").stdout.splitlines()]
    assert kinds.index("door.closed") < kinds.index("door.opened") < kinds.index("egress.allowed")
