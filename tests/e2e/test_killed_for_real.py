"""kill -9 at 220 random points of a proposal's life: a real bottle, its real processes, and an agent that asks by the real SDK.

Who dies: an operator's command (at a random call of a function of ours), the server that the agent asks, the bundle, or the
keeper (each once it has used a random part of the processor time that its part of the work takes). After each, everything goes
on with what is left. What was acknowledged to whom, and what the door did then, is compared with what the record says in the end.

What is drawn follows from a number that a failure shows; `BOT_BOTTLE_SEED` sets it.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sysconfig
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_web_inbox import Page as WebPage  # type: ignore[import-not-found]

from support.bottles import write_agent, write_bottle
from support.killing import Killer, alive, used
from support.operators import Ended, Operators
from support.place import python
from support.waiting import wait_for

pytestmark = [pytest.mark.namespace, pytest.mark.slow, pytest.mark.timeout(600)]

INSIDE = Path(__file__).parents[1] / "support" / "agent_inside.py"
SDK = (
    "_brotli annotated_types anyio attr backports brotli certifi _cffi_backend cffi click cryptography h11 h2 hpack httpcore2 "
    "httpx2 hyperframe idna jsonschema mcp opentelemetry pydantic python_multipart referencing rpds sniffio sse_starlette "
    "starlette truststore typing_extensions typing_inspection uvicorn"
).split()
KEEPER = """
from bot_bottle.launch import asks
asks.BURST = 1 << 20  # one agent asks as much here as many
from bot_bottle.cli.main import entry
entry()
"""
PRESENT = """
import sys
from bot_bottle.operate.presence import present
with present():
    print(1, flush=True)
    sys.stdin.read()
"""
SEED = os.environ.get("BOT_BOTTLE_SEED", "")
VICTIMS = ("operator",) * 7 + ("supervise",) * 2 + ("bundle",)
"""Of one bottle, in an order that is drawn; its keeper dies last."""
PARTS, BOTTLES = 5, 2
INBOXES = 6
PROCESSES = ("keeper", "supervise", "bundle")
FINAL = ("applied", "failed", "rejected", "expired", "withdrawn")


class Upstream(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # the bundle that wanted it was killed
            self.wfile.write(b"yes")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def operators(place):
    """The operator's commands; and an inbox is open all the time."""
    inbox = subprocess.Popen(
        place.argv([*python(), "-c", PRESENT]), env=place.environment, cwd=place.home,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    made = Operators(place)
    with inbox:
        assert inbox.stdout.readline() == b"1\n"
        yield made
        inbox.stdin.close()
    made.close()


@pytest.fixture
def sdk(place, repository, upstream):
    """The bottle, and its agent with what it needs of Python's packages, which a bottle does not have."""
    packages = Path(sysconfig.get_path("purelib"))
    (place.workspace / "lib").mkdir()
    for pattern in SDK:
        for found in packages.glob(f"{pattern}*"):
            target = place.workspace / "lib" / found.name
            shutil.copytree(found, target) if found.is_dir() else shutil.copy(found, target)
    shutil.copy(INSIDE, place.workspace / "agent.py")
    place.run(["mkfifo", "asks"])
    route = {"host": "one.example.org", "protocol": "http", "paths": ["/old"], "upstream": upstream}
    file = write_bottle(place, supervise=True, egress={"routes": [route]})
    write_agent(place, "asker", ["python3", "/workspace/agent.py"])
    return file


class Bottle:
    """A run, its processes, and all that anybody was told about its proposals."""

    patience = 60.0
    """Seconds for the agent to ask for the next thing."""

    def __init__(self, place, operators: Operators, draw: random.Random) -> None:
        self.place, self.operators, self.draw = place, operators, draw
        place.run(["rm", "-f", "told"])
        words = ("start", "asker", "--headless", "--detach", "--json", "--workspace", "mount")
        started = place.run([*python(), "-c", KEEPER, *words])
        assert started.code == 0, started.stderr
        self.run: str = json.loads(started.stdout)["id"]
        self.stem = self.run
        self.keeper = keeper_of(self.run, place)
        self.number = 0
        self.terms: dict[int, str] = {}
        self.acknowledged: list[dict[str, Any]] = []
        self.spans: dict[str, int] = {}
        self.killed: list[str] = []
        wait_for(lambda: self.told(ready=True), "the agent to begin")

    def told(self, **wanted: Any) -> list[dict[str, Any]]:
        """What the agent has said with `wanted` in it."""
        path = self.place.workspace / "told"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if wanted.items() <= line.items()]

    def order(self, **what: Any) -> None:
        with open(self.place.workspace / "asks", "w") as asks:
            asks.write(json.dumps(what) + "\n")

    # The processes

    def child(self, called: str) -> int:
        """The process that does this; 0 while there is none."""
        if called == "keeper":
            return self.keeper
        with contextlib.suppress(OSError):
            for word in Path(f"/proc/{self.keeper}/task/{self.keeper}/children").read_text().split():
                command = Path(f"/proc/{word}/cmdline").read_bytes()
                status = Path(f"/proc/{word}/status").read_text()
                confined = "Seccomp:\t2" in status
                if called == "supervise" and b"bundle.supervise import main" in command and confined:
                    return int(word)
                if (
                    called == "bundle"
                    and confined
                    and b"bundle.supervise" not in command
                    and b"bwrap" not in command
                ):
                    return int(word)
        return 0

    # A proposal's life

    def live(self, victim: str = "") -> None:
        """One ask from beginning to end, in which `victim` dies."""
        self.number += 1
        scopes = ["bottle", "30m", "manifest", "reject", *(["once"] if victim != "bundle" else [])]
        self.terms[self.number] = terms = "bottle" if not victim else self.draw.choice(scopes)
        others = {} if victim else {name: self.child(name) for name in PROCESSES}
        before = {name: used(pid) for name, pid in others.items()}
        killer = None
        try:
            if victim in PROCESSES and (pid := self.child(victim)):
                killer = self.killer(victim, pid)
            self.order(ask=f"http://one.example.org{self.path}", number=self.number)
            if victim in PROCESSES and killer is None:  # the server begins when somebody comes
                killer = self.killer(victim, wait_for(lambda: self.child(victim), f"the {victim}"))
            self.decide(terms, dies_at=self.draw.randint(1, self.spans[terms]) if victim == "operator" else 0)
            wait_for(lambda: self.over(terms), f"an end of {self.number}")
        finally:
            if killer:
                killer.now()
                self.killed += [victim] if killer.early else []
        if not victim:
            self.spans = {name: used(pid) - before[name] for name, pid in others.items()}
            self.spans |= dict.fromkeys(("bottle", "30m", "manifest", "reject", "once"), self.calls)

    def killer(self, victim: str, pid: int) -> Killer:
        return Killer(pid, self.draw.randint(0, self.spans[victim]))

    def live_by(self, page: "Page", after: int) -> None:
        """One ask, to which a person says yes at `page`, whose server dies when it has done so much; 0: it does not."""
        self.number += 1
        self.terms[self.number] = "bottle"
        self.order(ask=f"http://one.example.org{self.path}", number=self.number)
        row = wait_for(self.row, f"the proposal {self.number}")
        self.acknowledged += [
            each for each in page.approve(row["id"], after=after) if not each.get("problem")
        ]
        wait_for(lambda: self.over("bottle"), f"an end of {self.number}")

    def over(self, terms: str) -> bool:
        """Whether the agent has its answer, or nobody is there who could give one."""
        if self.gone() or any("final" in line for line in self.told(number=self.number)):
            return True
        if (row := self.row()) and row["state"] == "pending":  # it never heard the no, and asked again
            self.decide(terms, dies_at=0)
        return False

    @property
    def path(self) -> str:
        return f"/{self.stem}/{self.number}"

    def gone(self) -> bool:
        return not alive(self.keeper)

    def row(self) -> dict[str, Any] | None:
        """The last ask's proposal as the operator sees it, what waits first."""
        every = self.operators.json("approvals", "list", "--all")
        return next((row for row in every if row["title"].endswith(self.path)), None)

    def decide(self, terms: str, dies_at: int) -> None:
        """Decides what waits; when the operator died, another one does what is left to do."""
        while True:
            row = wait_for(
                lambda: self.row() or self.gone(), f"the proposal {self.number}", within=self.patience
            )
            if row is True or row["state"] != "pending":
                return
            words = ["approvals", "reject", row["id"], "--may-ask-again"]
            if terms != "reject":
                shown = self.operators.run("approvals", "show", row["id"], "--for", terms, "--json")
                if shown.code:
                    continue  # the keeper has died since
                words = [
                    "approvals",
                    "approve",
                    f"{row['id']}@{json.loads(shown.stdout)['digest']}",
                    "--for",
                    terms,
                ]
            done = self.operators.run(*words, "--json", dies_at=dies_at)
            self.calls = done.calls
            self.killed += ["operator"] if done.killed else []
            self.acknowledge(done)
            dies_at = 0
            if self.gone():
                return

    def acknowledge(self, done: Ended) -> None:
        with contextlib.suppress(ValueError):  # it died in the middle of its sentence, or before
            self.acknowledged += [each for each in json.loads(done.stdout) if not each.get("problem")]

    # What must hold

    def check(self) -> Counter[str]:
        rows = {
            row["id"]: row
            for row in self.operators.json("approvals", "list", "--all")
            if row["run"] == self.run
        }
        lines = self.operators.run("events", self.run, "--json").stdout.splitlines()
        events = [json.loads(line) for line in lines]
        kinds = Counter((event["kind"], event["data"].get("proposal")) for event in events)
        changes = [event["data"]["added"] for event in events if event["kind"] == "policy.changed"]
        said = self.told()
        for one in said:
            if (answer := one.get("answer")) and not answer.get("proposal_id"):
                assert answer["message"].startswith("ALLOWED ALREADY"), (
                    one
                )  # it never heard the yes, and asked again
            elif answer:
                assert answer["proposal_id"] in rows, one  # what was acknowledged is there
                if answer["status"] in FINAL:
                    assert rows[answer["proposal_id"]]["state"] == answer["status"], one
            if "final" in one:  # and what the agent was told is what its door does
                assert one["code"] == (200 if one["final"] == "applied" else 403), (
                    one,
                    self.terms[one["number"]],
                )
        for decided in self.acknowledged:
            kept = rows[decided["id"]]["state"]
            assert kept == "rejected" if decided["state"] == "rejected" else kept in ("applied", "failed"), (
                decided
            )
            assert decided["state"] != "applied" or kept == "applied"
        asked = Counter(row["title"] for row in rows.values())
        again = sum(count - 1 for count in asked.values())
        assert {row["state"] for row in rows.values() if asked[row["title"]] > 1} <= {"rejected", "withdrawn"}
        assert len(rows) - again in (self.number, self.number - 1)
        for name, row in rows.items():
            number = int(row["title"].rpartition("/")[2])
            terms, path = self.terms[number], f'"/{self.stem}/{number}"'
            applied = row["state"] == "applied"
            assert row["state"] in FINAL, row
            assert kinds["proposal.made", name] == 1
            assert kinds["proposal.applied", name] == applied
            assert kinds["proposal.approved", name] <= 1
            assert kinds["proposal.rejected", name] == (row["state"] == "rejected")
            enforced = sum(path in line for added in changes for line in added)
            assert enforced == 1 if applied else enforced <= 1, (row, enforced)
            assert not (row["state"] == "rejected" and enforced)
            ended = [
                event
                for event in events
                if event["kind"] == "grant.ended" and event["data"]["proposal"] == name
            ]
            assert len(ended) == applied
            written = self.file.read_text().count(path)
            assert written == 1 if applied and terms == "manifest" else written <= (terms == "manifest"), row
        return Counter(row["state"] for row in rows.values())

    @property
    def file(self) -> Path:
        return self.place.home / ".bot-bottle/bottles/default.md"


class Page(WebPage):
    """`bot-bottle inbox --web` and a browser's requests; `used` is how much work a whole decision was."""

    span = 0

    def __enter__(self) -> "Page":
        assert self.client.sign_in(self.link).status == 200
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def approve(self, name: str, *, after: int) -> list[dict[str, Any]]:
        """What the page says became of it; nothing when its server was killed, once it had done so much."""
        [shown] = self.client.post("/api/look", {"ids": [name], "on": {"scope": "bottle"}}).json["shown"]
        wanted = {"approvals": [{"id": name, "digest": shown["digest"], "on": {"scope": "bottle"}}]}
        before = used(self.process.pid)
        killer = Killer(self.process.pid, after) if after else None
        try:
            answer = self.client.post("/api/approve", wanted)
            self.used = used(self.process.pid) - before
            return answer.json["decided"] if answer.status == 200 else []
        except (OSError, ValueError, IndexError):
            return []
        finally:
            if killer:
                killer.now()


def keeper_of(run: str, place) -> int:
    """The process that keeps `run`."""
    from bot_bottle.launch import control

    with control.connect(str(place.home / ".local/state/bot-bottle/run" / run), {"want": "policy"}) as client:
        return control.peer(client)[0]


@pytest.mark.parametrize("part", range(PARTS))
def test_whoever_is_killed_nothing_said_is_lost_and_nothing_is_done_twice(place, operators, sdk, part):
    seed = SEED or f"{os.urandom(4).hex()} {part}"
    draw = random.Random(seed)
    print(f"BOT_BOTTLE_SEED={seed!r}")
    for _ in range(BOTTLES):
        bottle = Bottle(place, operators, draw)
        bottle.live()
        bottle.live()  # the first began the server; this one says how much work each has
        for victim in draw.sample(VICTIMS, len(VICTIMS)):
            bottle.live(victim)
        for _ in range(6):  # one that was done before its hour is no death
            if bottle.killed.count("operator") < 4:
                bottle.live("operator")
        bottle.live("keeper")
        assert bottle.gone()
        wait_for(lambda: operators.run("cleanup").code == 0, "cleanup")
        states = bottle.check()
        assert states["applied"] + states["rejected"] >= len(VICTIMS), (seed, states)
        assert bottle.killed.count("operator") >= 4, bottle.killed
        assert operators.run("verify").code == 0
        assert operators.json("approvals", "grants") == []
        assert list(sdk.parent.glob("*.new")) == []
        print(Counter(bottle.killed), states)


def test_an_inbox_that_is_killed_while_it_decides_leaves_it_decided_once_or_not_at_all(place, operators, sdk):
    """The page's server, while a person says yes."""
    seed = SEED or os.urandom(4).hex()
    draw = random.Random(seed)
    print(f"BOT_BOTTLE_SEED={seed!r}")
    bottle = Bottle(place, operators, draw)
    bottle.live()
    bottle.live()
    for number in range(INBOXES):
        with Page(place) as page:
            bottle.live_by(page, 0 if number == 0 else draw.randint(0, page.span))
            if number == 0:
                Page.span = page.used
    bottle.live("keeper")
    wait_for(lambda: operators.run("cleanup").code == 0, "cleanup")
    bottle.check()
    assert operators.run("verify").code == 0
