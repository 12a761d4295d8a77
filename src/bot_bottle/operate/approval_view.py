"""Proposals as operators are shown them, from the store alone; what was computed once is kept while nothing changes."""

from collections.abc import Sequence

from bot_bottle.errors import NotFoundError
from bot_bottle.policy.approval import Proposal, Shown, Terms
from bot_bottle.policy.approval_change import Standing
from bot_bottle.policy.approval_effect import Refusals
from bot_bottle.policy.approval_show import shown
from bot_bottle.state.model import RunRecord
from bot_bottle.state.proposals import Proposals
from bot_bottle.state.rows import Decision
from bot_bottle.state.store import Store

_KINDS = ("egress.refused", "dns.refused", "git.refused")
MOST_READ = 20_000
"""Refusals that are looked at: of a run that had more before anybody looked, the latest. An agent can make any number."""
_GONE = ("(forgotten)", "(forgotten)")


class View:
    """What is shown of the proposals in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.proposals = Proposals(store)
        self._version = -1
        self._names: dict[str, tuple[str, str]] = {}
        self._standings: dict[str, Standing] = {}
        self._refusals: dict[str, tuple[int, Refusals]] = {}
        self._made: dict[tuple[object, ...], Shown] = {}

    def show(self, found: Sequence[Proposal], terms: Terms | None = None) -> list[Shown]:
        """Each of them on `terms` (None: those offered first)."""
        self._refresh()
        alike = self.proposals.alike()
        over = [each.id for each in found if each.state != "pending"]
        decisions = self.proposals.decisions(over) if over else {}
        return [_as_decided(self._show(each, terms, alike), decisions.get(each.id)) for each in found]

    def standing(self, run: str) -> Standing:
        """What the run enforces."""
        self._refresh()
        if run not in self._standings:
            self._standings[run] = self.proposals.standing(run)
        return self._standings[run]

    def _refresh(self) -> None:
        """Forgets what may have changed. Own writes don't show in the version, and need `changed`."""
        version = self._store.data_version()
        if version != self._version:
            self._version = version
            self.changed()

    def changed(self) -> None:
        """Something was written."""
        self._standings.clear()
        if len(self._made) > 4096:
            self._made.clear()

    def _show(
        self, proposal: Proposal, terms: Terms | None, alike: dict[str, list[tuple[str, str]]]
    ) -> Shown:
        standing = self.standing(proposal.run)
        after, refusals = self._seen(proposal.run)
        others = tuple(name for name, run in alike.get(proposal.ask.content(), ()) if run != proposal.run)
        key = (proposal.id, proposal.state, proposal.repeats, terms, standing, after)
        made = self._made.get(key)
        if made is None:
            agent, bottle = self._who(proposal.run)
            made = shown(proposal, standing, terms, agent=agent, bottle=bottle, refusals=refusals)
            self._made[key] = made
        return made._replace(alike=others if proposal.state == "pending" else ())

    def _seen(self, run: str) -> tuple[int, Refusals]:
        """What was refused in the run so far; only what is new is read."""
        after, refusals = self._refusals.get(run, (0, Refusals()))
        for number, kind, data in self._store.data_since(run, after=after, kinds=_KINDS, most=MOST_READ):
            refusals.add(kind, data)
            after = number
        self._refusals[run] = (after, refusals)
        return after, refusals

    def _who(self, run: str) -> tuple[str, str]:
        if run not in self._names:
            try:
                record: RunRecord = self._store.run(run)
                self._names[run] = (record.agent, record.bottle)
            except NotFoundError:
                self._names[run] = _GONE
        return self._names[run]


def _as_decided(made: Shown, decision: Decision | None) -> Shown:
    """What waits no more, as it was shown to whoever approved it; what it would change now is another question."""
    if made.proposal.state == "pending":
        return made
    made = made._replace(effect=made.effect._replace(requests=0, hosts=0, notes=()))
    if decision is None or decision.verdict != "approved":
        return made
    return made._replace(
        terms=decision.terms, added=decision.added, removed=decision.removed, digest=decision.digest
    )
