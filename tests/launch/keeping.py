"""A keeper's part in approvals without a bottle: a real store, real changes, and a bundle that confirms when the test says so."""

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bot_bottle.bundle.model import BundleConfig
from bot_bottle.door.model import listeners_for
from bot_bottle.errors import SandboxError
from bot_bottle.host import locks
from bot_bottle.launch.asks import Around, Asks
from bot_bottle.launch.change import Change, Changes
from bot_bottle.operate.approvals import Approvals
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.state.model import RunRecord
from bot_bottle.state.patient import PatientStore
from bot_bottle.state.store import Store

BASE = EgressPolicy(routes=(Route("known.example.org", 443),))


def record(run: str, *, bottle: str = "default", run_path: str = "/nonexistent") -> RunRecord:
    return RunRecord(run, "fixer", bottle, "namespace", "running", "/w", "copy", run_path, "/s", 1.0)


class Clock:
    """The real one, and as far ahead as the test wants."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Kept:
    """A run as `Asks` and `Changes` know it. With `confirms`, its bundle takes every policy at once."""

    def __init__(self, path: Path, run: str = "fixer-ab12", *, policy: EgressPolicy = BASE, trust: object = (),
                 confirms: bool = True, bottle: str = "default") -> None:  # fmt: skip
        self.path = str(path)
        self.store = PatientStore.over(Store.open(self.path), run)
        self.store.begin_loop()
        self.policy = policy
        self.plan = SimpleNamespace(id=run, trust=trust, bottle_file=str(path.parent / "default.md"))
        self.has_way_out = True
        self.engine = None
        self.gate: Any = None
        self.restarts = 0
        self.confirms = confirms
        self.refuses: Callable[[EgressPolicy], str] = lambda _: ""
        self.starts = True
        self.orders: list[Mapping[str, Any]] = []
        self.said: list[Mapping[str, Any]] = []
        self.events: list[tuple[str, Mapping[str, object]]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.enforced: list[EgressPolicy] = [policy]
        """Every policy that the bundle has ever had in force, in order."""
        self.clock = Clock()
        self.present = True
        self.notified: list[str] = []
        config = BundleConfig(run, 1, policy, listeners_for(policy), 1, 1)
        self.sidecar = SimpleNamespace(config=config, order=self._order, tell=self.said.append)
        self.changes = Changes(self, self.after)  # type: ignore[arg-type]
        self.asks = Asks(
            self,  # type: ignore[arg-type]
            self.store,
            Around(
                lambda: self.changes,
                self.after,
                lambda: self.present,
                self.notified.append,
                self.clock,
                self.clock,
            ),
        )
        self._numbers = itertools.count(1)
        folder = path.parent / f"run-{run}"
        folder.mkdir()
        self.lock = locks.hold(locks.keeper_lock(str(folder)))
        self.store.add_run(record(run, bottle=bottle, run_path=str(folder)))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.timers.append((seconds, act))

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for _, act in timers:
            act()

    def open_further(self, listeners: object) -> None:
        """Every port opens."""

    def fresh(self, policy: EgressPolicy) -> EgressPolicy:
        return self.asks.holding.fresh(policy)

    def start_anew(self, policy: EgressPolicy) -> None:
        self.has_way_out = self.starts
        if not self.starts:
            raise SandboxError("The bundle did not become ready")
        self.enforced.append(policy)

    def record(self, kind: str, data: Mapping[str, object]) -> None:
        self.events.append((kind, data))

    def _order(self, message: Mapping[str, Any]) -> None:
        self.orders.append(message)
        if self.confirms:
            self.confirm()

    def confirm(self) -> None:
        """The bundle follows its last order."""
        policy = EgressPolicy.from_document(self.orders[-1]["policy"])
        if why := self.refuses(policy):
            self.changes.hear({"policy_refused": why})
        else:
            self.enforced.append(policy)
            self.changes.hear({"policy": policy.fingerprint()})

    # As the supervise process

    def ask(self, tool: str = "pipelock-block", **arguments: Any) -> list[dict[str, Any]]:
        """Calls a tool; the list that its answers arrive in."""
        answers: list[dict[str, Any]] = []
        self.asks.hear({"ask": next(self._numbers), "tool": tool, "arguments": arguments}, answers.append)
        return answers

    def wait_for(self, proposal: str) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        self.asks.hear({"await": next(self._numbers), "proposal": proposal}, answers.append)
        return answers

    def reload(self, base: EgressPolicy) -> dict[str, Any]:
        """As `wishes.py` does it."""
        outcomes: list[dict[str, Any]] = []
        self.changes.ask(Change(base, "me", "reload", "", outcomes.append, lambda: self.asks.over(base)))
        if outcomes and outcomes[0]["applied"]:
            self.asks.rebased(base)
        return outcomes[0]

    def desk(self) -> Approvals:
        """An operator's, with a connection of its own."""
        return Approvals(Store.open(self.path), who="me (uid 0)")

    def die(self) -> None:
        """As for those who look from outside."""
        assert self.lock is not None
        self.lock.release()

    def close(self) -> None:
        self.die()
        self.store.close()
