"""The grants of one run that hold: what they add to its policy, and when each ends.

The policy in force is the base (the bottle's file, at the start or at the last reload) and the routes of the grants that hold. A
grant ends in this order: the policy without it is enforced, and then the record says that it ended.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from bot_bottle.errors import StateError
from bot_bottle.launch.asks_git import GitGrants
from bot_bottle.launch.change import Change, Changes
from bot_bottle.launch.wishes import After, Kept
from bot_bottle.policy.approval import Grant
from bot_bottle.policy.approval_change import Standing, effective
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.state.proposals import Proposals

UNUSED_AFTER = 3600.0
"""Seconds after which a grant that was never used is withdrawn; what stands in the bottle's file stays."""
WRITTEN_EACH = 60.0
"""Seconds between two uses of one grant that are written down; those in between are counted."""
TRY_AGAIN = 1.0

Told = Callable[[bool, str], None]
"""Is told whether a grant has ended, and why not."""


class Holding:
    """Keeps them. `base` is the policy without any grant."""

    def __init__(
        self, run: Kept, proposals: Proposals, changes: Callable[[], Changes], after: After,
        *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._run = run
        self._proposals = proposals
        self._changes = changes
        self._after = after
        self._clock = clock
        self.base = run.policy
        self.grants: dict[str, Grant] = {}
        self.git = GitGrants(lambda: run.gate)
        self._git_ending: set[str] = set()
        self._ending: dict[str, str] = {}
        self._told: dict[str, list[Told]] = {}
        self._asked = False
        self._uses: dict[str, int] = {}
        self._written: dict[str, float] = {}
        self._unwritten: set[str] = set()
        self._early: set[str] = set()
        """Used under a bundle that was replaced before it was heard to confirm them."""

    def policy(self, further: Iterable[Grant] = (), *, base: EgressPolicy | None = None) -> EgressPolicy:
        """What is to be enforced: the base, the grants that hold and are not about to end, and `further` ones."""
        holding = [grant for grant in self.grants.values() if grant.id not in self._ending]
        every = sorted((*holding, *further), key=lambda grant: (grant.since, grant.id))
        return effective(self.base if base is None else base, [(grant, grant.routes) for grant in every])

    def standing(self) -> Standing:
        """What the run enforces, for those who have to judge what would change."""
        config = self._run.sidecar.config
        names = tuple(sorted(config.credentials)) if config else ()
        return Standing(
            self.base, self._run.policy, self._run.plan.trust is not None, names, self.git.in_force()
        )

    def usable(self) -> Standing:
        """The same for those who have to know what would pass now: without what was good for one use and is used."""
        standing = self.standing()
        return standing._replace(in_force=self.fresh(standing.in_force))

    def add(self, grants: Iterable[Grant], *, unwritten: bool = False) -> None:
        """They are in force. Those that are `unwritten` end only once the record has them, after `written`."""
        for grant in grants:
            self.grants[grant.id] = grant
            if unwritten:
                self._unwritten.add(grant.id)
            if grant.id in self._early:
                self._early.discard(grant.id)
                self._uses[grant.id] = 1

    def written(self, grants: Mapping[str, Grant]) -> None:
        """The record has them, by their proposals."""
        self._unwritten.difference_update(grant.id for grant in grants.values())

    def fresh(self, policy: EgressPolicy) -> EgressPolicy:
        """`policy` as a new bundle may get it: one that is good for one use and was used is not good for another bundle."""
        spent = {
            grant.id for grant in self.grants.values() if grant.scope == "once" and self._was_used(grant)
        }
        return policy._replace(
            routes=tuple(route for route in policy.routes if not (route.once and route.grant in spent))
        )

    def bundle_began(self) -> None:
        """Another bundle serves: what `fresh` left out has ended."""
        for each in self.spent():
            self.end(each, "used")

    def spent(self) -> tuple[str, ...]:
        """Those for one use that were used, and have not ended yet."""
        held = self.grants.values()
        return (
            *(grant.id for grant in held if grant.scope == "once" and self._was_used(grant)),
            *self._early,
        )

    def _was_used(self, grant: Grant) -> bool:
        return grant.used > 0 or self._uses.get(grant.id, 0) > 0

    # Uses

    def used(self, grant_id: str) -> None:
        """The bundle says that the grant, which holds or is being put in force, alone allowed something."""
        if grant_id not in self.grants:
            self._early.add(grant_id)
            return
        self._uses[grant_id] = self._uses.get(grant_id, 0) + 1
        if self._clock() - self._written.get(grant_id, 0.0) >= WRITTEN_EACH:
            self.write_uses([grant_id])

    def spent_by_use(self, grant_id: str) -> None:
        """The bundle says that what the grant for one use let through has ended."""
        grant = self.grants.get(grant_id)
        if grant is not None and grant.scope == "once":
            if not self._was_used(grant):
                self.used(grant_id)
            self.end(grant_id, "used")

    def write_uses(self, ids: Iterable[str] | None = None) -> None:
        """Writes down the uses that were only counted."""
        for each in list(self._uses) if ids is None else ids:
            times = self._uses.get(each, 0)
            if not times:
                continue
            now = self._clock()
            try:
                grant = self._proposals.use(each, times, now)
            except StateError:
                continue  # they stay counted, and are written with the next
            self._written[each] = now
            self._uses[each] = 0
            if grant is not None and each in self.grants:
                self.grants[each] = grant

    # Ends

    def end(self, grant_id: str, why: str, told: Told | None = None) -> None:
        """Ends a grant: enforced first, then recorded, then `told`."""
        if grant_id not in self.grants:
            if told is not None:
                told(False, "it does not hold any more")
            return
        self._ending.setdefault(grant_id, why)
        if told is not None:
            self._told.setdefault(grant_id, []).append(told)
        if self.git.holds(grant_id):
            self._git_ending.add(grant_id)
            self.git.end(grant_id, lambda _why: self._git_ended(grant_id))
        elif grant_id not in self._git_ending and not self._asked:
            self._asked = True
            self._ask()

    def _git_ended(self, grant_id: str) -> None:
        """The gate enforces the rules without it, or there is no gate any more."""
        self._git_ending.discard(grant_id)
        self._ended([grant_id], applied=True)

    def gate_died(self) -> None:
        """Nobody knows whether what was good for one use was used."""
        for each in self.git.for_one_use():
            self.end(each, "the git gate ended while it was open")

    def git_pushed(self, remote: str, refs: Sequence[str], *, once: bool) -> None:
        """The upstream has a push to these refs; `once` says whether it took what was good for one use."""
        for each, was_once in self.git.used_by(remote, refs, once=once):
            if was_once:
                self.spent_by_use(each)
            elif each in self.grants:
                self.used(each)

    def _ask(self) -> None:
        ending: list[str] = []

        def make() -> EgressPolicy:
            self._asked = False  # what ends from now on needs another change
            ending.extend(each for each in self._ending if each not in self._git_ending)
            return self.policy()

        why = "; ".join(f"grant {each} ends: {reason}" for each, reason in list(self._ending.items())[:8])
        answer = lambda outcome: self._ended(ending, applied=bool(outcome["applied"]))  # noqa: E731
        self._changes().ask(Change(self._run.policy, "bot-bottle", why[:300], "", answer, make))

    def _ended(self, ids: Sequence[str], *, applied: bool) -> None:
        if not applied and self._run.has_way_out:
            self._after(TRY_AGAIN, self._again)
            return
        if not self._record_ended(ids):
            self._after(TRY_AGAIN, self._again)
            return
        for each in ids:
            self.grants.pop(each, None)
            self._ending.pop(each, None)
            self._uses.pop(each, None)
            for told in self._told.pop(each, []):
                told(True, "")

    def _record_ended(self, ids: Sequence[str]) -> bool:
        """Whether the record has it, which can't be before it has that they began."""
        if not self._unwritten.isdisjoint(ids):
            return False
        self.write_uses(ids)
        by_reason: dict[str, list[str]] = {}
        for each in ids:
            if each in self.grants:
                by_reason.setdefault(self._ending[each], []).append(each)
        try:
            for why, together in by_reason.items():
                self._proposals.end_grants(together, why, standing=self.standing())
        except StateError:
            return False
        return True

    def _again(self) -> None:
        if self._ending and not self._asked:
            self._asked = True
            self._ask()

    def look(self) -> float | None:
        """Ends those whose time is over or that nobody used; seconds until the next one may be due."""
        now = self._clock()
        due = {each: self._due(grant) for each, grant in self.grants.items() if each not in self._ending}
        for each, (at, why) in due.items():
            if at and at <= now:
                self.end(each, why)
        waits = [at - now for at, _ in due.values() if at > now]
        if any(self._uses.values()):
            waits.append(WRITTEN_EACH)
            self.write_uses(
                [each for each in self._uses if now - self._written.get(each, 0.0) >= WRITTEN_EACH]
            )
        return min(waits, default=None)

    def _due(self, grant: Grant) -> tuple[float, str]:
        unused = 0.0
        if grant.scope != "manifest" and not self._was_used(grant):
            unused = grant.since + UNUSED_AFTER
        if grant.until and (not unused or grant.until <= unused):
            return grant.until, "its time is over"
        return unused, "not used for an hour"
