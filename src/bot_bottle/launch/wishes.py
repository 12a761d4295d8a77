"""What operators want of a running bottle beside its terminal: its policy, another policy, its figures.

Who serves a wish is imported when the first one comes, so that starting does not pay for what is rarely asked.
"""

import socket
import time
from collections.abc import Callable, Mapping

from bot_bottle.door.model import Listener
from bot_bottle.launch import control
from bot_bottle.launch.session import MISTAKES, Client, Session
from bot_bottle.launch.sidecar import Sidecar
from bot_bottle.plan.model import RunPlan
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.typed import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bot_bottle.launch.asks import Asks
    from bot_bottle.launch.change import Changes
    from bot_bottle.launch.engine import EngineKeeper
    from bot_bottle.launch.figures import Figures
    from bot_bottle.launch.gitgate.gate import Gate
    from bot_bottle.launch.metrics import Scrapes
    from bot_bottle.state.store import Store

FIGURES_WITHIN = 2.0
"""Seconds for the bundle to say its figures, which takes it 0.001."""
Told = Callable[["Figures | None"], None]
_OF_ASKS = frozenset(("hold", "unhold", "used", "spent"))
"""Messages of the bundle that are about what an agent asked for."""


class After(Protocol):
    """Calls a function once, when that time has passed."""

    def __call__(self, seconds: float, act: Callable[[], None], /) -> None: ...


class Kept(Protocol):
    """What the wishes need of the run; `bundles.py` keeps it."""

    plan: RunPlan
    policy: EgressPolicy
    sidecar: Sidecar
    restarts: int
    has_way_out: bool
    engine: "EngineKeeper | None"
    store: "Store"
    gate: "Gate | None"

    def open_further(self, listeners: list[Listener]) -> None: ...
    def start_anew(self, policy: EgressPolicy) -> None: ...
    def fresh(self, policy: EgressPolicy) -> EgressPolicy: ...
    def record(self, kind: str, data: Mapping[str, object]) -> None: ...


class Wishes:
    """Serves the wishes of one run's operators."""

    def __init__(self, run: Kept) -> None:
        self._run = run
        self._changes: Changes | None = None
        self._asks: Asks | None = None
        self._asked: list[Told] = []
        self._session: Session | None = None
        self._scrapes: Scrapes | None = None
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def serve(self, session: Session, metrics: socket.socket) -> None:
        """Answers on the session's control socket from now on, and on `metrics`."""
        self._session = session
        session.wishes = {
            "policy": self._policy,
            "change": self._change,
            "stats": self._stats,
            "decided": self._decided,
            "withdraw": self._withdraw,
        }
        session.watch(metrics, lambda: self._accept(metrics))

    def hear(self, message: Mapping[str, Any]) -> None:
        """What the bundle says that is no event."""
        if self._changes is not None:
            self._changes.hear(message)
        if not _OF_ASKS.isdisjoint(message):
            self.asks().hear_bundle(message)
        if "stats" in message and self._asked:
            from bot_bottle.launch.figures import read

            self._tell(read(message["stats"]))

    def bundle_died(self) -> None:
        """After it was started again, or could not be."""
        if self._asks is not None:
            self._asks.bundle_gone()
        if self._changes is not None:
            self._changes.bundle_died()
        if self._asks is not None:
            self._asks.holding.bundle_began()
        self._tell(None)

    def changes(self) -> "Changes":
        """The changes of the run's policy."""
        from bot_bottle.launch.change import Changes

        if self._changes is None:
            self._changes = Changes(self._run, self.after)
        return self._changes

    def asks(self) -> "Asks":
        """What the agent asks for; made when it first does."""
        if self._asks is None:
            from bot_bottle.host import presence
            from bot_bottle.launch.asks import Around, Asks
            from bot_bottle.launch.notices import Notices

            notices = Notices(self.after)
            around = Around(self.changes, self.after, presence.anybody, notices.tell)
            self._asks = Asks(self._run, self._run.store, around)
        return self._asks

    def fresh(self, policy: EgressPolicy) -> EgressPolicy:
        """`policy` as another bundle may get it, which takes the place of the one there is now."""
        asks = self._asks
        if asks is None:
            return policy
        asks.bundle_gone()
        self.after(0.0, asks.holding.bundle_began)
        return asks.holding.fresh(policy)

    def spent(self) -> tuple[str, ...]:
        """The grants for one use that were used."""
        return () if self._asks is None else self._asks.holding.spent()

    def end(self) -> None:
        """The run is over."""
        if self._asks is not None:
            self._asks.end()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Calls `act` once, when that time has passed."""
        self._timers.append((time.monotonic() + seconds, act))

    def tick(self) -> float | None:
        """Does what is due; how many seconds until there is more to do."""
        waits = [self._asks.tick() if self._asks is not None else None, self._due() if self._timers else None]
        return min((wait for wait in waits if wait is not None), default=None)

    def _due(self) -> float | None:
        now = time.monotonic()
        due = [act for at, act in self._timers if at <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for act in due:
            act()
        return min((max(0.0, at - now) for at, _ in self._timers), default=None)

    def figures(self, told: Told) -> None:
        """Asks the bundle for its figures; `told` gets None when it does not answer, or not with figures."""
        self._asked.append(told)
        if len(self._asked) > 1:
            return
        try:
            self._run.sidecar.order({"stats": True})
        except OSError:
            self._tell(None)
            return
        self.after(FIGURES_WITHIN, lambda: self._tell(None) if told in self._asked else None)

    def _tell(self, figures: "Figures | None") -> None:
        asked, self._asked = self._asked, []
        for each in asked:
            each(figures)

    # On the control socket

    def _policy(self, client: Client, _hello: dict[str, Any]) -> None:
        run = self._run
        self._reply(
            client,
            {
                "policy": run.policy.document(),
                "fingerprint": run.policy.fingerprint(),
                "base": self._base().document(),
                "credentials": {
                    item.name: list(item._replace(placeholder="")) for item in run.plan.credentials
                },
                "model": run.plan.model,
                "way_out": run.has_way_out,
            },
        )

    def _change(self, client: Client, hello: dict[str, Any]) -> None:
        from bot_bottle.launch.change import Change

        who, why = _who(client), str(hello.get("why", ""))[:300]
        try:
            policy = EgressPolicy.from_document(hello["policy"])
        except MISTAKES as error:
            reason = f"it is no policy ({type(error).__name__}: {error})"[:300]
            in_force = self._run.policy.fingerprint()
            self._run.record(
                "policy.refused", {"in_force": in_force, "who": who, "why": why, "reason": reason}
            )
            self._reply(client, {"applied": False, "reason": reason, "fingerprint": in_force})
            return

        def answer(outcome: dict[str, Any]) -> None:
            if outcome["applied"] and self._asks is not None:
                self._asks.rebased(policy)
            self._reply(client, {**outcome, "base": self._base().fingerprint()})

        self.changes().ask(
            Change(
                policy=policy,
                who=who,
                why=why,
                expecting=str(hello.get("expecting", "")),
                answer=answer,
                make=lambda: policy if self._asks is None else self._asks.over(policy),
            )
        )

    def _base(self) -> EgressPolicy:
        """The policy without what was granted."""
        return self._run.policy if self._asks is None else self._asks.holding.base

    def _decided(self, client: Client, _hello: dict[str, Any]) -> None:
        if self._asks is not None:
            self._asks.decided()
        self._reply(client, {})

    def _withdraw(self, client: Client, hello: dict[str, Any]) -> None:
        def told(ended: bool, why: str) -> None:
            self._reply(client, {"ended": ended, "why": why})

        if self._asks is None:
            told(False, "it does not hold any more")
        else:
            self._asks.withdraw(str(hello["grant"]), _who(client), told)

    def _stats(self, client: Client, _hello: dict[str, Any]) -> None:
        from bot_bottle.launch.figures import document

        self.figures(lambda figures: self._reply(client, document(self._run, figures)))

    def _reply(self, client: Client, answer: dict[str, Any]) -> None:
        if self._session is not None:
            self._session.reply(client, answer)

    # On the socket for metrics

    def _accept(self, server: socket.socket) -> None:
        if self._scrapes is None:
            from bot_bottle.launch.metrics import Scrapes

            assert self._session is not None
            self._scrapes = Scrapes(self._session, self._run, self.figures, self.after)
        self._scrapes.accept(server)


def _who(client: Client) -> str:
    """The user at the other end, as the kernel knows them."""
    import pwd

    uid = control.peer(client.sock)[1]
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
