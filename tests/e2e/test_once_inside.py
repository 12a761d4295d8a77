"""An approval for one use, in a real bottle, over protocols in which many exchanges share a connection or one lasts: one passes.

The agent asks its server by MCP, the operator approves it once at the command line, and the agent then tries many times at once,
with real clients of the protocol that it brings along: `h2` and `websockets`.
"""

import json
import shutil
import sys
import sysconfig
import threading
from pathlib import Path

import pytest
from test_asking_inside import CLIENT, events, told, waiting  # type: ignore[import-not-found]
from websockets.sync.server import serve

from support.bottles import write_agent, write_bottle
from support.tls import make_certificate
from support.waiting import wait_for

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))
from tests.bundle.h2peers import Serving  # noqa: E402
from tests.bundle.harness import Server  # noqa: E402
from tests.bundle.origins import over_tls  # noqa: E402

pytestmark = [pytest.mark.namespace]
HOST, AT_ONCE = "one.example.org", 25
BROUGHT = ("h2", "hpack", "hyperframe", "websockets")

ASKS = """
import ssl, sys, threading
sys.path.insert(0, "/workspace/lib")
asked = call("pipelock-block", urls=["https://one.example.org/new"], reason="to talk to it")
tell(proposal=asked["proposal_id"])
while asked["status"] in ("pending", "approved"):
    time.sleep(0.1)
    asked = call("supervise-await", proposal=asked["proposal_id"])
tell(status=asked["status"])
context = ssl.create_default_context()
"""
H2 = """
from h2peers import Client
context.set_alpn_protocols(["h2"])
def client():
    sock = context.wrap_socket(socket.create_connection(("one.example.org", 443)), server_hostname="one.example.org")
    assert sock.selected_alpn_protocol() == "h2"
    return Client(sock)
first = client()
streams = [first.start(authority="one.example.org", path="/new") for _ in range(AT_ONCE)]
tell(first=sorted(first.answer(number).status for number in streams))
tell(same=first.ask(authority="one.example.org", path="/new").status,
     another=client().ask(authority="one.example.org", path="/new").status)
"""
WEBSOCKET = """
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
together, found, lock = threading.Barrier(AT_ONCE), [], threading.Lock()
held = []
def one():
    together.wait()
    try:
        held.append(connect("wss://one.example.org/new", ssl=context, proxy=None, open_timeout=30))
        status = 101
    except InvalidStatus as error:
        status = error.response.status_code
    with lock:
        found.append(status)
threads = [threading.Thread(target=one) for _ in range(AT_ONCE)]
for thread in threads: thread.start()
for thread in threads: thread.join()
tell(first=sorted(found))
for number in range(3):
    held[0].send(f"message {number}")
    tell(heard=held[0].recv(timeout=30))
def again():
    try:
        connect("wss://one.example.org/new", ssl=context, proxy=None, open_timeout=30)
        return 101
    except InvalidStatus as error:
        return error.response.status_code
while_it_lasts = again()
held[0].close()
tell(same=while_it_lasts, another=again())
"""


@pytest.fixture
def certificate(place):
    folder = place.root / "tls"
    folder.mkdir()
    return make_certificate(folder, HOST)


@pytest.fixture
def agent(place, repository, certificate):
    """Writes the agent that does `code` once it was told that it may, in a bottle that knows the upstream at `port`."""
    packages = Path(sysconfig.get_path("purelib"))
    for name in BROUGHT:
        shutil.copytree(packages / name, place.workspace / "lib" / name)
    shutil.copy(ROOT / "tests/bundle/h2peers.py", place.workspace / "lib")

    def write(code, port):
        route = {"host": HOST, "paths": ["/old"], "upstream": f"127.0.0.1:{port}"}
        trusted = {"upstream": {"ca": str(certificate[0])}}
        write_bottle(place, supervise=True, egress={"routes": [route], **trusted})
        code = CLIENT + ASKS + code.replace("AT_ONCE", str(AT_ONCE))
        write_agent(place, "asker", ["python3", "-c", code])

    return write


@pytest.fixture
def approved_once(cli):
    """Starts the agent, approves what it asks for once, and gives what it said then and the run."""

    def run():
        done = cli("start", "asker", "--headless", "--detach", "--json", "--workspace", "mount")
        assert done.code == 0, done.stderr
        name = json.loads(done.stdout)["id"]
        [proposal] = wait_for(lambda: waiting(cli), "the proposal")
        shown = json.loads(cli("approvals", "show", proposal["id"], "--for", "once", "--json").stdout)
        what = f"{shown['id']}@{shown['digest']}"
        done = cli("approvals", "approve", what, "--for", "once", "--json")
        assert json.loads(done.stdout)[0]["state"] == "applied", done.stdout + done.stderr
        said: dict[str, list] = {}
        for line in told(cli, name):
            for key, value in line.items():
                said.setdefault(key, []).append(value)
        assert said["status"] == ["applied"], said
        return name, said

    return run


def one_use_is_on_record(cli, run):
    [end] = events(cli, run, "grant.ended")
    assert "used" in end["why"]
    assert cli("verify").code == 0


def test_one_stream_of_http_2_passes_however_many_ask_on_one_connection(
    cli, agent, approved_once, certificate
):
    seen = []

    def reply(serving, number, asked):
        seen.append(dict(asked.headers)[b":path"])
        serving.say(number, b"yes")

    context = certificate[1]
    context.set_alpn_protocols(["h2"])
    upstream = Server(over_tls(context, lambda sock: Serving(sock, reply).run()))
    agent(H2, upstream.port)
    run, said = approved_once()
    assert said["first"] == [[200, *[403] * (AT_ONCE - 1)]]
    assert (said["same"], said["another"]) == ([403], [403])
    assert seen == [b"/new"]
    one_use_is_on_record(cli, run)
    upstream.close()


def test_one_websocket_opens_and_goes_on_and_no_other_does(cli, agent, approved_once, certificate):
    opened, heard = [], []

    def talk(connection):
        opened.append(connection.request.path)
        for message in connection:
            heard.append(message)
            connection.send(f"heard {message}")

    with serve(talk, "127.0.0.1", 0, ssl=certificate[1]) as upstream:
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        agent(WEBSOCKET, upstream.socket.getsockname()[1])
        run, said = approved_once()
        upstream.shutdown()
        thread.join()
    assert said["first"] == [[101, *[403] * (AT_ONCE - 1)]]
    assert said["heard"] == [f"heard message {number}" for number in range(3)]
    assert (said["same"], said["another"]) == ([403], [403])
    assert opened == ["/new"]
    one_use_is_on_record(cli, run)
