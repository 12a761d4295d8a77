"""The lifecycle of a run: everything is made in order, kept, and removed in the opposite order, whatever happened.

Each step registers its removal before it makes anything. The process that runs this is the run's *keeper*: the
bundle and the sandbox are its children and die with it, and its lock says that it lives.
"""

import gc
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

from bot_bottle.backends.base import Backend, Bottle
from bot_bottle.errors import BotBottleError, HostError
from bot_bottle.events import NewEvent
from bot_bottle.host.secrets import Vault
from bot_bottle.launch import copies, folders
from bot_bottle.launch.bundles import Bundles, Tell
from bot_bottle.launch.output import Log, Outlet, Shown
from bot_bottle.launch.outward import Outside
from bot_bottle.launch.recorded import describe, record_of
from bot_bottle.launch.sidecar import Sidecar
from bot_bottle.launch.signals import Interrupts
from bot_bottle.launch.streams import Streams
from bot_bottle.plan.model import RunPlan
from bot_bottle.state.model import RunRecord
from bot_bottle.state.patient import PatientStore
from bot_bottle.state.store import Store
from bot_bottle.typed import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bot_bottle.launch.gitgate.gate import Gate
    from bot_bottle.launch.session import Session
    from bot_bottle.launch.supervising import Supervising

FAILED = 70
"""The exit code of a run that its keeper could not keep to its end (EX_SOFTWARE, sysexits.h)."""


class Outcome:
    """How a run ended. `phases` are seconds, in order; `exit_code` is the agent's.

    `changed` is whether the bottle worked on a copy and changed something; `bot-bottle diff` shows it.
    """

    def __init__(self, run: str) -> None:
        self.id = run
        self.exit_code = 0
        self.reason = "exited"
        self.phases: dict[str, float] = {}
        self.changed = False
        self.warnings: list[str] = []
        self.told: list[str] = []
        """Those of the warnings that were said when they came up."""


class Surroundings(NamedTuple):
    """What the keeper has around it. `phase` is told the name of each phase as it begins; `ready` that the agent runs.

    `warn` hears at once what goes wrong and ends nothing, `say` what is done.
    """

    store: Store
    backend: Backend
    interrupts: Interrupts
    vault: Vault = Vault()
    outside: Outside = Outside()
    early: Sidecar | None = None
    """A bundle that was forked before there was a plan, to be used where it can."""
    foreground: bool = True
    phase: Callable[[str], None] = lambda _: None
    ready: Callable[[Outcome], None] = lambda _: None
    shown: Callable[[], Shown] | None = None
    warn: Callable[[str], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None
    continues: RunRecord | None = None
    """The run whose kept bottle this one goes on with."""
    asked: Mapping[str, Any] = MappingProxyType({})
    """What the run was asked for, to be kept with it: enough to ask for it again."""
    owner: bool = False
    """Whether an owner's terminal is about to attach: the agent is let go when it is there, and misses no start of it."""


def keep(plan: RunPlan, around: Surroundings) -> Outcome:
    """Carries out `plan` from first folder to last removal and says how it ended.

    Raises BotBottleError when the agent never came to run; then nothing is left but the record of the attempt.
    """
    return _Run(plan, around).keep()


class _Run:
    def __init__(self, plan: RunPlan, around: Surroundings) -> None:
        self.plan = plan
        self.around = around
        self.store = PatientStore.over(around.store, plan.id)
        self.outcome = Outcome(plan.id)
        tell = Tell(self.store.append, self._record, self.outcome.warnings.append, self.store)
        self.bundles = Bundles(plan, around.vault, around.outside, tell)
        self.bottle: Bottle
        self.session: Session | None = None
        self.copying: copies.Copying | None = None
        self.released = self.kept = False
        self.supervising: Supervising | None = None
        self.gate: Gate | None = None

    def keep(self) -> Outcome:
        try:
            with ExitStack() as undo:
                try:
                    self._live(undo)
                except BaseException as error:
                    self.outcome.exit_code = self.outcome.exit_code or FAILED
                    self.outcome.reason = f"failed: {getattr(error, 'brief', type(error).__name__)}"
                    raise
        finally:
            if self.session:
                self.session.dismiss(self.outcome.exit_code, self.outcome.warnings)
        return self.outcome

    def _live(self, undo: ExitStack) -> None:
        self._begin(undo)
        self._find_place(undo)
        self._start_engine(undo)
        self._start_bundle(undo)
        self._copy_workspace(undo)
        session = self._open(undo)
        self._release(session)
        self.store.begin_loop()
        self.outcome.exit_code = session.run()
        self.outcome.reason = session.stop_reason or "exited"
        with self._phase("end"):
            if session.keeps:
                self._keep_bottle()
            self.bottle.destroy()
            self.bundles.leave()
            if self.supervising:
                self.supervising.stop()
            if self.gate:
                self.gate.stop()
            session.drain()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.around.interrupts.checkpoint() if name != "end" else None
        self.around.phase(name)
        before = time.monotonic()
        try:
            yield
        finally:
            self.outcome.phases[name] = self.outcome.phases.get(name, 0.0) + time.monotonic() - before

    # The steps, in order

    def _begin(self, undo: ExitStack) -> None:
        plan = self.plan
        with self._phase("record"):
            lock = folders.make(plan.paths.run)
            undo.callback(lock.release)
            undo.callback(folders.remove, plan.paths.run)
            os.makedirs(plan.paths.state, mode=0o700)
            self.log = Log(os.path.join(plan.paths.state, "output.log"))
            undo.callback(self.log.close)
            self.store.record(
                [self._event("run.planned", describe(plan))], record_of(plan, self.around.backend)
            )
            undo.callback(self._record_end)
            if before := self.around.continues:
                from bot_bottle.launch import kept

                kept.take(before, plan)
                undo.callback(self._give_back, before)

    def _find_place(self, undo: ExitStack) -> None:
        place = self.bundles.place = self.around.backend.place(self.plan)
        if place is None:
            return
        undo.callback(place.close)
        beside = [] if self.plan.egress.engine == "builtin" else [f"egress.engine: {self.plan.egress.engine}"]
        beside += ["git.remotes: the git gate"] if self.plan.git and not place.local else []
        if beside:
            raise HostError(
                "This bottle's bundle is a container of its own, and what runs beside the keeper can't serve it",
                details="\n".join(beside),
                resolution="Take it away, or an engine on this machine without bundle: container.",
            )

    def _start_engine(self, undo: ExitStack) -> None:
        if self.plan.egress.engine != "builtin":
            with self._phase("engine"):
                self.bundles.start_engine(undo)

    def _start_bundle(self, undo: ExitStack) -> None:
        with self._phase("bundle"):
            self.bundles.start(self.around.early, undo)

    def _copy_workspace(self, undo: ExitStack) -> None:
        if self.plan.workspace.mode == "clone":
            from bot_bottle.provision.workspace import make_folder

            make_folder(self.plan)
            return
        if self.plan.workspace.mode != "copy":
            from bot_bottle.launch import mounted

            mounted.remember(self.plan)
            undo.callback(self._flag_workspace)
            return
        with self._phase("workspace"):
            undo.callback(self._save_changes)
            if self.around.continues:
                return
            self.copying = copies.Copying(self.plan)
            undo.callback(self.copying.close)

    def _open(self, undo: ExitStack) -> "Session":
        with self._phase("sandbox"):
            self.bundles.prepare_trust()
            streams = Streams(self.plan.tty)
            undo.callback(streams.close)
            self.bottle = self.around.backend.create(self.plan, streams.inside, meanwhile=self._meanwhile)
            undo.callback(self.bottle.destroy)
            streams.close_inside()
        with self._phase("door"):
            self.bundles.open_door(self.bottle)
            self._supervise(undo)
            self._open_git_gate(undo)
        with self._phase("provision"):
            if self.around.continues:
                from bot_bottle.launch import kept

                kept.restore_home(self.bottle, self.plan)
            if self.plan.files:
                from bot_bottle.provision.pipeline import provision

                provision(self.bottle, self.plan)
            if self.supervising:
                self.supervising.begin_registering(self.bottle)
        with self._phase("policy"):
            self.bundles.wait_ready()
        if self.supervising:
            with self._phase("supervise"):
                self.supervising.finish_registering()
                self.supervising.open_door(self.bottle)
        from bot_bottle.launch import control

        server = control.listen(self.plan.paths.run)
        undo.callback(server.close)
        figures = control.listen(self.plan.paths.run, folders.METRICS)
        undo.callback(figures.close)
        return self._session(server, figures, streams)

    def _supervise(self, undo: ExitStack) -> None:
        if self.plan.supervise:
            from bot_bottle.launch.supervising import Now, Supervising
            from bot_bottle.launch.supervisor import Notes

            notes = Notes(self._record, self.outcome.warnings.append)
            now = Now(self._warn_now, self.around.say)
            self.supervising = Supervising(
                self.plan, self.plan.supervise, self.bundles.asks, notes, now, place=self.bundles.place
            )
            undo.callback(self.supervising.stop)

    def _open_git_gate(self, undo: ExitStack) -> None:
        if self.plan.git:
            from bot_bottle.launch.gitgate.gate import Gate
            from bot_bottle.launch.supervisor import Notes

            notes = Notes(self._record, self.outcome.warnings.append)
            self.gate = Gate(self.plan, self.plan.git, self.around.vault, self.around.outside, notes)
            undo.callback(self.gate.stop)
            self.gate.open_door(self.bottle)
            self.bundles.gate = self.gate
            if self.plan.supervise:
                self.gate.tell = lambda message: self.bundles.asks().hear_gate(message)

    def _warn_now(self, text: str) -> None:
        """A warning that the person hears before the agent begins, and that is remembered."""
        self.outcome.warnings.append(text)
        self.outcome.told.append(text)
        self.around.warn(text)

    def _meanwhile(self) -> None:
        """While the sandbox is being made, the workspace is copied and what comes later is imported: nobody waits for it then."""
        if self.copying:
            self.copying.begin()
        from bot_bottle.door import inside, passing  # noqa: F401
        from bot_bottle.launch import heard, wishes  # noqa: F401

        if self.plan.files:
            from bot_bottle.provision import pipeline  # noqa: F401
        if self.copying:
            from bot_bottle.provision import changes  # noqa: F401

    def _session(self, server: socket.socket, figures: socket.socket, streams: Streams) -> "Session":
        from bot_bottle.launch.session import Session

        session = self.session = Session(
            self.plan, self.bottle, log=self.log, server=server, interrupts=self.around.interrupts
        )
        session.failed = lambda data: self._record("command.failed", data)
        session.also(self.store.tick)
        self.bundles.serve(session, figures)
        if self.supervising:
            self.supervising.serve(session)
        if self.gate:
            self.gate.serve(session)
        session.master = streams.master
        for descriptor, own in streams.outside:
            session.add_output(descriptor, Outlet(own, self.around.shown) if self.around.foreground else None)
        return session

    def _release(self, session: "Session") -> None:
        if self.copying:
            with self._phase("copy"):
                self.outcome.warnings += [f"not copied: {line}" for line in self.copying.wait()]
        with self._phase("release"):
            event = self._event("run.started", self.bundles.facts())
            self.store.record([event], self.plan.id, state="running")
            if self.copying:
                copies.agent_begins(self.plan)
            if self.around.owner:
                self.around.ready(self.outcome)
                session.wait_for_owner()
            self.bottle.release()
            self.released = True
            if self.around.continues:
                from bot_bottle.launch import kept

                kept.drop_home(self.plan)
        if not self.around.owner:
            self.around.ready(self.outcome)
        gc.freeze()  # else the first collection looks at all that was imported, just when the agent needs the processor
        gc.enable()

    def _record(self, kind: str, data: Mapping[str, object]) -> None:
        """Puts an event of this run into the record."""
        self.store.append([self._event(kind, dict(data))])

    # The removals that are more than a call

    def _flag_workspace(self) -> None:
        from bot_bottle.launch import mounted

        if paths := mounted.flagged(record_of(self.plan, self.around.backend)):
            self.store.append([self._event(mounted.EVENT, {"paths": paths[:50]})])
            self.outcome.warnings.append(mounted.warning(paths))

    def _keep_bottle(self) -> None:
        from bot_bottle.launch import kept

        try:
            if lost := kept.keep(self.bottle, self.plan, self.around.asked):
                self.outcome.warnings.append(lost)
        except BotBottleError as error:  # it ends as every other
            self.outcome.warnings.append(f"{error.brief}: {error.details}")
        else:
            self.kept, self.outcome.reason = True, "kept"

    def _give_back(self, before: RunRecord) -> None:
        from bot_bottle.launch import kept

        if self.released:
            kept.taken(before)
        else:
            kept.give_back(before, self.plan)

    def _save_changes(self) -> None:
        if self.kept or (self.around.continues and not self.released):
            return
        with self._phase("end"):
            try:
                self.outcome.changed = copies.put_away(record_of(self.plan, self.around.backend))
            except BotBottleError as error:
                # The agent's work is only in the copy then: it stays, and the run has ended as it has.
                kept = f"its copy of the workspace stays at {self.plan.workspace.copy}"
                self.outcome.warnings.append(f"The changes could not be saved ({error.brief}); {kept}")

    def _record_end(self) -> None:
        self.store.end_loop()
        self.bundles.close_asks()
        data = {
            "exit_code": self.outcome.exit_code,
            "why": self.outcome.reason,
            "seconds": self.outcome.phases,
        }
        self.store.record(
            [*self.bundles.last_events, self._event("run.ended", data)],
            self.plan.id,
            state="ended",
            ended_at=time.time(),
            exit_code=self.outcome.exit_code,
            outcome=self.outcome.reason,
        )

    def _event(self, kind: str, data: dict[str, object]) -> NewEvent:
        return NewEvent(self.plan.id, time.time(), kind, data)
