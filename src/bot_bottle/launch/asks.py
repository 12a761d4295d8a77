"""The keeper's side of everything that an agent asks for: taken in, stored, decided by somebody else, enforced, answered.

Who asks is not trusted: the process that speaks MCP with the agent, and the bundle. The change is computed here. A yes is one only
once whoever enforces the policy has confirmed it and the store has it, in that order; then the calls that wait are answered.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bot_bottle.errors import BusyError, StateError
from bot_bottle.launch.asks_apply import Applying
from bot_bottle.launch.asks_git import pushed
from bot_bottle.launch.asks_held import Answer, HeldRequests, Told
from bot_bottle.launch.asks_holding import Holding
from bot_bottle.launch.asks_limits import (
    BURST,
    EACH,
    MOST_OPEN,
    MOST_WAITING,
    REPEATS_BURST,
    REPEATS_EACH,
    Bucket,
    Refusals,
)
from bot_bottle.launch.asks_said import of_proposal, said
from bot_bottle.launch.asks_unstored import Queue
from bot_bottle.launch.change import Changes
from bot_bottle.launch.wishes import After, Kept
from bot_bottle.names import is_proposal_id, new_proposal_id
from bot_bottle.policy import approval_words as words
from bot_bottle.policy.approval import OPEN, Ask, Grant, Proposal
from bot_bottle.policy.approval_change import Change, change_for
from bot_bottle.policy.approval_intake import ask_of
from bot_bottle.policy.approval_show import APPLIES, OF_POLICY, grant_id
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.policy.sound import flaws, hindrance
from bot_bottle.state.proposals import Outcome, Proposals
from bot_bottle.state.store import Store

EXPIRES_AFTER = 24 * 3600.0
LOOK_EACH = 0.2
"""Seconds between two looks whether somebody decided, while anything is open: who did may have been killed before saying so."""
SURVEY_EACH = 0.5
"""Seconds for which the answer to `policy` stays the same."""
_NEVER = float("-inf")


class Around(NamedTuple):
    """What of the keeper is needed: the changes of the run's policy, a timer, whether an operator is there, and who is told of
    new proposals. `clock` is the wall's."""

    changes: Callable[[], Changes]
    after: After
    present: Callable[[], bool]
    notify: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Asks:
    """Everything that the agent of one run asked for and that is open, and the grants that hold."""

    def __init__(self, run: Kept, store: Store, around: Around) -> None:
        self._run = run
        self._around = around
        self.proposals = Proposals(store, clock=around.clock)
        self.holding = Holding(run, self.proposals, around.changes, around.after, clock=around.clock)
        self._held = HeldRequests(self, lambda message: run.sidecar.tell(message), around.present)
        self._applying = Applying(run, self.proposals, self.holding, around, self._done, self._held.let_pass)
        self._open: dict[str, Proposal] = {}
        self._told: dict[str, dict[str, Told]] = {}
        self._bucket = Bucket(BURST, EACH, around.monotonic)
        self._repeats = Bucket(REPEATS_BURST, REPEATS_EACH, around.monotonic)
        self._refusals = Refusals(around.clock)
        self._unstored = Queue(around.after, around.monotonic)
        self._version = -1
        self._look_at = 0.0
        self._survey: dict[str, Any] = {}
        self._survey_at = _NEVER

    # What the process that serves the agent says

    def hear(self, message: Mapping[str, Any], answer: Answer) -> None:
        """One message of the supervise process; `answer` sends one back."""
        for kind, act in (
            ("ask", self._ask),
            ("await", self._await),
            ("policy", self._policy),
            ("leave", self._leave),
        ):
            number = message.get(kind)
            if type(number) is int:
                try:
                    act(number, message, lambda told, number=number: answer({"to": number, **told}))  # type: ignore[misc]
                except StateError:
                    answer({"to": number, "problem": words.STORE_UNREAD})
                return

    def supervisor_gone(self) -> None:
        """The supervise process has ended: nobody waits any more. What was asked stays asked."""
        for waiting in self._told.values():
            for key in [key for key in waiting if key.startswith("call ")]:
                del waiting[key]

    def _ask(self, number: int, message: Mapping[str, Any], answer: Answer) -> None:
        ask = ask_of(message.get("tool"), message.get("arguments"))
        if isinstance(ask, str):
            answer({"problem": words.hindered(ask)})
            return

        def submit() -> None:
            proposal = self._submit(ask, answer, EXPIRES_AFTER)
            if proposal is not None:
                tell = partial(self._tell_call, answer)
                if proposal.id in self._open:
                    self._follow(proposal, f"call {number}", tell)
                tell(proposal, None)

        self._unstored.put(submit, lambda: answer({"problem": words.STORE_FAILED}))

    def _submit(self, ask: Ask, answer: Answer, seconds: float) -> Proposal | None:
        """The open proposal for `ask`, durable; None when it is answered without one. Raises StateError."""
        if (same := self._same(ask)) is not None:
            return self._repeated(same)
        found = change_for(ask, self.holding.usable())
        if at_once := self._answered_at_once(ask, found):
            answer(at_once)
            return None
        now = self._around.clock()
        new = Proposal(new_proposal_id(), self._run.plan.id, ask, found.routes, "pending", now, now + seconds)
        try:
            made = self.proposals.add(new, self.holding.standing())
        except BusyError:
            self._bucket.put_back()
            raise
        if made.state in OPEN and (made.state == "pending" or made.ask.kind in APPLIES):
            self._open[made.id] = made  # what is approved and can't be applied is decided for good
            self._look_at = 0.0
        if made.id == new.id:
            self._around.notify(made.id)
        return made

    def _answered_at_once(self, ask: Ask, found: Change) -> dict[str, Any]:
        """The answer to what no operator has to see; empty when one has to."""
        if found.problem:
            return {"problem": words.hindered(found.problem)}
        if (ask.kind in OF_POLICY and not found.routes) or (ask.kind == "git" and found.allowed):
            message = words.allowed(found.allowed)
            return said("applied", message, present=self._around.present(), added=found.allowed)
        if refused := self._refusals.answer(ask, found.routes):
            proposal, what, minutes = refused
            message = words.sticky(what, proposal.reason, minutes)
            return said("rejected", message, proposal.id, present=self._around.present())
        if ask.kind in OF_POLICY and (why := self._hindrance(found)):
            return {"problem": words.hindered(why)}
        waiting = sum(1 for each in self._open.values() if each.state == "pending")
        if waiting >= MOST_OPEN:
            return {"problem": words.TOO_MANY.format(open=waiting)}
        if not self._bucket.take():
            return {"problem": words.TOO_FAST.format(seconds=self._bucket.wait())}
        return {}

    def _hindrance(self, found: Change) -> str:
        standing = self.holding.standing()
        new = standing.in_force._replace(routes=(*standing.in_force.routes, *found.routes))
        return "; ".join(flaws(new)[:3]) or hindrance(
            standing.in_force, new, trusts=standing.trusts, credentials=standing.credentials
        )

    def _same(self, ask: Ask) -> Proposal | None:
        content = ask.content()
        return next((each for each in self._open.values() if each.ask.content() == content), None)

    def _repeated(self, proposal: Proposal) -> Proposal:
        if self._repeats.take():
            try:
                self.proposals.repeat(proposal.id)
            except StateError:
                return proposal  # it is open all the same; only how often it was asked for is not known
        return proposal

    def _await(self, number: int, message: Mapping[str, Any], answer: Answer) -> None:
        name = message.get("proposal")
        proposal = self._mine(name) if isinstance(name, str) else None
        if proposal is None:
            answer({"problem": words.UNKNOWN})
            return
        tell = partial(self._tell_call, answer)
        if proposal.id in self._open:
            self._follow(proposal, f"call {number}", tell)
        tell(self._open.get(proposal.id, proposal), self.proposals.grant_of(proposal.id))

    def _mine(self, name: str) -> Proposal | None:
        """The proposal of that id, if it is this run's: an agent can't look at another's."""
        if name in self._open:
            return self._open[name]
        if not is_proposal_id(name):
            return None
        found = [each for each in self.proposals.get([name]) if each.run == self._run.plan.id]
        return found[0] if found else None

    def _leave(self, number: int, _message: Mapping[str, Any], _answer: Answer) -> None:
        for waiting in self._told.values():
            waiting.pop(f"call {number}", None)

    def _policy(self, _number: int, _message: Mapping[str, Any], answer: Answer) -> None:
        from bot_bottle.launch.asks_policy import document

        now = self._around.monotonic()
        if (
            now - self._survey_at >= SURVEY_EACH
        ):  # reading the record takes milliseconds, which an agent could ask for
            waiting = list(self._open.values())
            self._survey = document(self._run, self.proposals, self.holding.grants.values(), waiting)
            self._survey_at = now
        answer(self._survey)

    def _follow(self, proposal: Proposal, key: str, tell: Told) -> None:
        if sum(map(len, self._told.values())) < MOST_WAITING:
            self._told.setdefault(proposal.id, {})[key] = tell

    def _tell_call(self, answer: Answer, proposal: Proposal, grant: Grant | None) -> None:
        final = proposal.id not in self._open
        answer(of_proposal(proposal, grant, present=self._around.present(), final=final))

    # What the bundle says

    def hear_bundle(self, message: Mapping[str, Any]) -> None:
        """A request that is held, or no longer; a grant that was used, or spent."""
        if "hold" in message:
            self._held.hold(message)
        elif "unhold" in message:
            self._held.unhold(message)
        elif isinstance(used := message.get("used"), str):
            if used in self.holding.grants or any(grant_id(each) == used for each in self._open):
                self.holding.used(used)
        elif isinstance(spent := message.get("spent"), str):
            self.holding.spent_by_use(spent)

    def hear_gate(self, message: Mapping[str, Any]) -> None:
        """A push that the upstream has; or, when it is empty, that the gate's processes died."""
        if not message:
            self.holding.gate_died()
        elif (found := pushed(message)) is not None:
            remote, refs, once = found
            self.holding.git_pushed(remote, refs, once=once)

    def bundle_gone(self) -> None:
        """The bundle has ended, and with it everything that it held."""
        self._held.bundle_gone()

    def submit(self, ask: Ask, answer: Answer, *, holds: float = 0.0) -> Proposal | None:
        """Keeps `asks_held.Intake`."""
        try:
            return self._submit(ask, answer, holds or EXPIRES_AFTER)
        except StateError:
            answer({"problem": words.STORE_FAILED})
            return None

    def follow(self, proposal: str, key: str, tell: Told) -> None:
        """Keeps `asks_held.Intake`."""
        self._told.setdefault(proposal, {})[key] = tell

    def unfollow(self, proposal: str, key: str) -> None:
        """Keeps `asks_held.Intake`."""
        self._told.get(proposal, {}).pop(key, None)

    def withdraw_brief(self, proposals: Sequence[str], why: str, *, seconds: float) -> None:
        """Keeps `asks_held.Intake`."""
        left = [self._open[name] for name in proposals if name in self._open]
        brief = [each.id for each in left if each.expires_at - each.made_at <= seconds]
        if brief:
            try:
                done = self.proposals.finish(
                    [Outcome(name, "withdrawn", why) for name in brief], before=("pending",)
                )
            except StateError:
                return  # it expires soon
            for proposal in done:
                self._done(proposal, None)

    # What operators decided

    def decided(self) -> None:
        """Somebody may have decided something."""
        self._version = -1
        self._look()

    def withdraw(self, grant: str, who: str, told: Callable[[bool, str], None]) -> None:
        """Ends a grant."""
        self.holding.end(grant, f"withdrawn by {who}", told)

    def tick(self) -> float | None:
        """Looks whether something was decided or is due; seconds until there may be more to do."""
        waits = [wait for wait in (self.holding.look(),) if wait is not None]
        if self._open:
            now = self._around.monotonic()
            if now >= self._look_at:
                self._look()
                self._look_at = self._around.monotonic() + LOOK_EACH
            waits.append(max(0.0, self._look_at - self._around.monotonic()))
        return min(waits, default=None)

    def _look(self) -> None:
        now = self._around.clock()
        try:
            if any(each.expires_at <= now and each.state == "pending" for each in self._open.values()):
                for proposal in self.proposals.expire(self._run.plan.id, now):
                    self._done(proposal, None)
            version = self.proposals.store.data_version()
            if version == self._version and not self._applying.left:
                return
            found = self.proposals.get(self._open) if self._open else []
        except StateError:
            return  # the store is locked or the disk is full: nothing is decided by that, and the next look is soon
        self._version = version
        for proposal in found:
            self._changed(proposal)
        self._applying.go()

    def _changed(self, proposal: Proposal) -> None:
        before = self._open[proposal.id]
        self._open[proposal.id] = proposal
        if proposal.state == before.state:
            return
        if proposal.state == "approved" and proposal.ask.kind in APPLIES:
            self._applying.add(proposal)
        elif proposal.state != "pending":
            self._done(proposal, None)

    def _done(self, proposal: Proposal, grant: Grant | None) -> None:
        """It is final, and in the store: everybody who waits is told."""
        self._open.pop(proposal.id, None)
        self._survey_at = _NEVER
        if proposal.state == "rejected" and not self._may_ask_again(proposal):
            self._refusals.add(proposal)
        for tell in list(self._told.pop(proposal.id, {}).values()):
            tell(proposal, grant)

    def _may_ask_again(self, proposal: Proposal) -> bool:
        try:
            decision = self.proposals.decisions([proposal.id]).get(proposal.id)
        except StateError:
            return False
        return decision is not None and decision.again

    # What others of the keeper need

    def over(self, base: EgressPolicy) -> EgressPolicy:
        """What is to be enforced when `base` is the bottle's policy: with the grants that hold."""
        return self.holding.policy(base=base)

    def rebased(self, base: EgressPolicy) -> None:
        """`base` (and the grants) are in force."""
        self.holding.base = base
        try:
            self.proposals.stand(self._run.plan.id, self.holding.standing())
        except StateError:
            return  # what is shown is computed on the old one then, and refused when it is to be enforced

    def end(self, why: str = "the run ended") -> None:
        """The run is over: nothing of it is open any more, and no grant holds."""
        self.holding.write_uses()
        self._applying.settle()
        for proposal in self.proposals.close_run(self._run.plan.id, why):
            self._done(proposal, None)
        self.holding.grants.clear()
