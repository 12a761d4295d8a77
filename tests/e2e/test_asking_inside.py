"""An agent that asks for help, from inside a real bottle, of the real server, and what it could do to it from there."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.backends import on_every_backend
from support.bottles import write_agent, write_bottle
from support.leftovers import processes
from support.place import python
from support.upstreams import Upstream
from support.waiting import wait_for

pytestmark = pytest.mark.namespace

CLIENT = r"""
import json, os, socket, sys, time, urllib.error, urllib.request
TOKEN = open(os.environ["BOT_BOTTLE_SUPERVISE_TOKEN_FILE"]).read()
URL = os.environ["BOT_BOTTLE_SUPERVISE_URL"]

def send(method, params, token=TOKEN, url=URL, **headers):
    given = {"authorization": "Bearer " + token, "content-type": "application/json",
             "accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25", **headers}
    content = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content, given), timeout=60) as answer:
            data = [line[6:] for line in answer.read().decode().splitlines() if line.startswith("data: ")]
            return json.loads(data[-1])
    except urllib.error.HTTPError as error:
        return error.code

def call(tool, **arguments):
    return send("tools/call", {"name": tool, "arguments": arguments})["result"]["structuredContent"]

def reach(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code

def tell(**found):
    print(json.dumps(found), flush=True)
"""


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield f"http://{server.where}"


def write(place, name, code, *, supervise=True, **egress):
    write_bottle(place, name, supervise=supervise, egress={"routes": [], **egress})
    write_agent(place, name, ["python3", "-c", CLIENT + code], bottle=name)


def start(cli, name):
    done = cli("start", name, "--headless", "--detach", "--json")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)["id"]


def told(cli, run):
    """What the agent has said, once it has ended."""
    wait_for(lambda: run not in cli("list").stdout, "the agent to end", within=60)
    said = cli("logs", run).stdout
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert lines, said
    return lines


def waiting(cli):
    return json.loads(cli("approvals", "list", "--json").stdout)


def events(cli, run, kind):
    lines = cli("events", run, "--json").stdout.splitlines()
    return [event["data"] for event in map(json.loads, lines) if event["kind"] == kind]


ASKS = """
tell(before=reach("http://one.example.org/new"))
asked = call("pipelock-block", urls=["http://one.example.org/new"], reason="to read it")
tell(asked=asked)
for _ in range(200):
    if asked["status"] != "pending": break
    time.sleep(0.1)
    asked = call("supervise-await", proposal=asked["proposal_id"])
tell(status=asked["status"], allowed=asked.get("allowed"), message=asked["message"], after=reach("http://one.example.org/new"))
"""


@on_every_backend
def test_what_it_asked_for_works_as_soon_as_it_is_told_so(place, cli, repository, upstream):
    route = {"host": "one.example.org", "protocol": "http", "paths": ["/old"], "upstream": upstream}
    write(place, "ask", ASKS, routes=[route])
    run = start(cli, "ask")
    [proposal] = wait_for(lambda: waiting(cli), "the proposal")
    approved = cli("approvals", "approve", f"{proposal['id']}@{proposal['digest']}", "--json")
    assert approved.code == 0, approved.stderr
    before, asked, after = told(cli, run)
    assert before == {"before": 403}
    assert after["status"] == "applied", (asked, after)
    assert after["after"] == "yes"
    assert "one.example.org" in after["allowed"][0]
    assert events(cli, run, "supervise.began")[0]["confined"]["seccomp"]
    assert cli("verify").code == 0


HELD = """
asked = call("pipelock-block", urls=["http://one.example.org/new"], reason="to read it")
tell(status=asked["status"], after=reach("http://one.example.org/new"))
"""
PRESENT = """
import sys
from bot_bottle.operate.presence import present
with present():
    print(1, flush=True)
    sys.stdin.read()
"""


def test_while_somebody_is_at_the_inbox_the_call_itself_waits_for_them(place, cli, repository, upstream):
    route = {"host": "one.example.org", "protocol": "http", "paths": ["/old"], "upstream": upstream}
    write(place, "ask", HELD, routes=[route])
    inbox = subprocess.Popen(place.argv([*python(), "-c", PRESENT]), env=place.environment, cwd=place.workspace,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with inbox:
        assert inbox.stdout.readline() == b"1\n"
        run = start(cli, "ask")
        [proposal] = wait_for(lambda: waiting(cli), "the proposal")
        assert cli("approvals", "approve", f"{proposal['id']}@{proposal['digest']}", "--json").code == 0
        assert told(cli, run) == [{"status": "applied", "after": "yes"}]


def test_what_was_refused_stays_so_and_it_is_told_why(place, cli, repository, upstream):
    route = {"host": "one.example.org", "protocol": "http", "paths": ["/old"], "upstream": upstream}
    write(place, "ask", ASKS, routes=[route])
    run = start(cli, "ask")
    [proposal] = wait_for(lambda: waiting(cli), "the proposal")
    assert cli("approvals", "reject", proposal["id"], "--reason", "not today", "--json").code == 0
    after = told(cli, run)[-1]
    assert (after["status"], after["allowed"], after["after"]) == ("rejected", None, 403)
    assert "not today" in after["message"]


ATTACKS = r"""
import pathlib
other = os.environ.get("OTHERS", "x")
def bind(address):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((address, 3129)); sock.listen()
            return "taken"
        except OSError as error:
            return error.errno
params = {"name": "policy", "arguments": {}}
place = pathlib.Path(os.environ["BOT_BOTTLE_SUPERVISE_TOKEN_FILE"])
tell(
    own=call("policy")["status"],
    others=[send("tools/call", params, token=token) for token in ("", "x", other, TOKEN[:-1], TOKEN.lower())],
    rebound=[send("tools/call", params, host=host) for host in ("evil.example.org", "127.0.0.1:80", "evil.example.org:3129")],
    origin=send("tools/call", params, origin="http://evil.example.org"),
    bound=[bind(address) for address in ("127.0.0.1", "0.0.0.0")],
    mode=oct(place.stat().st_mode & 0o777),
    in_environment=TOKEN in str(dict(os.environ)),
    processes=[pathlib.Path(f"/proc/{p}/cmdline").read_bytes().decode() for p in os.listdir("/proc") if p.isdigit()],
    forged=[call("supervise-await", proposal=other_id)["status"] for other_id in ("p" * 12, "OTHER")],
    tools=[tool["name"] for tool in send("tools/list", {})["result"]["tools"]],
    unknown=[send("tools/call", {"name": name, "arguments": {}}).get("error", {}).get("code")
             for name in ("approve", "decide", "grant")],
)
"""


@on_every_backend
def test_from_inside_it_is_the_runs_own_server_and_nothing_else(place, cli, repository):
    write(
        place,
        "other",
        'tell(token=TOKEN); call("pipelock-block", hosts=["two.example.org"], reason="x"); time.sleep(600)',
    )
    other = start(cli, "other")
    [proposal] = wait_for(lambda: waiting(cli), "the other's proposal")
    token = wait_for(
        lambda: [line for line in cli("logs", other).stdout.splitlines() if "token" in line], "its token"
    )
    others = json.loads(token[0])["token"]
    code = ATTACKS.replace('os.environ.get("OTHERS", "x")', repr(others)).replace("OTHER", proposal["id"])
    write(place, "attack", code)
    run = start(cli, "attack")
    [found] = told(cli, run)
    assert found["own"] == "ok"
    assert found["others"] == [401] * 5
    assert found["rebound"] == [421] * 3
    assert found["origin"] == 403
    assert "taken" not in found["bound"]
    assert found["mode"] == "0o600"
    assert found["in_environment"] is False
    assert not [line for line in found["processes"] if "supervise" in line and "def send" not in line]
    assert found["forged"] == ["error", "error"], "another run's proposal is none"
    assert "approve" not in found["tools"]
    assert found["unknown"] == [-32602] * 3
    cli("stop", other, "--now")
    assert events(cli, run, "proposal.made") == []


def test_the_token_is_in_no_plan_record_log_or_command_line(place, cli, repository):
    write(place, "idle", 'tell(token=TOKEN[::-1]); call("policy"); tell(asked=1); time.sleep(600)')
    run = start(cli, "idle")
    wait_for(lambda: "asked" in cli("logs", run).stdout, "its first call")
    line = next(line for line in cli("logs", run).stdout.splitlines() if "token" in line)
    token = json.loads(line)["token"][::-1]
    for words in (
        ("list", "--json"),
        ("events", run, "--json"),
        ("plan", "idle", "--headless", "--json"),
        ("logs", run),
    ):
        shown = cli(*words)
        assert token not in shown.stdout + shown.stderr
    for pid in processes(str(place.root), place.token):
        for name in ("environ", "cmdline"):
            assert token.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    cli("stop", run, "--now")
    files = [path for path in place.root.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert files == []


def test_a_bottle_that_is_not_supervised_has_no_server_and_nothing_of_one(place, cli, repository):
    write_bottle(place, "plain", egress={"routes": []})
    look = (
        "print(socket.socket().connect_ex(('127.0.0.1', 3129)), os.environ.get('BOT_BOTTLE_SUPERVISE_URL'))"
    )
    code = f"import os, socket; {look}"
    write_agent(place, "plain", ["python3", "-c", code], bottle="plain")
    done = cli("start", "plain", "--headless")
    assert done.stdout.split() == ["111", "None"]


def servers(place):
    """The processes that serve this place's agents. They have no environment, so their parent tells whose they are."""
    ours = set(processes(str(place.root), place.token))
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if b"bundle.supervise import main" in line and parent in ours:
                found.append(int(entry.name))
    return found


@on_every_backend
def test_killed_in_a_bottle_it_is_there_again_at_the_next_call(place, cli, repository):
    place.run(["mkfifo", "pipe"])
    code = 'tell(first=call("policy")["status"]); open("pipe").read(); tell(second=call("policy")["status"])'
    write(place, "ask", code)
    done = cli("start", "ask", "--headless", "--detach", "--json", "--workspace", "mount")
    run = json.loads(done.stdout)["id"]
    wait_for(lambda: "first" in cli("logs", run).stdout, "the first answer")
    [server] = servers(place)
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: events(cli, run, "supervise.died"), "its death to be known")
    place.run(["sh", "-c", "echo go > pipe"])
    assert told(cli, run) == [{"first": "ok"}, {"second": "ok"}]


@on_every_backend
def test_its_keeper_killed_nothing_of_it_is_left(place, cli, repository):
    write(place, "ask", 'call("policy"); tell(first=1); time.sleep(600)')
    run = start(cli, "ask")
    wait_for(lambda: "first" in cli("logs", run).stdout, "the first answer")
    [server] = servers(place)
    keeper = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not servers(place), "the server to be gone")
    wait_for(lambda: not processes(str(place.root), place.token), "every process to be gone")
    assert cli("cleanup").code == 0
