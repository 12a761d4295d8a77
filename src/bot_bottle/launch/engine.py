"""The keeper's side of the second engine: started before the bundle that dials through it, heard, told new policies, ended.

What it logs becomes events through the same `Record` that the bundle's decisions go through, so an agent can fill the disk with
neither. `apply` is what a reload calls, before it hands the policy to the bundle: in between only what both allow passes.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bot_bottle.bundle.record import Record
from bot_bottle.engines.pipelock import config, log, program
from bot_bottle.engines.pipelock.process import Pipelock, Settings
from bot_bottle.errors import BotBottleError, SandboxError
from bot_bottle.events import NewEvent
from bot_bottle.plan.model import RunPlan
from bot_bottle.policy.model import EgressPolicy

if TYPE_CHECKING:
    from bot_bottle.launch.session import Session

RESTARTS = 3
FOLDER = "pipelock"
"""Its config's folder, below the run's."""


class Engine:
    """pipelock for one run. `died` counts its deaths; `fileno` is readable when `events` has something, or it has ended."""

    def __init__(self, plan: RunPlan) -> None:
        """Raises HostError when pipelock is not there or too old."""
        path = program.find()
        self.version = program.version(path)
        self.died = 0
        self._run = plan.id
        self._policy = plan.egress
        self._told: list[dict[str, Any]] = []
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._record = Record(self, clock=time.monotonic, later=self._later)
        folder = os.path.join(plan.paths.run, FOLDER)
        self._pipelock = Pipelock(
            Settings(program=path, folder=folder, uid=plan.bundle_uid, gid=plan.bundle_gid), plan.egress
        )

    @property
    def port(self) -> int:
        return self._pipelock.port

    @property
    def pid(self) -> int:
        return self._pipelock.pid

    def fileno(self) -> int:
        return self._pipelock.fileno()

    def start(self) -> None:
        """Starts it, and does not wait for it. Raises SandboxError."""
        self._pipelock.start()

    def wait_ready(self) -> None:
        """Until it has been seen to enforce the policy. Raises SandboxError, HostError."""
        self._pipelock.wait_ready()

    def restart(self) -> None:
        """Once more on the same port with the same policy. Raises SandboxError, HostError; then it does not run."""
        self._pipelock.stop()
        try:
            self._pipelock.start()
            self._pipelock.wait_ready()
        except BaseException:
            self._pipelock.stop()
            raise

    def apply(self, policy: EgressPolicy) -> None:
        """Makes it enforce `policy` and waits until it has said so; before the bundle gets it.

        Raises SandboxError when it doesn't. Then it enforces what it did before, or has ended: the door is closed.
        """
        if policy.engine != self._policy.engine:
            raise SandboxError(
                "The engine can't be changed while a bottle runs",
                details=f"{self._policy.engine} runs, {policy.engine} is wanted",
                resolution="Start the bottle again.",
            )
        self._pipelock.apply(policy)
        self._policy = policy

    def facts(self) -> dict[str, str]:
        """What the record keeps of it."""
        return {"version": self.version, "config": config.fingerprint(self._pipelock.config)}

    def events(self) -> list[NewEvent] | None:
        """What it has logged since, as events; None when it has ended."""
        lines = self._pipelock.read()
        for line in lines or ():
            if found := log.event(line):
                self._record.event(*found)
        if self._pipelock.unreadable:
            data = {"via": log.VIA, "reason": "log_unreadable", "lines": self._pipelock.unreadable}
            self._pipelock.unreadable = 0
            self._record.event("egress.failed", data)
        self._act_on_time()
        return None if lines is None and not self._told else self._taken()

    def stop(self) -> list[NewEvent]:
        """Ends it; its last events. Idempotent."""
        last = self.events() or []
        self._pipelock.stop()
        self._record.flush()
        return [*last, *self._taken()]

    # What a Record asks of whoever it tells

    def has_room(self) -> bool:
        return True

    def tell(self, message: dict[str, Any], /) -> None:
        self._told.append(message)

    def _later(self, delay: float, callback: Callable[[], None], /) -> None:
        self._due.append((time.monotonic() + delay, callback))

    def _act_on_time(self) -> None:
        now = time.monotonic()
        due = [callback for at, callback in self._due if at <= now]
        self._due = [item for item in self._due if item[0] > now]
        for callback in due:
            callback()

    def _taken(self) -> list[NewEvent]:
        told, self._told = self._told, []
        return [NewEvent(self._run, item["at"], item["event"], item["data"]) for item in told]


class EngineKeeper:
    """Keeps the engine of one run: heard while a session serves, started again when it dies, at most `RESTARTS` times.

    `tell` says something to the bundle, `append` and `record` put events into the record, `warn` is for the person.
    """

    def __init__(
        self,
        plan: RunPlan,
        *,
        tell: Callable[[dict[str, object]], None],
        append: Callable[[list[NewEvent]], object],
        record: Callable[[str, dict[str, object]], None],
        warn: Callable[[str], None],
    ) -> None:
        """Raises HostError when there is none that could be used."""
        self._engine = Engine(plan)
        self._tell, self._append, self._record, self._warn = tell, append, record, warn
        self._session: Session | None = None

    @property
    def port(self) -> int:
        return self._engine.port

    def start(self) -> None:
        """Raises SandboxError."""
        self._engine.start()

    def wait_ready(self) -> None:
        """Raises SandboxError, HostError."""
        self._engine.wait_ready()

    def facts(self) -> dict[str, str]:
        return self._engine.facts()

    def serve(self, session: "Session") -> None:
        """Hears it in the session's loop from now on."""
        self._session = session
        session.watch(self._engine, self._hear)

    def leave(self) -> None:
        """Hears it no more."""
        if self._session:
            self._session.forget(self._engine)
            self._session = None

    def bundle_began(self) -> None:
        """After another bundle took the place of the one that was told."""
        if not self._engine.pid:
            self._tell({"engine": False})

    def apply(self, policy: EgressPolicy) -> None:
        """As `Engine.apply`; one that had to be ended over it is started again with what it enforced before."""
        try:
            self._engine.apply(policy)
        except SandboxError:
            if not self._engine.pid:
                self._again()
            raise

    def stop(self) -> list[NewEvent]:
        """Ends it; its last events. Idempotent."""
        return self._engine.stop()

    def _hear(self) -> None:
        events = self._engine.events()
        if events:
            self._append(events)
        elif events is None:
            self._again()

    def _again(self) -> None:
        session = self._session
        if session is None:
            return
        session.forget(self._engine)
        why = revive(
            self._engine, most=RESTARTS, tell=lambda up: self._tell({"engine": up}), note=self._record
        )
        if why:
            self._warn(why)
        else:
            session.watch(self._engine, self._hear)


def revive(
    engine: Engine, *, most: int, tell: Callable[[bool], None], note: Callable[[str, dict[str, object]], None]
) -> str:
    """Starts an engine that died again; empty when it runs, else why it won't: it has died or failed `most` times.

    A dead engine is a door that leads nowhere. `tell` tells the bundle whether it runs, `note` the record.
    """
    tell(False)
    why = ""
    while engine.died < most:
        engine.died += 1
        note("door.closed", {"why": "pipelock died", "times": engine.died})
        try:
            engine.restart()
        except BotBottleError as error:
            why = f" ({error.brief})"
            continue
        tell(True)
        note("door.opened", {"pipelock": engine.died})
        return ""
    engine.stop()
    note("door.closed", {"why": "pipelock died", "times": engine.died + 1})
    return f"Pipelock died again and again{why}; what went through it has had no way out since."
