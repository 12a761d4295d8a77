"""A run's bundle over its life: the first one, its authority, one that follows another, and the engine that it may dial through.

What a bundle has ended with, and what it says while it runs, is heard here; what becomes of the run is the launcher's.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from bot_bottle.backends.base import Bottle, Place
from bot_bottle.bundle.model import BundleConfig
from bot_bottle.door.model import Listener, listeners_for
from bot_bottle.errors import BotBottleError, SandboxError
from bot_bottle.events import NewEvent
from bot_bottle.host.secrets import Vault
from bot_bottle.launch.credentials import Around, Credentials
from bot_bottle.launch.outward import Outside
from bot_bottle.launch.sidecar import Sidecar
from bot_bottle.plan.model import RunPlan
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket

    from bot_bottle.launch.asks import Asks
    from bot_bottle.launch.engine import EngineKeeper
    from bot_bottle.launch.gitgate.gate import Gate
    from bot_bottle.launch.session import Session
    from bot_bottle.launch.wishes import Wishes
    from bot_bottle.provision.trust import TrustStore
    from bot_bottle.state.store import Store

NAMES_APART = 8192
"""Addresses for names between where one bundle of a run begins and the next; more than `BundleLimits.names`."""
RESTARTS = 3
"""How often a bundle (or an engine behind it) that died is started again in one run; then the bottle stays without a way out."""


class Tell(NamedTuple):
    """Where what happens is told: the record, with what is there already or with one event of this run, and the outcome."""

    append: Callable[[Sequence[NewEvent]], object]
    record: Callable[[str, Mapping[str, object]], None]
    warn: Callable[[str], None]
    store: "Store"


class Bundles:
    """The bundles of one run, one after the other; keeps `wishes.Kept`."""

    def __init__(self, plan: RunPlan, vault: Vault, outside: Outside, tell: Tell) -> None:
        self.plan = plan
        self.policy = plan.egress
        """What the bundle enforces; a change of it is `change.Changes`' to make."""
        self.restarts = 0
        self.has_way_out = True
        self.engine: EngineKeeper | None = None
        self.place: Place | None = None
        """Where bundles are, when not beside the keeper; set before the first one."""
        self.gate: Gate | None = None
        self.sidecar: Sidecar
        self.authority = ""
        """The SHA-256 of the certificate of the bottle's own authority, once it is trusted inside."""
        self.last_events: list[NewEvent] = []
        """What the last bundle and the engine still said when they were ended."""
        self.record = tell.record
        self.store = tell.store
        self._tell = tell
        self._vault = vault
        self._outside = outside
        self._credentials = Credentials(plan.credentials, vault, outward=plan.outward)
        self._begun = 0
        self._heard_authority = ""
        self._trust_inside: TrustStore | None = None
        self._bottle: Bottle
        self._session: Session | None = None
        self._wishes: Wishes | None = None

    # The first one, in order

    def start_engine(self, undo: ExitStack) -> None:
        """The engine that the policy asks for, if it is not the bundle itself."""
        from bot_bottle.launch.engine import EngineKeeper

        self.engine = EngineKeeper(
            self.plan, tell=self._say, append=self._tell.append, record=self.record, warn=self._tell.warn
        )
        undo.callback(self._stop_engine)
        self.engine.start()

    def start(self, early: Sidecar | None, undo: ExitStack) -> None:
        """The first bundle: `early`, which waits for a plan, if there is one."""
        config = self._config()
        if early is not None and self.place is not None:
            early.discard()
        if early is None or self.place is not None:
            self.sidecar = self._made(config)
        else:
            early.give(config)
            self.sidecar = early
        undo.callback(self._stop)

    def prepare_trust(self) -> None:
        """The certificate stores that the bottle shows; what they hold of it comes when its bundle has made it."""
        if self.plan.trust:
            from bot_bottle.provision.trust import TrustStore

            self._trust_inside = TrustStore(self.plan.trust, self._outside.authorities)
            self._trust_inside.prepare()

    def open_door(self, bottle: Bottle) -> None:
        """Opens the door of `bottle`, which the bundle serves from now on."""
        self._bottle = bottle
        try:
            bottle.open_door(listeners_for(self.policy), self.sidecar.door)
        except SandboxError as error:
            if self.sidecar.has_ended():  # then nobody took the listeners, and that is the cause
                raise self.sidecar.why_ended() from error
            raise

    def wait_ready(self) -> None:
        """Until the policy is in force everywhere. Raises BotBottleError."""
        self._wait_for_bundle()
        if self.engine:
            self.engine.wait_ready()

    def serve(self, session: "Session", figures: "socket.socket") -> None:
        """Is heard, and answers operators, in the loop of `session` from now on."""
        self._session = session
        wishes = self._wished()
        session.watch(self.sidecar.sock, self._hear)
        if self.engine:
            self.engine.serve(session)
        session.also(self._credentials.tick)
        session.also(wishes.tick)
        wishes.serve(session, figures)
        self._credentials.begin(
            Around(
                watch=session.watch,
                forget=session.forget,
                tell=lambda message: self.sidecar.tell(message),
                record=self.record,
                warn=self._tell.warn,
            )
        )

    def facts(self) -> dict[str, object]:
        """What of it belongs into the record of the run's start."""
        return {
            "policy": self.policy.fingerprint(),
            "confined": self.sidecar.facts.get("confined"),
            "authority": self.authority,
            **({"pipelock": self.engine.facts()} if self.engine else {}),
        }

    def leave(self) -> None:
        """The agent has ended: it says its last words while everything else is put away."""
        if self._session:
            self._session.forget(self.sidecar.sock)
        if self.engine:
            self.engine.leave()
        self.sidecar.say_stop()

    def asks(self) -> "Asks":
        """What the agent asks for."""
        return self._wished().asks()

    def close_asks(self) -> None:
        """The run is over: nothing that was asked for is open any more."""
        if self._wishes:
            self._wishes.end()

    def fresh(self, policy: EgressPolicy) -> EgressPolicy:
        """`policy` as another bundle may get it; see `Wishes.fresh`."""
        return self._wished().fresh(policy)

    def _wished(self) -> "Wishes":
        from bot_bottle.launch.wishes import Wishes  # not needed before there is a sandbox

        if self._wishes is None:
            self._wishes = Wishes(self)
        return self._wishes

    # While it runs

    def _hear(self) -> None:
        sidecar = self.sidecar
        messages = sidecar.read()
        try:
            if self._trust_authority():
                self.record("door.authority", {"sha256": self.authority})
        except BotBottleError as error:  # what it opens is not trusted inside then; the rest goes on
            self._tell.warn(f"{error.brief}: TLS that is opened fails inside the bottle")
        if messages is None:
            self._died()
            return
        for message in messages:
            if message.get("credentials") is True:
                self._credentials.confirmed()
            elif "credential_refused" in message:
                self._credentials.refused(message["credential_refused"])
        if events := sidecar.events(self.plan.id, messages):
            self._tell.append(events)
        for message in messages:
            if sidecar is self.sidecar:  # what one that was replaced meanwhile still said is no answer
                self._wished().hear(message)

    def _died(self) -> None:
        """A dead bundle is a closed door. It is opened again a few times, with the same policy; every time is recorded."""
        if self._session is None:
            return
        self._end()
        self.restarts += 1
        died = {"why": "the bundle died", "code": self.sidecar.code, "times": self.restarts}
        self.record("door.closed", died)
        if self.restarts > RESTARTS:
            self._tell.warn("The bundle died again and again; the bottle has had no way out since.")
        else:
            try:
                self.policy = self.fresh(self.policy)
                self._begin()
                self.record("door.opened", {"again": self.restarts, "authority": self.authority})
            except BotBottleError as error:
                self._tell.warn(f"The bundle died and could not be started again: {error.brief}")
        self._wished().bundle_died()

    def start_anew(self, policy: EgressPolicy) -> None:
        """Ends the bundle, with every connection, and starts one with `policy`. Raises BotBottleError; then none serves."""
        self._end()
        before, self.policy = self.policy, policy
        try:
            self._begin()
        finally:
            self.policy = before  # what it serves is in force once that is recorded
        self.record("door.opened", {"policy": policy.fingerprint(), "authority": self.authority})

    def open_further(self, listeners: list[Listener]) -> None:
        """Opens and passes to the bundle what a policy needs beyond what is open. Raises SandboxError; then none was."""
        self._bottle.open_door(listeners, self.sidecar.door)

    # One of them

    def _config(self) -> BundleConfig:
        plan = self.plan
        first_name, self._begun = self._begun * NAMES_APART, self._begun + 1
        return BundleConfig(
            run=plan.id,
            keeper=self.place.keeper if self.place else os.getpid(),
            policy=self.policy,
            listeners=listeners_for(self.policy),
            uid=plan.bundle_uid,
            gid=plan.bundle_gid,
            bottle_file=os.path.basename(plan.bottle_file),  # where it stands is not for the agent
            engine_port=self.engine.port if self.engine else 0,
            authorities=self._outside.authorities,
            proxy=self._outside.proxy,
            credentials=self._credentials.injections(),
            sensitive=self._vault.sensitive,
            first_name=first_name,
            supervised=self.plan.supervise is not None,
            spent=self._wishes.spent() if self._wishes else (),
        )

    def _made(self, config: BundleConfig) -> Sidecar:
        if self.place is None:
            return Sidecar(config)
        from bot_bottle.launch.placed import PlacedSidecar

        return PlacedSidecar(self.place, config)

    def _begin(self) -> None:
        """Raises BotBottleError; then none serves."""
        try:
            self.sidecar = self._made(self._config())
            self.open_door(self._bottle)
            self._wait_for_bundle()
        except OSError as error:
            self.sidecar.stop()
            raise SandboxError("Another bundle could not be started", details=str(error)) from error
        except BaseException:
            self.sidecar.stop()
            raise
        if self._session:
            self._session.watch(self.sidecar.sock, self._hear)
        if self.engine:
            self.engine.bundle_began()
        self.has_way_out = True
        self._credentials.confirmed()  # it was started with them

    def _wait_for_bundle(self) -> None:
        """Until the bundle serves the policy, and the bottle trusts the authority that it has made for it.

        Raises SandboxError when it does not, or has made none and would need one.
        """
        self.sidecar.wait_ready(self.policy.fingerprint())
        reaches = self.policy.routes or self.policy.ask
        if reaches and not self.sidecar.authority and _intercepts(self.policy):
            raise SandboxError("The bundle opens TLS and has made no certificate authority for it")
        self._trust_authority()

    def _trust_authority(self) -> bool:
        """Makes the bottle trust its bundle's authority; whether that is another than before. Raises BotBottleError."""
        authority = self.sidecar.authority
        if not authority or authority == self._heard_authority or self._trust_inside is None:
            return False
        self._heard_authority = authority
        self.authority = self._trust_inside.accept(authority)
        if self.place is not None:
            self.place.refresh()
        return True

    def _say(self, message: Mapping[str, object]) -> None:
        if self.sidecar.code is None:
            self.sidecar.tell(message)

    def _end(self) -> None:
        self.has_way_out = False
        if self._session:
            self._session.forget(self.sidecar.sock)
        last = self.sidecar.stop()
        self._tell.append(self.sidecar.events(self.plan.id, last))
        for message in last:
            if "used" in message:  # of what it still says that alone counts for the one after it
                self._wished().hear(message)

    def _stop(self) -> None:
        last = self.sidecar.stop()
        self.last_events += self.sidecar.events(self.plan.id, last)
        if self._wishes is not None:
            for message in last:
                if "policy" in message or "used" in message:  # an agent may end by what was just put in force
                    self._wishes.hear(message)

    def _stop_engine(self) -> None:
        if self.engine:
            self.last_events += self.engine.stop()


def _intercepts(policy: EgressPolicy) -> bool:
    from bot_bottle.policy.egress import (
        intercepts_any,
    )  # takes 2 ms, and a bottle that reaches nothing has no need of it

    return intercepts_any(policy)
