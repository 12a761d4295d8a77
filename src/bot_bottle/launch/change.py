"""The keeper's side of a change of policy: ordered, confirmed by who enforces it, recorded, and only then said to be in force.

Nothing is believed but the fingerprint that the bundle answers with. One that does not answer in time is killed, and another
one that was started with the new policy takes its place. What can't be confirmed even so, or with another fingerprint, is
undone in the one way that is certain: by a bundle that was started with the old policy. One change follows the other, so each is
made on what the one before it left.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bot_bottle.bundle.model import cannot_become
from bot_bottle.door.model import listeners_for
from bot_bottle.errors import BotBottleError, SandboxError
from bot_bottle.launch.wishes import After, Kept
from bot_bottle.policy.difference import difference
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.policy.sound import flaws, hindrance

CONFIRM_WITHIN = 5.0
"""Seconds for the bundle to say that it enforces a new policy, which takes it 0.001."""


class Change(NamedTuple):
    """One wish. `expecting` is the fingerprint of the policy it was made on, if that matters; `answer` is told the outcome.

    With `make`, the policy is what that gives when the wish's turn has come: made on what the one before it left.
    """

    policy: EgressPolicy
    who: str
    why: str
    expecting: str
    answer: Callable[[dict[str, Any]], None]
    make: Callable[[], EgressPolicy] | None = None


class Changes:
    """The changes of one run, in the order in which they were asked for."""

    def __init__(self, run: Kept, after: After) -> None:
        self._run = run
        self._after = after
        self._waiting: deque[Change] = deque()
        self._ordered: Change | None = None

    def ask(self, change: Change) -> None:
        """Makes `change` when those before it are done."""
        self._waiting.append(change)
        self._next()

    def hear(self, message: Mapping[str, Any]) -> None:
        """What the bundle says; counts only while it has been ordered something."""
        change = self._ordered
        if change is None:
            return
        if "policy_refused" in message:
            self._refused(change, f"the bundle: {message['policy_refused']}"[:500])
        elif "policy" in message:
            if message["policy"] == change.policy.fingerprint():
                self._confirmed(change, restarted=False)
            else:
                self._undo(change, "the bundle says that it enforces another policy")

    def bundle_died(self) -> None:
        """After it was started again, with the policy that was in force, or could not be."""
        if self._ordered is not None:
            self._refused(self._ordered, "the bundle died before it was in force")

    def _next(self) -> None:
        while self._waiting and self._ordered is None:
            change = self._waiting.popleft()
            self._ordered = (
                change if change.make is None else change._replace(policy=change.make(), make=None)
            )
            self._order(self._ordered)

    def _order(self, change: Change) -> None:
        run, new = self._run, change.policy
        current = run.policy.fingerprint()
        if problems := flaws(new):
            self._refused(change, "; ".join(problems)[:500])
        elif change.expecting not in ("", current):
            self._refused(change, "another change came first; look at what is in force now and ask again")
        elif not run.has_way_out:
            self._refused(change, "the bottle has no way out any more, since its bundle died again and again")
        elif why := self._never(new):
            self._refused(change, why)
        elif current == new.fingerprint():
            self._finish(change, {"applied": True, "changed": False, "previous": current, "restarted": False})
        elif why := self._engine_takes(new):
            self._refused(change, why)
        elif not run.sidecar.config or cannot_become(run.sidecar.config, new):
            self._replace(change)
        else:
            self._send(change)

    def _never(self, new: EgressPolicy) -> str:
        """Why no bundle of this run can enforce it; empty when one can."""
        config = self._run.sidecar.config
        return hindrance(
            self._run.policy,
            new,
            trusts=self._run.plan.trust is not None,
            credentials=config.credentials if config else (),
        )

    def _engine_takes(self, new: EgressPolicy) -> str:
        """Puts it in force at the engine behind the bundle, before the bundle: in between only what both allow passes.

        Empty when that enforces it, else why it does not.
        """
        if self._run.engine is None:
            return ""
        try:
            self._run.engine.apply(new)
        except SandboxError as error:
            return f"{error.brief}{': ' if error.details else ''}{error.details}"[:500]
        return ""

    def _send(self, change: Change) -> None:
        """Orders it of the running bundle; the sockets that it needs go ahead."""
        run = self._run
        there = {(each.port, each.kind == "dns-udp") for each in listeners_for(run.policy)}
        further = [
            each for each in listeners_for(change.policy) if (each.port, each.kind == "dns-udp") not in there
        ]
        try:
            if further:
                run.open_further(further)
        except SandboxError as error:
            ports = ", ".join(str(listener.port) for listener in further)
            self._refused(
                change, f"port {ports} can't be opened in the bottle: {error.details or error.brief}"
            )
            return
        try:
            run.sidecar.order({"policy": change.policy.document(), "further": len(further)})
        except OSError:
            self._replace(change)
            return
        self._after(CONFIRM_WITHIN, lambda: self._late(change))

    def _replace(self, change: Change) -> None:
        """For what a running bundle can't be taught, or does not take in time: another one takes its place, and every
        connection ends. Else an agent that keeps its bundle busy could have a say in what is taken from it."""
        change = self._ordered = change._replace(policy=self._run.fresh(change.policy))
        try:
            self._run.start_anew(change.policy)
        except BotBottleError as error:
            self._undo(change, f"a bundle that enforces it did not start: {error.details or error.brief}")
            return
        self._confirmed(change, restarted=True)

    def _late(self, change: Change) -> None:
        if self._ordered is change:
            self._replace(change)

    def _confirmed(self, change: Change, *, restarted: bool) -> None:
        previous, self._run.policy = self._run.policy, change.policy
        added, removed = difference(previous, change.policy)
        fingerprint = change.policy.fingerprint()
        self._run.record(
            "policy.changed",
            {"policy": fingerprint, "previous": previous.fingerprint(), "who": change.who, "why": change.why,
             "added": added, "removed": removed, "restarted": restarted},
        )  # fmt: skip
        self._finish(
            change,
            {"applied": True, "changed": True, "previous": previous.fingerprint(), "restarted": restarted},
        )

    def _undo(self, change: Change, why: str) -> None:
        """Nobody knows what that bundle enforces: only one that was started with the old policy enforces the old policy."""
        try:
            self._run.policy = self._run.fresh(self._run.policy)
            self._run.start_anew(self._run.policy)
        except BotBottleError as error:
            why += f"; a new one did not start ({error.brief}), so the bottle has no way out"
        else:
            why += "; it was started anew with the policy from before, and every connection ended"
        self._refused(change, why)

    def _refused(self, change: Change, why: str) -> None:
        if why_not := self._engine_takes(self._run.policy):
            why += f"; and what stands behind the bundle did not take the one before again ({why_not})"
        data = {"policy": change.policy.fingerprint(), "in_force": self._run.policy.fingerprint()}
        self._run.record("policy.refused", {**data, "who": change.who, "why": change.why, "reason": why})
        self._finish(change, {"applied": False, "reason": why})

    def _finish(self, change: Change, outcome: dict[str, Any]) -> None:
        self._ordered = None
        change.answer({**outcome, "fingerprint": self._run.policy.fingerprint()})
        self._next()
