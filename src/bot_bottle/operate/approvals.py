"""Approvals as every front end uses them: what waits, what it would change, and the operator's answer."""

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from bot_bottle.errors import BotBottleError, NotFoundError, StateError
from bot_bottle.policy.approval import Approval, Decided, Grant, Proposal, Shown, Terms

if TYPE_CHECKING:
    from bot_bottle.policy.approval_change import Standing
    from bot_bottle.state.proposals import Judge
    from bot_bottle.state.rows import Decision
    from bot_bottle.state.store import Store


class Desk(Protocol):
    """What the inbox in the terminal, the one in the browser, and `bot-bottle approvals` are thin over.

    Every method may be called again and again from one thread; each raises StateError when the store fails.
    """

    def waiting(self) -> list[Shown]:
        """Every proposal that waits, of all runs, the oldest first, each on the terms that are offered first."""

    def decided(self, limit: int = 50) -> list[Shown]:
        """Those that wait no more, the latest first."""

    def show(self, reference: str, terms: Terms | None = None) -> Shown:
        """The proposal whose id is or begins with `reference`, on `terms` (None: those offered first). Raises NotFoundError."""

    def edit(self, reference: str, text: str, terms: Terms) -> Shown:
        """It on `terms`, with the routes that `text` has, written as under `egress: routes:` of a bottle's file.

        Raises ManifestError (with `LINE: what`) when it is none. What does not fit is `problem` of what is shown.
        """

    def routes_text(self, shown: Shown) -> str:
        """Its routes as `edit` takes them."""

    def file_diff(self, shown: Shown) -> str:
        """What an approval for good would change in the bottle's file, as a unified diff; empty when it would change nothing.

        Raises PlanError when the file can't be changed by program, ManifestError when it would be wrong then.
        """

    def approve(self, approvals: Sequence[Approval], *, wait: float = 10.0) -> list[Decided]:
        """Decides all of them at once, and waits that many seconds for each to be seen enforced (0: not at all)."""

    def reject(
        self, references: Sequence[str], reason: str = "", *, may_ask_again: bool = False
    ) -> list[Decided]:
        """Refuses all of them. Variants of each are refused likewise for an hour, unless the agent `may_ask_again`."""

    def grants(self, run: str | None = None) -> list[Grant]:
        """Those that hold now, of one run or of all."""

    def withdraw(self, grant: str) -> None:
        """Ends a grant, and waits until that is enforced. Raises NotFoundError."""

    def present(self) -> AbstractContextManager[None]:
        """While in it, agents that ask are told that somebody is there."""

    def changed(self, seconds: float) -> bool:
        """Waits until something may have changed since the last call, or so long; whether it may have."""


REASON = 500
"""Characters of an operator's reason."""
_LOOK_EACH = 0.02
_POKE_WITHIN = 2.0
_END_WITHIN = 45.0
_FINAL = ("applied", "failed", "rejected", "expired", "withdrawn")


class Approvals:
    """Keeps `Desk`, over the operator's store. For one process and thread; `close` it."""

    def __init__(self, store: "Store", *, who: str = "") -> None:
        from bot_bottle.operate.approval_view import View

        self._store = store
        self._view = View(store)
        self._proposals = self._view.proposals
        self._who = who or _user()
        self._seen = -1

    @classmethod
    def open(cls) -> "Approvals":
        """At the operator's own store, made when there is none. Raises StateError."""
        from bot_bottle.operate.record import open_store

        return cls(open_store())

    def close(self) -> None:
        """Closes the store."""
        self._store.close()

    def __enter__(self) -> "Approvals":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What there is

    def waiting(self) -> list[Shown]:
        found = self._proposals.pending()
        alive = {run: self._alive(run) for run in {each.run for each in found}}
        return self._view.show([each for each in found if alive[each.run]])

    def _alive(self, run: str) -> bool:
        """Whether anybody could carry out an answer: the run of a keeper that died is only there until it is put away."""
        from bot_bottle.host.locks import keeper_alive

        try:
            record = self._store.run(run)
        except NotFoundError:
            return False
        return record.state != "ended" and keeper_alive(record.run_path)

    def decided(self, limit: int = 50) -> list[Shown]:
        return self._view.show(self._proposals.decided(limit))

    def show(self, reference: str, terms: Terms | None = None) -> Shown:
        return self._view.show([self._proposals.find(reference)], terms)[0]

    def alike(self, shown: Shown) -> list[Shown]:
        """The proposals of other runs that ask for the same, on the same terms, and would change the same with the same effect.

        One of which anything that counts differs has to be looked at by itself, and is not among them.
        """
        others = [self.show(each, shown.terms) for each in shown.alike]
        return [each for each in others if _weight(each) == _weight(shown)]

    def edit(self, reference: str, text: str, terms: Terms) -> Shown:
        from bot_bottle.operate.approval_text import routes_of

        return self.show(reference, terms._replace(routes=routes_of(text)))

    def routes_text(self, shown: Shown) -> str:
        from bot_bottle.operate.approval_text import text_of
        from bot_bottle.policy.approval_show import routes_of

        return text_of(routes_of(shown.proposal, shown.terms))

    def file_diff(self, shown: Shown) -> str:
        """What an approval for good would change in the bottle's file, as a unified diff; empty when it would change nothing.

        Raises PlanError when the file can't be changed by program, ManifestError when it would be wrong then.
        """
        from bot_bottle.operate.approval_file import diff

        return diff(shown)

    # Decisions

    def approve(self, approvals: Sequence[Approval], *, wait: float = 10.0) -> list[Decided]:
        problems = {each.id: why for each in approvals if (why := self._file_problem(each))}
        given = {each.id: each for each in approvals if each.id not in problems}

        def judge(proposal: Proposal, standing: "Standing") -> "Decision | str":
            return self._judge(given[proposal.id], proposal, standing)

        done = self._decide([each.id for each in approvals if each.id in given], judge)
        done += [Decided(name, "pending", why) for name, why in problems.items()]
        if wait > 0:
            done = self._wait(done, wait)
        order = {each.id: number for number, each in enumerate(approvals)}
        return sorted(done, key=lambda each: order.get(each.id, 0))

    def _judge(self, approval: Approval, proposal: Proposal, standing: "Standing") -> "Decision | str":
        """Whether what would be approved is what was shown, on what the store says now."""
        from bot_bottle.policy import approval_show
        from bot_bottle.state.rows import Decision

        terms = approval.terms
        change = approval_show.changed(standing, proposal, terms)
        added, removed = change.added, change.removed
        if approval.digest != approval_show.digest(proposal, standing, terms, added, removed):
            return "it is not what was shown: something changed meanwhile; look again"
        if why := approval_show.problem(proposal, standing, terms, change):
            return why
        return Decision(
            proposal=proposal.id, verdict="approved", at=time.time(), who=self._who, digest=approval.digest,
            policy=standing.base.fingerprint(), terms=terms, added=added, removed=removed,
        )  # fmt: skip

    def _file_problem(self, approval: Approval) -> str:
        """Why it can't go into the bottle's file; empty when it can, or is not meant to."""
        if approval.terms.scope != "manifest":
            return ""
        try:
            self.file_diff(self.show(approval.id, approval.terms))
        except BotBottleError as error:
            return f"{error.brief}{': ' if error.details else ''}{error.details}"[:500]
        return ""

    def reject(
        self, references: Sequence[str], reason: str = "", *, may_ask_again: bool = False
    ) -> list[Decided]:
        from bot_bottle.policy.approval_text import clean
        from bot_bottle.state.rows import Decision

        said = clean(reason, REASON)
        now = time.time()

        def judge(proposal: Proposal, standing: "Standing") -> "Decision":
            policy = standing.base.fingerprint()
            return Decision(
                proposal.id, "rejected", now, self._who, policy=policy, reason=said, again=may_ask_again
            )

        return self._decide([self._proposals.find(each).id for each in references], judge)

    def _decide(self, ids: Sequence[str], judge: "Judge") -> list[Decided]:
        if not ids:
            return []
        found = self._proposals.decide(ids, judge)
        self._view.changed()
        decided = {each.id for each in found if not each.problem}
        runs = {each.run for each in self._proposals.get(decided)} if decided else set()
        for run in sorted(runs):
            self._poke(run)
        return found

    def _poke(self, run: str) -> None:
        """Tells the run's keeper to look; one that does not hear it looks by itself, and one that is dead is reaped."""
        from bot_bottle.launch import control

        try:
            with control.connect(self._store.run(run).run_path, {"want": "decided"}):
                return
        except (BotBottleError, OSError):
            return

    def _wait(self, done: list[Decided], seconds: float) -> list[Decided]:
        """Until those that were approved are final, or are of a kind that is only recorded."""
        from bot_bottle.policy.approval_show import APPLIES

        end = time.monotonic() + seconds
        open_ = {each.id for each in done if not each.problem and each.state == "approved"}
        found: dict[str, Proposal] = {}
        while open_:
            found |= {each.id: each for each in self._proposals.get(open_)}
            open_ = {
                name for name in open_ if found[name].state not in _FINAL and found[name].ask.kind in APPLIES
            }
            if not open_ or time.monotonic() >= end:
                break
            self._close_dead({found[name].run for name in open_})
            time.sleep(_LOOK_EACH)
        return [_outcome(each, found.get(each.id), each.id in open_) for each in done]

    def _close_dead(self, runs: set[str]) -> None:
        """What waits for a keeper that died will never be in force."""
        from bot_bottle.host.locks import keeper_alive

        for run in runs:
            record = self._store.run(run)
            if record.state == "ended" or not keeper_alive(record.run_path):
                self._proposals.close_run(
                    run, "its keeper died" if record.state != "ended" else "the run ended"
                )

    # Grants

    def grants(self, run: str | None = None) -> list[Grant]:
        return self._proposals.grants(None if run is None else self._store.run(run).id)

    def withdraw(self, grant: str) -> None:
        from bot_bottle.launch import control

        fitting = [each for each in self._proposals.grants() if each.id == grant] or [
            each for each in self._proposals.grants() if grant and each.id.startswith(grant)
        ]
        if len(fitting) != 1:
            raise NotFoundError(
                f"There is no grant {grant!r} that holds", resolution="bot-bottle approvals grants"
            )
        [found] = fitting
        record = self._store.run(found.run)
        said = control.ask(record.run_path, {"want": "withdraw", "grant": found.id}, seconds=_END_WITHIN)
        if not said["ended"]:
            raise StateError("The grant was not withdrawn", details=str(said["why"]))

    # Waiting

    def present(self) -> AbstractContextManager[None]:
        from bot_bottle.operate.presence import present

        return present()

    def changed(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (now := self._store.data_version()) == self._seen:
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_LOOK_EACH, left))
        self._seen = now
        return True


def _weight(shown: Shown) -> tuple[object, ...]:
    """What counts of a proposal for whoever decides, but for whose it is and how much was refused so far."""
    effect = shown.effect._replace(requests=0, hosts=0)
    return shown.added, shown.removed, effect, shown.applies, shown.problem, shown.credentials_of


def _outcome(decided: Decided, proposal: Proposal | None, waits: bool) -> Decided:
    if proposal is None:
        return decided
    why = ""
    if waits:
        why = "it is decided, and not seen in force yet"
    elif proposal.state == "failed":
        why = proposal.reason or "it could not be put in force"
    return Decided(proposal.id, proposal.state, why)


def _user() -> str:
    """Who decides, as the system knows them."""
    import pwd

    try:
        return f"{pwd.getpwuid(os.geteuid()).pw_name} (uid {os.geteuid()})"
    except KeyError:
        return f"uid {os.geteuid()}"
