"""Area `approvals`: from an ask to the inbox, from a yes to the proxy, and many decided at once.

A real bottle with a real keeper and bundle. What its agent would ask is said to the keeper as the process says it that serves the
agent; whether a yes is in force is seen from inside, by a client that asks the proxy again and again.
"""

import contextlib
import http.server
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bot_bottle.host import locks
from bot_bottle.operate.approvals import Approvals
from bot_bottle.policy.approval import Approval, Proposal
from bot_bottle.policy.approval_change import Standing, change_for
from bot_bottle.policy.approval_intake import ask_of
from bot_bottle.state.model import RunRecord
from bot_bottle.state.proposals import Proposals
from bot_bottle.state.store import Store
from bot_bottle.testing.asking import Asker
from measure import Figure, NotMeasured, figure
from place import Place

BOTTLES, EACH = 20, 16
WITHIN = 20.0
YARDSTICK = "NVIDIA OpenShell's targets, p50 and p95"
BOTTLE = """---
backend: namespace
egress:
  routes:
    - {{host: one.example.org, protocol: http, paths: ["/none"], upstream: "127.0.0.1:{port}"}}
---
"""
AGENT = """---
provider: command
bottle: asking
command: ["python3", "-S", "probe.py"]
---
"""
PROBE = """
import http.client, time
while True:
    with open("asks") as asks:
        path = asks.read().strip()
    first = True
    while True:
        proxy = http.client.HTTPConnection("127.0.0.1", 3128)
        proxy.request("GET", "http://one.example.org" + path)
        passed = proxy.getresponse().status == 200
        seen = time.monotonic()
        proxy.close()
        if first or passed:
            with open("answers", "w") as answers:
                answers.write(f"{int(passed)} {seen}")
        if passed:
            break
        first = False
        time.sleep(0.001)
"""
Progress = Any


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Nothing."""


def measure(place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """Every line of the area."""
    os.environ["HOME"] = str(place.home)  # whose store the desk opens
    with contextlib.ExitStack() as stack:
        run_path = stack.enter_context(_bottle(place))
        asker = Asker(run_path)
        stack.callback(asker.close)
        desk = stack.enter_context(Approvals.open())
        visible, enforced = [], []
        for number in range(-1, 3 * runs):
            progress(f"asked, approved, enforced: {max(0, number + 1)}/{3 * runs}")
            times = _round(place, asker, desk, f"/asked-{number + 1}")
            if number >= 0:
                visible.append(times[0] * 1000)
                enforced.append(times[1] * 1000)
    yield from _figures("asked to visible in an inbox", visible, (2000, 5000))
    yield from _figures("decided to enforced, seen at the proxy", enforced, (1000, 3000))
    progress(f"{BOTTLES * EACH} decided at once")
    batches = [_batch(place.root / f"batch-{number}") for number in range(max(3, runs // 4))]
    seconds = statistics.median(batches)
    name = f"{BOTTLES * EACH} proposals of {BOTTLES} bottles decided in one batch"
    yield figure("approvals", name, seconds, "s", goal="at most 2 s", ok=seconds <= 2)


def _figures(name: str, times: list[float], theirs: tuple[int, int]) -> Iterator[Figure]:
    cuts = statistics.quantiles(times, n=20)
    for label, value, goal, yardstick in (
        ("p50", statistics.median(times), 150, theirs[0]),
        ("p95", cuts[18], 500, theirs[1]),
    ):
        yield figure(
            "approvals",
            f"{name}, {label}",
            value,
            "ms",
            yardstick=YARDSTICK,
            yardstick_value=float(yardstick),
            goal=f"at most {goal} ms",
            ok=value <= goal,
        )


@contextlib.contextmanager
def _bottle(place: Place) -> Iterator[str]:
    """A running bottle whose agent probes; its run folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (place.home / ".bot-bottle/bottles/asking.md").write_text(BOTTLE.format(port=server.server_address[1]))
    (place.home / ".bot-bottle/agents/prober.md").write_text(AGENT)
    (place.workspace / "probe.py").write_text(PROBE)
    for name in ("asks", "answers"):
        os.mkfifo(place.workspace / name)
        os.chmod(place.workspace / name, 0o666)
    for folder in (place.root, place.workspace):
        folder.chmod(0o777)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "bot_bottle.testing.asking", "prober", "unlimited"],
        cwd=place.workspace, env=place.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    try:
        line = keeper.stdout.readline()
        if not line:
            raise NotMeasured(f"no bottle could be started: {keeper.stderr.read().decode()[-500:]}")
        yield str(json.loads(line)["run_path"])
    finally:
        keeper.terminate()
        keeper.wait()
        server.shutdown()
        server.server_close()


def _round(place: Place, asker: Asker, desk: Approvals, path: str) -> tuple[float, float]:
    """One ask and its approval: seconds until it is in the inbox, and from the yes until the proxy lets it through."""
    asked = time.monotonic()
    call = asker.ask(
        "pipelock-block", urls=[f"http://one.example.org{path}"], methods=["GET"], reason="to measure"
    )
    shown = None
    while shown is None:
        shown = next((each for each in desk.waiting() if any(path in line for line in each.added)), None)
        if shown is None:
            desk.changed(WITHIN)
    visible = time.monotonic() - asked
    (place.workspace / "asks").write_text(path)
    if _answer(place.workspace)[0]:
        raise NotMeasured("the proxy let through what nobody had approved")
    decided = time.monotonic()
    [done] = desk.approve([Approval(shown.proposal.id, shown.digest, shown.terms)], wait=0)
    if done.problem:
        raise NotMeasured(f"the approval did not count: {done.problem}")
    passed, seen = _answer(place.workspace)
    if not passed or asker.final(call)["state"] != "applied":
        raise NotMeasured("the approval was not enforced")
    [grant] = desk.grants()
    desk.withdraw(grant.id)  # so that every round begins with the same policy
    return visible, seen - decided


def _answer(workspace: Path) -> tuple[bool, float]:
    passed, seen = (workspace / "answers").read_text().split()
    return passed == "1", float(seen)


def _batch(folder: Path) -> float:
    """Seconds to decide what many bottles ask for in one batch; their keepers are not there."""
    folder.mkdir()
    held: list[locks.Held | None] = []
    with Store.open(str(folder / "store.db")) as store:
        proposals = Proposals(store)
        for number in range(BOTTLES):
            run, place = f"fixer-{number:04d}", folder / str(number)
            place.mkdir()
            held.append(locks.hold(locks.keeper_lock(str(place))))  # as their keepers would
            store.add_run(
                RunRecord(
                    run, "fixer", "default", "namespace", "running", "/w", "copy", str(place), "/s", 1.0
                )
            )
            for index in range(EACH):
                ask = ask_of("pipelock-block", {"hosts": [f"h{index}.example{number}.org"]})
                assert not isinstance(ask, str)
                now = time.time()
                routes = change_for(ask, Standing()).routes
                proposals.add(
                    Proposal(f"p{number}-{index}", run, ask, routes, "pending", now, now + 900), Standing()
                )
    with Approvals(Store.open(str(folder / "store.db"))) as desk:
        approvals = [Approval(each.proposal.id, each.digest, each.terms) for each in desk.waiting()]
        before = time.perf_counter()
        done = desk.approve(approvals, wait=0)
        taken = time.perf_counter() - before
    for lock in held:
        if lock:
            lock.release()
    if len(done) != BOTTLES * EACH or any(each.problem for each in done):
        raise NotMeasured("not all of them were decided")
    return taken
