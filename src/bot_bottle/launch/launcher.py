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
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle.backends.base import Backend, Bottle
from bot_bottle.bundle.model import BundleConfig
from bot_bottle.door.model import Listener, listeners_for
from bot_bottle.errors import BotBottleError, SandboxError
from bot_bottle.events import NewEvent
from bot_bottle.host.secrets import Vault
from bot_bottle.launch import control, copies, folders
from bot_bottle.launch.credentials import Around, Credentials
from bot_bottle.launch.output import Log, Outlet, Shown
from bot_bottle.launch.outward import Outside
from bot_bottle.launch.recorded import describe, record_of
from bot_bottle.launch.session import Session
from bot_bottle.launch.sidecar import Sidecar
from bot_bottle.launch.signals import Interrupts
from bot_bottle.launch.streams import Streams
from bot_bottle.launch.wishes import Wishes
from bot_bottle.plan.model import RunPlan
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.state.store import Store

if TYPE_CHECKING:
    from bot_bottle.launch.engine import EngineKeeper
    from bot_bottle.provision.trust import TrustStore

NAMES_APART = 8192
"""Addresses for names between where one bundle of a run begins and the next; more than `BundleLimits.names`."""
RESTARTS = 3
"""How often a bundle (or an engine behind it) that died is started again in one run; then the bottle stays without a way out."""


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


class Surroundings(NamedTuple):
    """What the keeper has around it. `phase` is told the name of each phase as it begins; `ready` that the agent runs."""

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


def keep(plan: RunPlan, around: Surroundings) -> Outcome:
    """Carries out `plan` from first folder to last removal and says how it ended.

    Raises BotBottleError when the agent never came to run; then nothing is left but the record of the attempt.
    """
    return _Run(plan, around).keep()


class _Run:
    def __init__(self, plan: RunPlan, around: Surroundings) -> None:
        self.plan = plan
        self.around = around
        self.store = around.store
        self.outcome = Outcome(plan.id)
        self.policy = plan.egress
        """What the bundle enforces; a change of it is `change.Changes`' to make."""
        self.restarts = 0
        self.bundles = 0
        self.has_way_out = True
        self.last_events: list[NewEvent] = []
        self.engine: EngineKeeper | None = None
        self.credentials = Credentials(plan.credentials, around.vault, outward=plan.outward)
        self.sidecar: Sidecar
        self.bottle: Bottle
        self.session: Session | None = None
        self.trust_inside: TrustStore | None = None
        self.heard_authority = ""
        self.authority = ""
        """The SHA-256 of the certificate of the bottle's own authority, once it is trusted inside."""
        self.copying: copies.Copying | None = None
        self.wishes = Wishes(self)

    def keep(self) -> Outcome:
        try:
            with ExitStack() as undo:
                try:
                    self._live(undo)
                except BaseException as error:
                    self.outcome.reason = f"failed: {getattr(error, 'brief', type(error).__name__)}"
                    raise
        finally:
            if self.session:
                self.session.dismiss(self.outcome.exit_code, self.outcome.warnings)
        return self.outcome

    def _live(self, undo: ExitStack) -> None:
        self._begin(undo)
        self._start_engine(undo)
        self._start_bundle(undo)
        self._copy_workspace(undo)
        session = self._open(undo)
        self._release()
        self.outcome.exit_code = session.run()
        self.outcome.reason = session.stop_reason or "exited"
        with self._phase("end"):
            self.bottle.destroy()
            session.forget(self.sidecar.sock)
            if self.engine:
                self.engine.leave()
            self.sidecar.say_stop()  # it says its last words while everything else is put away
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

    def _start_engine(self, undo: ExitStack) -> None:
        if self.plan.egress.engine == "builtin":
            return
        from bot_bottle.launch.engine import EngineKeeper

        with self._phase("engine"):
            self.engine = EngineKeeper(
                self.plan,
                tell=self._tell_bundle,
                append=self.store.append,
                record=self.record,
                warn=self.outcome.warnings.append,
            )
            undo.callback(self._stop_engine)
            self.engine.start()

    def _start_bundle(self, undo: ExitStack) -> None:
        with self._phase("bundle"):
            self.sidecar = self._first_bundle()
            undo.callback(self._stop_bundle)

    def _first_bundle(self) -> Sidecar:
        """The one that is waiting for a plan, if there is one."""
        config, early = self._bundle_config(), self.around.early
        if early is None:
            return Sidecar(config)
        early.give(config)
        return early

    def _bundle_config(self) -> BundleConfig:
        plan = self.plan
        self.bundles += 1
        return BundleConfig(
            run=plan.id,
            keeper=os.getpid(),
            policy=self.policy,
            listeners=listeners_for(self.policy),
            uid=plan.bundle_uid,
            gid=plan.bundle_gid,
            bottle_file=plan.bottle_file,
            engine_port=self.engine.port if self.engine else 0,
            authorities=self.around.outside.authorities,
            proxy=self.around.outside.proxy,
            credentials=self.credentials.injections(),
            sensitive=self.around.vault.sensitive,
            first_name=(self.bundles - 1) * NAMES_APART,
        )

    def _copy_workspace(self, undo: ExitStack) -> None:
        if self.plan.workspace.mode != "copy":
            from bot_bottle.launch import mounted

            mounted.remember(self.plan)
            undo.callback(self._flag_workspace)
            return
        with self._phase("workspace"):
            undo.callback(self._save_changes)
            self.copying = copies.Copying(self.plan)
            undo.callback(self.copying.close)

    def _open(self, undo: ExitStack) -> Session:
        with self._phase("sandbox"):
            self._prepare_trust()
            streams = Streams(self.plan.tty)
            undo.callback(streams.close)
            self.bottle = self.around.backend.create(self.plan, streams.inside)
            undo.callback(self.bottle.destroy)
            streams.close_inside()
        with self._phase("door"):
            self.bottle.open_door(listeners_for(self.policy), self.sidecar.door)
        with self._phase("provision"):
            if self.plan.files:
                from bot_bottle.provision.pipeline import provision

                provision(self.bottle, self.plan)
        with self._phase("policy"):
            self._wait_for_bundle()
            if self.engine:
                self.engine.wait_ready()
        server = control.listen(self.plan.paths.run)
        undo.callback(server.close)
        figures = control.listen(self.plan.paths.run, folders.METRICS)
        undo.callback(figures.close)
        return self._session(server, figures, streams)

    def _prepare_trust(self) -> None:
        """The certificate stores that the bottle shows; what they hold of it comes when its bundle has made it."""
        if self.plan.trust:
            from bot_bottle.provision.trust import TrustStore

            self.trust_inside = TrustStore(self.plan.trust, self.around.outside.authorities)
            self.trust_inside.prepare()

    def _wait_for_bundle(self) -> None:
        """Until the bundle serves the policy, and the bottle trusts the authority that it has made for it.

        Raises SandboxError when it does not, or has made none and would need one.
        """
        self.sidecar.wait_ready(self.policy.fingerprint())
        if self.policy.routes and not self.sidecar.authority and _intercepts(self.policy):
            raise SandboxError("The bundle opens TLS and has made no certificate authority for it")
        self._trust_authority()

    def _trust_authority(self) -> bool:
        """Makes the bottle trust its bundle's authority; whether that is another than before. Raises BotBottleError."""
        authority = self.sidecar.authority
        if not authority or authority == self.heard_authority or self.trust_inside is None:
            return False
        self.heard_authority = authority
        self.authority = self.trust_inside.accept(authority)
        return True

    def _session(self, server: socket.socket, figures: socket.socket, streams: Streams) -> Session:
        session = self.session = Session(
            self.plan, self.bottle, log=self.log, server=server, interrupts=self.around.interrupts
        )
        session.watch(self.sidecar.sock, self._hear_bundle)
        if self.engine:
            self.engine.serve(session)
        session.also(self.credentials.tick)
        session.also(self.wishes.tick)
        self.wishes.serve(session, figures)
        self.credentials.begin(
            Around(
                watch=session.watch,
                forget=session.forget,
                tell=lambda message: self.sidecar.tell(message),
                record=self.record,
                warn=self.outcome.warnings.append,
            )
        )
        session.master = streams.master
        for descriptor, own in streams.outside:
            session.add_output(descriptor, Outlet(own, self.around.shown) if self.around.foreground else None)
        return session

    def _release(self) -> None:
        if self.copying:
            with self._phase("copy"):
                self.outcome.warnings += [f"not copied: {line}" for line in self.copying.wait()]
        with self._phase("release"):
            started = {
                "policy": self.policy.fingerprint(),
                "confined": self.sidecar.facts.get("confined"),
                "authority": self.authority,
                **({"pipelock": self.engine.facts()} if self.engine else {}),
            }
            event = self._event("run.started", started)
            self.store.record([event], self.plan.id, state="running")
            if self.copying:
                copies.agent_begins(self.plan)
            self.bottle.release()
        self.around.ready(self.outcome)
        if self.copying:
            copies.prepare_to_put_away()
        gc.enable()

    # While it runs

    def _hear_bundle(self) -> None:
        sidecar = self.sidecar
        messages = sidecar.read()
        try:
            if self._trust_authority():
                self.record("door.authority", {"sha256": self.authority})
        except BotBottleError as error:  # what it opens is not trusted inside then; the rest goes on
            self.outcome.warnings.append(f"{error.brief}: TLS that is opened fails inside the bottle")
        if messages is None:
            self._bundle_died()
            return
        for message in messages:
            if message.get("credentials") is True:
                self.credentials.confirmed()
            elif "credential_refused" in message:
                self.credentials.refused(message["credential_refused"])
        if events := sidecar.events(self.plan.id, messages):
            self.store.append(events)
        for message in messages:
            if sidecar is self.sidecar:  # what one that was replaced meanwhile still said is no answer
                self.wishes.hear(message)

    def _bundle_died(self) -> None:
        """A dead bundle is a closed door. It is opened again a few times, with the same policy; every time is recorded."""
        if self.session is None:
            return
        self._end_bundle()
        self.restarts += 1
        died = {"why": "the bundle died", "code": self.sidecar.code, "times": self.restarts}
        self.record("door.closed", died)
        if self.restarts > RESTARTS:
            self.outcome.warnings.append(
                "The bundle died again and again; the bottle has had no way out since."
            )
        else:
            try:
                self._begin_bundle()
                self.record("door.opened", {"again": self.restarts, "authority": self.authority})
            except BotBottleError as error:
                self.outcome.warnings.append(f"The bundle died and could not be started again: {error.brief}")
        self.wishes.bundle_died()

    def start_anew(self, policy: EgressPolicy) -> None:
        """Ends the bundle, with every connection, and starts one with `policy`. Raises BotBottleError; then none serves."""
        self._end_bundle()
        before, self.policy = self.policy, policy
        try:
            self._begin_bundle()
        finally:
            self.policy = before  # what it serves is in force once that is recorded
        self.record("door.opened", {"policy": policy.fingerprint(), "authority": self.authority})

    def open_further(self, listeners: list[Listener]) -> None:
        """Opens and passes to the bundle what a policy needs beyond what is open. Raises SandboxError; then none was."""
        self.bottle.open_door(listeners, self.sidecar.door)

    def _end_bundle(self) -> None:
        self.has_way_out = False
        if self.session:
            self.session.forget(self.sidecar.sock)
        self.store.append(self.sidecar.events(self.plan.id, self.sidecar.stop()))

    def _begin_bundle(self) -> None:
        """Raises BotBottleError; then none serves."""
        try:
            self.sidecar = Sidecar(self._bundle_config())
            self.bottle.open_door(listeners_for(self.policy), self.sidecar.door)
            self._wait_for_bundle()
        except OSError as error:
            self.sidecar.stop()
            raise SandboxError("Another bundle could not be started", details=str(error)) from error
        except BaseException:
            self.sidecar.stop()
            raise
        if self.session:
            self.session.watch(self.sidecar.sock, self._hear_bundle)
        if self.engine:
            self.engine.bundle_began()
        self.has_way_out = True
        self.credentials.confirmed()  # it was started with them

    def _tell_bundle(self, message: Mapping[str, object]) -> None:
        if self.sidecar.code is None:
            self.sidecar.tell(message)

    def record(self, kind: str, data: Mapping[str, object]) -> None:
        """Puts an event of this run into the record."""
        self.store.append([self._event(kind, dict(data))])

    # The removals, in the opposite order

    def _stop_engine(self) -> None:
        if self.engine:
            self.last_events += self.engine.stop()

    def _stop_bundle(self) -> None:
        self.last_events += self.sidecar.events(self.plan.id, self.sidecar.stop())

    def _flag_workspace(self) -> None:
        from bot_bottle.launch import mounted

        if paths := mounted.flagged(record_of(self.plan, self.around.backend)):
            self.store.append([self._event(mounted.EVENT, {"paths": paths[:50]})])
            self.outcome.warnings.append(mounted.warning(paths))

    def _save_changes(self) -> None:
        with self._phase("end"):
            try:
                self.outcome.changed = copies.put_away(record_of(self.plan, self.around.backend))
            except BotBottleError as error:
                # The agent's work is only in the copy then: it stays, and the run has ended as it has.
                kept = f"its copy of the workspace stays at {self.plan.workspace.copy}"
                self.outcome.warnings.append(f"The changes could not be saved ({error.brief}); {kept}")

    def _record_end(self) -> None:
        data = {
            "exit_code": self.outcome.exit_code,
            "why": self.outcome.reason,
            "seconds": self.outcome.phases,
        }
        self.store.record(
            [*self.last_events, self._event("run.ended", data)],
            self.plan.id,
            state="ended",
            ended_at=time.time(),
            exit_code=self.outcome.exit_code,
            outcome=self.outcome.reason,
        )

    def _event(self, kind: str, data: dict[str, object]) -> NewEvent:
        return NewEvent(self.plan.id, time.time(), kind, data)


def _intercepts(policy: EgressPolicy) -> bool:
    from bot_bottle.policy.egress import intercepts_any

    return intercepts_any(policy)
