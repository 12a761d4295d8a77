"""A desk with made-up proposals: what front ends are tried with when no bottle runs.

It keeps the whole of `operate.approvals.Desk` but enforces nothing: an approval that counts is `applied` at once, unless the
test said otherwise. Several threads may use it.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter, ValidationError

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import ManifestError, NotFoundError, StateError
from bot_bottle.manifest import model as manifest
from bot_bottle.manifest.compose import route_document
from bot_bottle.plan.resolve import route
from bot_bottle.policy.approval import (
    Approval,
    Ask,
    Decided,
    Effect,
    Grant,
    Kind,
    Proposal,
    Shown,
    State,
    Terms,
)
from bot_bottle.policy.difference import difference, line_of
from bot_bottle.policy.model import EgressPolicy, Route

GRANTING: tuple[Kind, ...] = ("egress", "credential", "request")
"""The kinds whose approval changes a policy."""
_NOTHING = Effect()
_NO_GRANT = NotFoundError("There is no such grant")


class Made(NamedTuple):
    """A made-up proposal with everything that a real desk would work out."""

    proposal: Proposal
    agent: str
    bottle: str
    title: str
    effect: Effect
    applies: bool
    problem: str
    content: str


class FakeDesk:
    """A `Desk`. `ask` adds a proposal, `end` lets one end elsewhere, `trouble` is raised by every method while it is set.

    `file` is what `file_diff` says when it is set; `outcomes` says what becomes of an approval instead of `applied`; while
    `gate` is clear, `approve` waits at it. `approvals`, `rejections` and `withdrawals` are what was decided here; `watching`
    counts who is present.
    """

    def __init__(self) -> None:
        self.policies: dict[str, EgressPolicy] = {}
        self.outcomes: dict[str, Decided] = {}
        self.trouble: StateError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.approvals: list[Approval] = []
        self.rejections: list[tuple[str, str, bool]] = []
        self.withdrawals: list[str] = []
        self.watching = 0
        self.file = ""
        self._made: dict[str, Made] = {}
        self._decided: dict[str, Shown] = {}
        self._grants: dict[str, Grant] = {}
        self._lock = threading.RLock()
        self._something = threading.Condition(self._lock)
        self._version = 0
        self._seen = threading.local()

    def __enter__(self) -> "FakeDesk":
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close; another thread may be using it."""

    # What a test does

    def ask(
        self,
        *hosts: str,
        run: str = "fixer-2345",
        agent: str = "fixer",
        bottle: str = "work",
        kind: Kind = "egress",
        routes: Sequence[Route] | None = None,
        title: str | None = None,
        words: str = "",
        effect: Effect = _NOTHING,
        age: float = 0.0,
        repeats: int = 0,
        problem: str = "",
        id: str | None = None,
    ) -> str:
        """Adds a proposal that asks for `hosts` (or `routes`) and was made `age` seconds ago; gives its id."""
        wanted = tuple(Route(host, 443) for host in hosts) if routes is None else tuple(routes)
        ask = Ask(kind, {"routes": [line_of(each) for each in wanted], "title": title or ""}, words)
        with self._lock:
            name = f"p{len(self._made) + 1:04}" if id is None else id
            now = time.time()
            proposal = Proposal(
                name, run, ask, wanted, "pending", now - age, now - age + 86400, repeats=repeats
            )
            said = title if title is not None else _title(kind, wanted)
            self._made[name] = Made(
                proposal, agent, bottle, said, effect, kind in GRANTING, problem, ask.content()
            )
            self._changed()
        return name

    def end(self, reference: str, state: State, reason: str = "") -> None:
        """Lets it end without anybody here having decided it."""
        with self._lock:
            self._set(reference, state, reason)
            self._changed()

    def put(self, run: str, policy: EgressPolicy) -> None:
        """Puts `policy` in force for `run`, whatever was shown of it before."""
        with self._lock:
            self.policies[run] = policy
            self._changed()

    def say(self, reference: str, **parts: Any) -> None:
        """Replaces parts of what is shown of a proposal: `effect`, `title`, `problem`, …"""
        with self._lock:
            self._made[reference] = self._made[reference]._replace(**parts)
            self._changed()

    # What a desk does

    def waiting(self) -> list[Shown]:
        with self._lock:
            self._check()
            open_ = [made for made in self._made.values() if made.proposal.state == "pending"]
            return [
                self._shown(made, _first(made)) for made in sorted(open_, key=lambda m: m.proposal.made_at)
            ]

    def decided(self, limit: int = 50) -> list[Shown]:
        with self._lock:
            self._check()
            done = [made for made in self._made.values() if made.proposal.state != "pending"]
            done.sort(key=lambda made: -made.proposal.decided_at)
            return [
                self._decided.get(made.proposal.id, self._shown(made, _first(made)))._replace(
                    proposal=made.proposal
                )
                for made in done[:limit]
            ]

    def show(self, reference: str, terms: Terms | None = None) -> Shown:
        with self._lock:
            self._check()
            made = self._find(reference)
            return self._shown(made, terms or _first(made))

    def edit(self, reference: str, text: str, terms: Terms) -> Shown:
        with self._lock:
            self._check()
            made = self._find(reference)
            return self._shown(made, terms._replace(routes=_read(text)))

    def routes_text(self, shown: Shown) -> str:
        routes = shown.proposal.routes if shown.terms.routes is None else shown.terms.routes
        return "".join(f"{line_of(each)}\n" for each in routes)

    def file_diff(self, shown: Shown) -> str:
        with self._lock:
            self._check()
            return self.file or "".join(f"+    {each}\n" for each in shown.added)

    def approve(self, approvals: Sequence[Approval], *, wait: float = 10.0) -> list[Decided]:
        self.gate.wait(wait or None)
        with self._lock:
            self._check()
            answers = [self._approve(each) for each in approvals]
            self._changed()
            return answers

    def reject(
        self, references: Sequence[str], reason: str = "", *, may_ask_again: bool = False
    ) -> list[Decided]:
        with self._lock:
            self._check()
            answers = []
            for reference in references:
                made = self._find(reference)
                if made.proposal.state != "pending":
                    answers.append(_late(made))
                    continue
                self.rejections.append((made.proposal.id, reason, may_ask_again))
                self._set(made.proposal.id, "rejected", reason)
                answers.append(Decided(made.proposal.id, "rejected"))
            self._changed()
            return answers

    def grants(self, run: str | None = None) -> list[Grant]:
        with self._lock:
            self._check()
            return [grant for grant in self._grants.values() if run in (None, grant.run) and not grant.ended]

    def withdraw(self, grant: str) -> None:
        with self._lock:
            self._check()
            held = self._grants.get(grant)
            if held is None or held.ended:
                raise _NO_GRANT
            self._grants[grant] = held._replace(ended="withdrawn by the operator", ended_at=time.time())
            self.withdrawals.append(grant)
            self._changed()

    @contextmanager
    def present(self) -> Iterator[None]:
        self.watching += 1
        try:
            yield
        finally:
            self.watching -= 1

    def changed(self, seconds: float) -> bool:
        with self._something:
            self._check()
            seen = getattr(self._seen, "version", -1)
            self._something.wait_for(lambda: self._version != seen or self.trouble is not None, seconds)
            self._check()
            self._seen.version = self._version
            return self._version != seen

    # Inside

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _changed(self) -> None:
        self._version += 1
        self._something.notify_all()

    def _find(self, reference: str) -> Made:
        exact = self._made.get(reference)
        fitting = (
            [exact] if exact else [made for id_, made in self._made.items() if id_.startswith(reference)]
        )
        if not reference or len(fitting) != 1:
            raise NotFoundError(f"There is no proposal {reference!r}")
        return fitting[0]

    def _set(self, reference: str, state: State, reason: str = "") -> None:
        made = self._find(reference)
        now = time.time()
        ended = made.proposal._replace(state=state, decided_at=now, ended_at=now, reason=reason)
        self._made[made.proposal.id] = made._replace(proposal=ended)

    def _shown(self, made: Made, terms: Terms) -> Shown:
        proposal = made.proposal
        old = self.policies.get(proposal.run, EgressPolicy())
        routes = proposal.routes if terms.routes is None else terms.routes
        new = old._replace(routes=old.routes + tuple(each for each in routes if each not in old.routes))
        added, removed = difference(old, new) if made.applies else ([], [])
        problem = made.problem
        if terms.routes is not None and not terms.routes:
            problem = "It would allow nothing."
        what = [proposal.id, terms.scope, terms.seconds, added, removed, list(made.effect)]
        alike = tuple(
            other.proposal.id
            for other in self._made.values()
            if other.proposal.state == "pending"
            and other.proposal.run != proposal.run
            and other.content == made.content
        )
        return Shown(
            proposal=proposal,
            agent=made.agent,
            bottle=made.bottle,
            terms=terms,
            title=made.title,
            added=tuple(added),
            removed=tuple(removed),
            effect=made.effect,
            words=proposal.ask.words,
            alike=alike,
            applies=made.applies,
            problem=problem,
            digest=sha256_hex(json.dumps(what, sort_keys=True).encode()),
        )

    def _approve(self, approval: Approval) -> Decided:
        made = self._find(approval.id)
        shown = self._shown(made, approval.terms)
        if made.proposal.state != "pending":
            return _late(made)
        if shown.digest != approval.digest:
            return Decided(approval.id, "pending", "It changed since it was shown: look again.")
        if shown.problem:
            return Decided(approval.id, "pending", shown.problem)
        self.approvals.append(approval)
        self._decided[approval.id] = shown
        if approval.id in self.outcomes:
            outcome = self.outcomes[approval.id]
            self._set(approval.id, outcome.state, outcome.problem)
            return outcome
        if not made.applies:
            self._set(approval.id, "approved")
            return Decided(approval.id, "approved")
        self._set(approval.id, "applied")
        routes = made.proposal.routes if approval.terms.routes is None else approval.terms.routes
        run = made.proposal.run
        old = self.policies.get(run, EgressPolicy())
        self.policies[run] = old._replace(routes=old.routes + routes)
        now = time.time()
        until = now + approval.terms.seconds if approval.terms.scope == "time" else 0.0
        name = f"g{len(self._grants) + 1:04}"
        self._grants[name] = Grant(name, approval.id, run, approval.terms.scope, routes, now, until)
        return Decided(approval.id, "applied")


def _first(made: Made) -> Terms:
    return Terms("once") if made.proposal.ask.kind == "secret" else Terms()


def _late(made: Made) -> Decided:
    return Decided(made.proposal.id, made.proposal.state, f"It was {made.proposal.state} meanwhile.")


def _title(kind: Kind, routes: Sequence[Route]) -> str:
    what = ", ".join(f"{each.host}:{each.port}" for each in routes)
    return {
        "egress": f"Reach {what}",
        "credential": f"Have a credential put in for {what}",
        "capability": "Have something more installed",
        "git": "Push with git",
        "request": f"Let a waiting request to {what} go",
        "secret": "Let a request go in which a secret was found",
    }[kind]


def _read(text: str) -> tuple[Route, ...]:
    """The routes that `text` lists. Raises ManifestError."""
    try:
        listed = yaml.safe_load(text) or []
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ManifestError("These are no routes", details=f"{line}: is not YAML") from error
    try:
        read = TypeAdapter(list[manifest.Route]).validate_python(listed)
    except ValidationError as error:
        wrong = [f"{_line(each['loc'])}: {'.'.join(map(str, each['loc'][1:]))}: {each['msg']}"
                 for each in error.errors()]  # fmt: skip
        raise ManifestError("These are no routes", details="\n".join(wrong)) from error
    return tuple(route(route_document(each)) for each in read)


def _line(place: tuple[int | str, ...]) -> int:
    return place[0] + 1 if place and isinstance(place[0], int) else 1
