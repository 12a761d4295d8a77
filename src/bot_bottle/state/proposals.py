"""Proposals, decisions and grants in the store: every change in one transaction with its event, which names the row's digest.

A proposal is decided once: `UPDATE … WHERE state = 'pending'` in the transaction that writes the decision, so of many who
decide at once one wins and the others are told. Nothing here judges; that is for those who call.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bot_bottle.errors import NotFoundError, StateError
from bot_bottle.events import NewEvent
from bot_bottle.policy.approval import Decided, Grant, Proposal, State
from bot_bottle.policy.approval_change import Standing
from bot_bottle.policy.approval_show import APPLIES
from bot_bottle.state.rows import (
    COLUMNS,
    Decision,
    decision_from,
    decision_row,
    digest_of,
    grant_from,
    grant_row,
    proposal_from,
    proposal_row,
)
from bot_bottle.state.store import Store

if TYPE_CHECKING:
    import sqlite3

Judge = Callable[[Proposal, Standing], "Decision | str"]
"""What is decided on a proposal that is pending, or why nothing is."""


class Outcome(NamedTuple):
    """What became of a proposal that was open: its new state, why, and the grant that it got."""

    id: str
    state: State
    reason: str = ""
    grant: Grant | None = None


class Proposals:
    """Those in an open store. For one process and thread, as the store is."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock

    # -- made ----------------------------------------------------------------------------------------------------------

    def add(self, proposal: Proposal, standing: Standing) -> Proposal:
        """Remembers it, on the disk before this returns; or gives the open one of its run that asks for the same."""

        def work(connection: "sqlite3.Connection") -> tuple[Proposal, list[NewEvent]]:
            content = proposal.ask.content()
            there = connection.execute(
                f"{_SELECT['proposals']} WHERE run = ? AND content = ? AND state IN ('pending', 'approved')",
                (proposal.run, content),
            ).fetchone()
            if there is not None:
                return proposal_from(there), []
            row = proposal_row(proposal)
            _insert(connection, "proposals", row)
            _stand(connection, proposal.run, standing)
            data = {
                "kind": proposal.ask.kind,
                "policy": standing.base.fingerprint(),
                "words": proposal.ask.words,
            }
            return proposal, [self._event("made", proposal, row, data)]

        return self.store.transact(work)  # type: ignore[no-any-return]

    def repeat(self, proposal: str, times: int = 1) -> None:
        """Remembers that the agent asked for it again, while it is open."""
        self._change(
            [proposal],
            ("pending", "approved"),
            lambda one: one._replace(repeats=one.repeats + times),
            "repeated",
        )

    def stand(self, run: str, standing: Standing) -> None:
        """Remembers what a run enforces."""

        def work(connection: "sqlite3.Connection") -> tuple[None, list[NewEvent]]:
            _stand(connection, run, standing)
            return None, []

        self.store.transact(work)

    # -- decided -------------------------------------------------------------------------------------------------------

    def decide(self, ids: Sequence[str], judge: Judge) -> list[Decided]:
        """Decides all of them that are pending and that `judge` has an answer to, in one transaction."""

        def work(connection: "sqlite3.Connection") -> tuple[list[Decided], list[NewEvent]]:
            standings: dict[str, Standing] = {}
            found = [self._decide(connection, each, judge, standings) for each in ids]
            return [decided for decided, _ in found], [event for _, event in found if event is not None]

        return self.store.transact(work)  # type: ignore[no-any-return]

    def _decide(
        self, connection: "sqlite3.Connection", reference: str, judge: Judge, standings: dict[str, Standing]
    ) -> tuple[Decided, NewEvent | None]:
        row = connection.execute(f"{_SELECT['proposals']} WHERE id = ?", (reference,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no proposal {reference!r}", resolution="bot-bottle approvals list")
        proposal = proposal_from(row)
        if proposal.state == "pending" and proposal.expires_at <= self._clock():
            return Decided(proposal.id, "pending", "it has expired"), None
        if proposal.state != "pending":
            return Decided(proposal.id, proposal.state, f"it was decided already: {proposal.state}"), None
        if proposal.run not in standings:
            standings[proposal.run] = _standing(connection, proposal.run)
        verdict = judge(proposal, standings[proposal.run])
        if isinstance(verdict, str):
            return Decided(proposal.id, "pending", verdict), None
        state: State = "approved" if verdict.verdict == "approved" else "rejected"
        ended = 0.0 if state == "approved" else verdict.at
        new = proposal._replace(state=state, decided_at=verdict.at, ended_at=ended, reason=verdict.reason)
        if not _update(connection, new, ("pending",)):
            return Decided(proposal.id, "pending", "somebody else was first"), None
        answer = decision_row(verdict)
        _insert(connection, "decisions", answer)
        data = {"who": verdict.who, "scope": verdict.terms.scope, "seconds": verdict.terms.seconds,
                "shown": verdict.digest, "reason": verdict.reason, "decision": digest_of("decisions", answer),
                "lines": list(verdict.added)}  # fmt: skip
        return Decided(proposal.id, state), self._event(state, new, proposal_row(new), data)

    # -- ended ---------------------------------------------------------------------------------------------------------

    def finish(
        self,
        outcomes: Sequence[Outcome],
        *,
        before: Sequence[State] = ("approved",),
        standing: Standing | None = None,
    ) -> list[Proposal]:
        """Writes down what became of proposals that are in a state of `before`, with their grants, in one transaction.

        Gives them as they are now; one that was in another state is left as it was, and out.
        """

        def work(connection: "sqlite3.Connection") -> tuple[list[Proposal], list[NewEvent]]:
            done: list[Proposal] = []
            events: list[NewEvent] = []
            for outcome in outcomes:
                row = connection.execute(f"{_SELECT['proposals']} WHERE id = ?", (outcome.id,)).fetchone()
                if row is None or row[7] not in before:
                    continue
                new = proposal_from(row)._replace(
                    state=outcome.state, ended_at=self._clock(), reason=outcome.reason
                )
                if not _update(connection, new, before):
                    continue
                data: dict[str, Any] = {"reason": outcome.reason}
                if outcome.grant is not None:
                    granted = grant_row(outcome.grant)
                    _insert(connection, "grants", granted)
                    data |= {"grant": outcome.grant.id, "grant_row": digest_of("grants", granted)}
                done.append(new)
                events.append(self._event(outcome.state, new, proposal_row(new), data))
            if standing is not None and done:
                _stand(connection, done[0].run, standing)
            return done, events

        return self.store.transact(work)  # type: ignore[no-any-return]

    def expire(self, run: str, now: float) -> list[Proposal]:
        """Those of `run` that were pending and whose time is over, expired."""
        due = self.store.rows(
            "SELECT id FROM proposals WHERE run = ? AND state = 'pending' AND expires_at <= ?", run, now
        )
        outcomes = [Outcome(row[0], "expired", "nobody answered in time") for row in due]
        return self.finish(outcomes, before=("pending",)) if outcomes else []

    def close_run(self, run: str, why: str) -> list[Proposal]:
        """What a run that has ended leaves open: withdrawn what is pending, failed what was approved and never seen in force.

        Its grants have ended with it.
        """
        left = self.of_run(run, ("pending", "approved"))
        pending = [Outcome(each.id, "withdrawn", why) for each in left if each.state == "pending"]
        unseen = f"{why} before it was recorded as in force"
        approved = [
            Outcome(each.id, "failed", unseen)
            for each in left
            if each.state == "approved"
            and each.ask.kind in APPLIES  # of the others an approval is all there is
        ]
        done = self.finish(pending, before=("pending",)) if pending else []
        done += self.finish(approved) if approved else []
        if held := self.grants(run):
            self.end_grants([grant.id for grant in held], why)
        return done

    # -- grants --------------------------------------------------------------------------------------------------------

    def use(self, grant: str, times: int, at: float) -> Grant | None:
        """Remembers that something passed that `grant` alone allowed; None when it does not hold any more."""
        found = self._change_grants(
            [grant], lambda one: one._replace(used=one.used + times, used_at=at), "used"
        )
        return found[0] if found else None

    def end_grants(self, grants: Sequence[str], why: str, *, standing: Standing | None = None) -> list[Grant]:
        """Ends those that hold; gives them."""
        now = self._clock()
        return self._change_grants(
            grants, lambda one: one._replace(ended=why, ended_at=now), "ended", standing
        )

    def _change_grants(
        self,
        ids: Sequence[str],
        change: Callable[[Grant], Grant],
        what: str,
        standing: Standing | None = None,
    ) -> list[Grant]:
        def work(connection: "sqlite3.Connection") -> tuple[list[Grant], list[NewEvent]]:
            done, events = [], []
            for each in ids:
                found = connection.execute(
                    f"{_SELECT['grants']} WHERE id = ? AND ended = ''", (each,)
                ).fetchone()
                if found is None:
                    continue
                new = change(grant_from(found))
                row = grant_row(new)
                connection.execute(
                    "UPDATE grants SET used = ?, used_at = ?, ended = ?, ended_at = ? WHERE id = ? AND ended = ''",
                    (*row[7:], new.id),
                )
                data = {"grant": new.id, "proposal": new.proposal, "why": new.ended, "used": new.used,
                        "row": digest_of("grants", row)}  # fmt: skip
                done.append(new)
                events.append(NewEvent(new.run, self._clock(), f"grant.{what}", data))
            if standing is not None and done:
                _stand(connection, done[0].run, standing)
            return done, events

        return self.store.transact(work)  # type: ignore[no-any-return]

    # -- looked at -----------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> Proposal:
        """The proposal whose id is or begins with `reference`. Raises NotFoundError."""
        rows = self.store.rows(
            f"{_SELECT['proposals']} WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1 LIMIT 20", reference
        )
        exact = [row for row in rows if row[0] == reference] or rows
        if reference and len(exact) == 1:
            return proposal_from(exact[0])
        if not reference or not rows:
            raise NotFoundError(
                f"There is no proposal {reference!r}", resolution="bot-bottle approvals list --all"
            )
        ids = "\n".join(f"{row[0]}  {row[7]}" for row in rows)
        raise NotFoundError(
            f"{reference!r} fits several proposals", details=ids, resolution="Name one of them."
        )

    def pending(self) -> list[Proposal]:
        """Those of all runs that wait for an operator, the oldest first."""
        return self._proposals(
            "WHERE state = 'pending' AND expires_at > ? ORDER BY made_at, id", self._clock()
        )

    def alike(self) -> dict[str, list[tuple[str, str]]]:
        """What waits, by what it asks for: the ids and the runs."""
        rows = self.store.rows(
            "SELECT content, id, run FROM proposals WHERE state = 'pending' ORDER BY made_at, id"
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for content, name, run in rows:
            found.setdefault(content, []).append((name, run))
        return found

    def decided(self, limit: int) -> list[Proposal]:
        """Those of all runs that wait no more, the latest first."""
        return self._proposals(
            "WHERE state <> 'pending' ORDER BY max(decided_at, ended_at) DESC, id LIMIT ?", limit
        )

    def of_run(self, run: str, states: Sequence[State]) -> list[Proposal]:
        """Those of `run` in any of `states`, the oldest first."""
        marks = ",".join("?" * len(states))
        return self._proposals(f"WHERE run = ? AND state IN ({marks}) ORDER BY made_at, id", run, *states)

    def get(self, ids: Iterable[str]) -> list[Proposal]:
        """Those with these ids."""
        wanted = list(ids)
        return self._proposals(f"WHERE id IN ({','.join('?' * len(wanted))})", *wanted)

    def decisions(self, ids: Iterable[str]) -> dict[str, Decision]:
        """The decisions on these proposals, by the proposal's id."""
        wanted = list(ids)
        rows = self.store.rows(
            f"{_SELECT['decisions']} WHERE proposal IN ({','.join('?' * len(wanted))})", *wanted
        )
        return {row[0]: decision_from(row) for row in rows}

    def grants(self, run: str | None = None, *, ended: bool = False) -> list[Grant]:
        """Those that hold (or that have `ended`), of one run or of all, the oldest first."""
        which = "ended <> ''" if ended else "ended = ''"
        where, values = (f"WHERE {which}", ()) if run is None else (f"WHERE {which} AND run = ?", (run,))
        return [
            grant_from(row)
            for row in self.store.rows(f"{_SELECT['grants']} {where} ORDER BY since, id", *values)
        ]

    def grant_of(self, proposal: str) -> Grant | None:
        """The grant that `proposal` got, whether it holds or not."""
        rows = self.store.rows(f"{_SELECT['grants']} WHERE proposal = ?", proposal)
        return grant_from(rows[0]) if rows else None

    def standing(self, run: str) -> Standing:
        """What `run` enforces, as its keeper said last; nothing when it said nothing."""
        rows = self.store.rows("SELECT document FROM standings WHERE run = ?", run)
        return _read_standing(rows)

    # -- below ---------------------------------------------------------------------------------------------------------

    def _proposals(self, clause: str, *values: object) -> list[Proposal]:
        return [proposal_from(row) for row in self.store.rows(f"{_SELECT['proposals']} {clause}", *values)]

    def _change(
        self, ids: Sequence[str], before: Sequence[State], change: Callable[[Proposal], Proposal], what: str
    ) -> None:
        def work(connection: "sqlite3.Connection") -> tuple[None, list[NewEvent]]:
            events = []
            for each in ids:
                row = connection.execute(f"{_SELECT['proposals']} WHERE id = ?", (each,)).fetchone()
                if row is not None and row[7] in before:
                    new = change(proposal_from(row))
                    if _update(connection, new, before):
                        events.append(self._event(what, new, proposal_row(new), {"repeats": new.repeats}))
            return None, events

        self.store.transact(work)

    def _event(self, what: str, proposal: Proposal, row: Sequence[object], data: dict[str, Any]) -> NewEvent:
        named = {"proposal": proposal.id, "state": proposal.state, "row": digest_of("proposals", row)}
        return NewEvent(proposal.run, self._clock(), f"proposal.{what}", {**data, **named})


_SELECT = {table: f"SELECT {','.join(columns)} FROM {table}" for table, columns in COLUMNS.items()}  # noqa: S608


def _insert(connection: "sqlite3.Connection", table: str, row: Sequence[object]) -> None:
    marks = ",".join("?" * len(row))
    try:
        connection.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row))  # noqa: S608
    except connection.IntegrityError as error:
        raise StateError(f"A row can't be added to {table}", details=str(error)) from error


def _update(connection: "sqlite3.Connection", new: Proposal, before: Sequence[State]) -> bool:
    """Writes what can change of a proposal, if its state is one of `before`."""
    marks = ",".join("?" * len(before))
    changed = connection.execute(
        "UPDATE proposals SET state = ?, decided_at = ?, ended_at = ?, reason = ?, repeats = ? "  # noqa: S608
        f"WHERE id = ? AND state IN ({marks})",
        (new.state, new.decided_at, new.ended_at, new.reason, new.repeats, new.id, *before),
    )
    return changed.rowcount == 1


def _stand(connection: "sqlite3.Connection", run: str, standing: Standing) -> None:
    text = json.dumps(standing.document(), sort_keys=True, separators=(",", ":"))
    connection.execute(
        "INSERT INTO standings VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET document = excluded.document",
        (run, text),
    )


def _standing(connection: "sqlite3.Connection", run: str) -> Standing:
    return _read_standing(
        connection.execute("SELECT document FROM standings WHERE run = ?", (run,)).fetchall()
    )


def _read_standing(rows: list[Any]) -> Standing:
    try:
        return Standing.from_document(json.loads(rows[0][0])) if rows else Standing(trusts=False)
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            "What a run enforces can't be read", details=repr(error), resolution="bot-bottle verify"
        ) from error
