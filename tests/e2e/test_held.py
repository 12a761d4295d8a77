"""What waits at the door of a real bottle until an operator has decided, with the programs that agents use."""

import json
import subprocess
import threading

import pytest

from support.bottles import write_bottle, write_script
from support.place import python
from support.upstreams import Upstream
from support.waiting import wait_for

pytestmark = pytest.mark.namespace

TOLD = "sesame-4711-sesame-0815"
PRESENT = """
import sys
from bot_bottle.operate.approvals import Approvals
from bot_bottle.operate.runs import open_store
with open_store() as store, Approvals(store).present():
    print("present", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def upstream():
    with Upstream() as server:
        yield server


class Desk:
    """The operator's: an inbox that is open, and decisions at the command line."""

    def __init__(self, place, cli) -> None:
        self._cli = cli
        self.inbox = subprocess.Popen(
            place.argv([*python(), "-c", PRESENT]),
            env=place.environment, cwd=place.workspace, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.inbox.stdout.readline() == b"present\n"

    def waiting(self) -> list[dict]:
        return json.loads(self._cli("approvals", "list", "--json").stdout)

    def first(self) -> dict:
        wait_for(self.waiting, "a proposal")
        return self.waiting()[0]

    def approve(self, *words: str) -> dict:
        shown = self.first()
        if words:
            shown = json.loads(self._cli("approvals", "show", shown["id"], *words, "--json").stdout)
        what = f"{shown['id']}@{shown['digest']}"
        done = self._cli("approvals", "approve", what, *words, "--json")
        assert json.loads(done.stdout)[0]["state"] == "applied", (done.stdout, done.stderr)
        return shown

    def reject(self) -> None:
        assert self._cli("approvals", "reject", self.first()["id"]).code == 0

    def close(self) -> None:
        self.inbox.stdin.close()
        self.inbox.wait(20)
        self.inbox.stdout.close()


@pytest.fixture
def desk(place, cli, repository):
    made = Desk(place, cli)
    yield made
    made.close()


def bottle(place, upstream) -> None:
    route = {"host": "one.example.org", "protocol": "http", "paths": ["/old"], "upstream": upstream.where}
    write_bottle(place, supervise=True, egress={"routes": [route], "ask": ["one.example.org"]})


CLIENTS = {
    "curl": 'curl -sS -o /dev/null -w "%{http_code}" http://one.example.org/new',
    "python": "python3 -c \"import urllib.request as u; print(u.urlopen('http://one.example.org/new').status)\"",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_waits_and_gets_its_answer_once_it_is_approved(client, place, cli, desk, upstream):
    bottle(place, upstream)
    write_script(place, "ask", CLIENTS[client])
    done = {}
    agent = threading.Thread(target=lambda: done.update(run=cli("start", "ask", "--headless")))
    agent.start()
    shown = desk.approve()
    agent.join(60)
    assert "200" in done["run"].stdout, done["run"].stderr
    assert ["/new" in line for line in shown["added"]] == [True]
    assert desk.waiting() == []


def test_once_is_for_one_request_and_a_no_is_said(place, cli, desk, upstream):
    bottle(place, upstream)
    get = 'curl -sS -o /dev/null -w "%{http_code} " http://one.example.org/new'
    write_script(place, "ask", f"{get}; {get}")
    done = {}
    agent = threading.Thread(target=lambda: done.update(run=cli("start", "ask", "--headless")))
    agent.start()
    desk.approve("--for", "once")
    wait_for(desk.waiting, "the second one waits as well")
    desk.reject()
    agent.join(60)
    assert "200 403" in done["run"].stdout, (done["run"].stdout, done["run"].stderr)


def test_a_request_with_a_secret_goes_on_as_it_is_once_it_may(place, cli, desk, upstream):
    write_bottle(
        place,
        supervise=True,
        sensitive={"told": {"env": "TOLD"}},
        egress={
            "secrets": {"on_match": "hold"},
            "routes": [
                {"host": "one.example.org", "protocol": "http", "upstream": upstream.where}
            ],
        },
    )  # fmt: skip
    send = f'curl -sS -o /dev/null -w "%{{http_code}} " -d "a {TOLD}" http://one.example.org/x'
    write_script(place, "ask", f"{send}; {send}")
    done = {}
    agent = threading.Thread(
        target=lambda: done.update(run=cli("start", "ask", "--headless", env={"TOLD": TOLD}))
    )
    agent.start()
    shown = desk.approve("--for", "once")
    assert TOLD not in json.dumps(shown)
    wait_for(desk.waiting, "the next one waits as well")
    desk.reject()
    agent.join(60)
    assert "200 403" in done["run"].stdout, (done["run"].stdout, done["run"].stderr)
    assert upstream.posted == [f"a {TOLD}".encode()]


def test_when_nobody_is_there_it_is_refused_at_once_and_a_late_yes_counts_for_the_next_try(
    place, cli, repository, upstream
):
    bottle(place, upstream)
    get = "curl -sS http://one.example.org/new"
    place.run(["mkfifo", "go"])
    write_script(place, "ask", f"{get}; cat go; {get}")
    done = {}
    words = ("start", "ask", "--headless", "--workspace", "mount")
    agent = threading.Thread(target=lambda: done.update(run=cli(*words)))
    agent.start()

    def waiting() -> list[dict]:
        return json.loads(cli("approvals", "list", "--json").stdout)

    wait_for(waiting, "it is kept")
    [shown] = waiting()
    assert cli("approvals", "approve", f"{shown['id']}@{shown['digest']}").code == 0
    place.run(["sh", "-c", "echo > go"])
    agent.join(60)
    said = done["run"].stdout
    assert '"reason": "held_absent"' in said
    assert said.endswith("yes"), (said, done["run"].stderr)
