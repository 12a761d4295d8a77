"""From a yes in the store to a policy in force and a grant in the store: several at once, each checked against what was shown.

What is enforced adds and removes the lines that the decision covered, and no other. When it does not any more, because the bottle's
file was read anew meanwhile, the proposal fails and has to be looked at again.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bot_bottle.errors import StateError
from bot_bottle.launch.asks_holding import TRY_AGAIN, Holding
from bot_bottle.launch.change import Change
from bot_bottle.launch.wishes import Kept
from bot_bottle.policy import approval_git
from bot_bottle.policy.approval import Grant, Proposal
from bot_bottle.policy.approval_show import OF_POLICY, changed, digest, grant_id, routes_of
from bot_bottle.policy.difference import line_of
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.policy.sound import flaws, hindrance
from bot_bottle.state.proposals import Outcome, Proposals
from bot_bottle.state.rows import Decision

if TYPE_CHECKING:
    from bot_bottle.launch.asks import Around

CHANGED = "the policy changed meanwhile; look again"
Done = Callable[[Proposal, Grant | None], None]
Passes = Callable[[Proposal], bool]
"""Lets a request go that waits for a proposal, and changes no policy; whether it still waited."""


class _Batch:
    """What is put in force together. `alone` is whether it is one that is tried by itself."""

    def __init__(self, proposals: list[Proposal]) -> None:
        self.proposals = proposals
        self.grants: dict[str, Grant] = {}
        self.failed: dict[str, str] = {}
        self.notes: dict[str, str] = {}


class Applying:
    """The approved proposals of one run that are not in force yet; `done` hears what became of each, once the store has it."""

    def __init__(
        self, run: Kept, proposals: Proposals, holding: Holding, around: "Around", done: Done, passes: Passes
    ) -> None:  # fmt: skip
        self._run = run
        self._proposals = proposals
        self._holding = holding
        self._around = around
        self._done = done
        self._passes = passes
        self._unwritten: list[tuple[list[Outcome], dict[str, Grant]]] = []
        self._waiting: dict[str, Proposal] = {}
        self._alone: list[Proposal] = []
        self._busy = False

    @property
    def left(self) -> bool:
        """Whether something waits to be put in force."""
        return bool(self._waiting or self._alone) and not self._busy

    def add(self, proposal: Proposal) -> None:
        """It was approved."""
        self._waiting[proposal.id] = proposal

    def go(self) -> None:
        """Puts in force what waits, with one change of the policy."""
        if self._busy or not self.left:
            return
        if self._alone:
            together = [self._alone.pop(0)]
        else:
            together, self._waiting = list(self._waiting.values()), {}
        try:
            decisions = self._proposals.decisions(each.id for each in together)
        except StateError:
            self._waiting |= {each.id: each for each in together}  # the next look tries again
            return
        for each in together:
            if each.ask.kind == "git":
                self._grant_push(each, decisions.get(each.id))
        others = [each for each in together if each.ask.kind != "git"]
        if passing := [each for each in others if each.ask.kind not in OF_POLICY]:
            self._finish([self._passed(each) for each in passing], {})
        if changing := [each for each in together if each.ask.kind in OF_POLICY]:
            self._busy = True
            self._order(_Batch(changing), decisions)
        else:
            self.go()

    def _passed(self, proposal: Proposal) -> Outcome:
        if self._passes(proposal):
            return Outcome(proposal.id, "applied")
        return Outcome(proposal.id, "failed", "the request did not wait any longer")

    def _grant_push(self, proposal: Proposal, decision: Decision | None) -> None:
        """Has the git gate let it pass; applied once that says so."""
        why = self._objection(proposal, decision) if decision else "nobody decided it"
        if why or decision is None:
            self._finish([Outcome(proposal.id, "failed", why)], {})
            return
        grant = self._grant(proposal, decision)

        def told(why_not: str) -> None:
            if why_not:
                self._finish([Outcome(proposal.id, "failed", why_not[:300])], {})
            else:
                self._finish([Outcome(proposal.id, "applied", "", grant)], {proposal.id: grant})

        self._holding.git.add(grant.id, approval_git.wish(proposal.ask.subject), grant.scope, told)

    def _order(self, batch: _Batch, decisions: dict[str, Decision]) -> None:
        who = ", ".join(sorted({decision.who for decision in decisions.values()}))[:200]
        why = f"approved: {', '.join(each.id for each in batch.proposals)}"[:300]
        self._around.changes().ask(
            Change(
                policy=self._run.policy,
                who=who,
                why=why,
                expecting="",
                answer=lambda outcome: self._answered(batch, outcome),
                make=lambda: self._made(batch, decisions),
            )
        )

    def _made(self, batch: _Batch, decisions: dict[str, Decision]) -> EgressPolicy:
        """The policy with everything of the batch that is still what was shown; computed when its turn has come."""
        for proposal in batch.proposals:
            decision = decisions.get(proposal.id)
            why = self._objection(proposal, decision) if decision else "nobody decided it"
            if why or decision is None:
                batch.failed[proposal.id] = why
            else:
                batch.grants[proposal.id] = self._grant(proposal, decision)
        return self._holding.policy(batch.grants.values())

    def _grant(self, proposal: Proposal, decision: Decision) -> Grant:
        terms = decision.terms
        now = self._around.clock()
        return Grant(
            id=grant_id(proposal.id),
            proposal=proposal.id,
            run=proposal.run,
            scope=terms.scope,
            routes=routes_of(proposal, terms),
            since=now,
            until=now + terms.seconds if terms.scope == "time" else 0.0,
        )

    def _objection(self, proposal: Proposal, decision: Decision) -> str:
        """Why it can't be put in force as it was shown; empty when it can."""
        standing = self._holding.standing()
        stated = digest(proposal, standing, decision.terms, decision.added, decision.removed)
        if decision.policy != standing.base.fingerprint() or decision.digest != stated:
            return CHANGED
        change = changed(standing, proposal, decision.terms)
        if (change.added, change.removed) != (decision.added, decision.removed):
            return CHANGED
        new = change.new
        return "; ".join(flaws(new)[:3]) or hindrance(
            standing.in_force, new, trusts=standing.trusts, credentials=standing.credentials
        )

    def _answered(self, batch: _Batch, outcome: dict[str, Any]) -> None:
        self._busy = False
        failed = [Outcome(name, "failed", why) for name, why in batch.failed.items()]
        tried = [each for each in batch.proposals if each.id in batch.grants]
        if not outcome["applied"]:
            if len(tried) > 1:
                self._alone += tried  # one of them spoils it for the others: each by itself
            else:
                failed += [Outcome(each.id, "failed", str(outcome["reason"])[:300]) for each in tried]
            tried = []
        for each in tried:
            self._write_file(batch, each)
        applied = [
            Outcome(each.id, "applied", batch.notes.get(each.id, ""), batch.grants[each.id]) for each in tried
        ]
        self._finish([*applied, *failed], {each.id: batch.grants[each.id] for each in tried})
        self.go()

    def _write_file(self, batch: _Batch, proposal: Proposal) -> None:
        """For good: what is in force goes into the bottle's file as well, before anybody is told that it does."""
        grant = batch.grants[proposal.id]
        if grant.scope == "manifest":
            from bot_bottle.launch.asks_file import add_routes

            plan = self._run.plan
            why_not = add_routes(plan.bottle_file, [line_of(route) for route in grant.routes], plan.id)
            if why_not:
                batch.grants[proposal.id] = grant._replace(scope="bottle")
                batch.notes[proposal.id] = (
                    f"for this run only: the bottle's file could not be changed ({why_not})"[:300]
                )

    def _finish(self, outcomes: list[Outcome], grants: dict[str, Grant]) -> None:
        if not outcomes:
            return
        self._holding.add(grants.values(), unwritten=True)
        self._unwritten.append((outcomes, grants))
        if len(self._unwritten) == 1:
            self._write()

    def _write(self) -> None:
        """Nobody hears that something is in force before the record has it: while that can't be written, it is tried again."""
        try:
            self.settle()
        except StateError:
            self._around.after(TRY_AGAIN, self._write)

    def settle(self) -> None:
        """Writes down what became of those that were tried, and tells. Raises StateError; then the rest is left to be written."""
        while self._unwritten:
            outcomes, grants = self._unwritten[0]
            done = self._proposals.finish(outcomes, standing=self._holding.standing())
            del self._unwritten[0]
            self._holding.written(grants)
            for proposal in done:
                self._done(proposal, grants.get(proposal.id))
