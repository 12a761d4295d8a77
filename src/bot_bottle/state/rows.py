"""How a proposal, a decision and a grant stand in their tables, and the digest of a row that its events name."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bot_bottle.digest import sha256_hex
from bot_bottle.policy.approval import Ask, Grant, Proposal, Terms
from bot_bottle.policy.model import Route
from bot_bottle.state.intake import text_of

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "proposals": (
        "id", "run", "kind", "subject", "words", "content", "routes", "state", "made_at", "expires_at", "decided_at",
        "ended_at", "reason", "repeats",
    ),
    "decisions": (
        "proposal", "verdict", "at", "who", "digest", "policy", "scope", "seconds", "routes", "added", "removed", "reason",
        "again",
    ),
    "grants": (
        "id", "proposal", "run", "scope", "routes", "since", "until", "used", "used_at", "ended", "ended_at",
    ),
}  # fmt: skip


class Decision(NamedTuple):
    """What an operator answered. `digest`, `policy` (the base's fingerprint), `added` and `removed` are what was shown.

    `again` is whether the agent may ask for the same again after a refusal.
    """

    proposal: str
    verdict: str
    at: float
    who: str
    digest: str = ""
    policy: str = ""
    terms: Terms = Terms()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reason: str = ""
    again: bool = False


def digest_of(table: str, row: Sequence[object]) -> str:
    """The SHA-256 of the row's canonical JSON."""
    return sha256_hex(text_of(dict(zip(COLUMNS[table], row, strict=True))).encode())


def routes_text(routes: Sequence[Route]) -> str:
    """Routes as they stand in a row."""
    return json.dumps([route.document() for route in routes], sort_keys=True, separators=(",", ":"))


def routes_from(text: str) -> tuple[Route, ...]:
    """The routes that stand in a row."""
    return tuple(Route.from_document(document) for document in json.loads(text))


def proposal_row(proposal: Proposal) -> tuple[object, ...]:
    """The row of `proposal`."""
    ask = proposal.ask
    return (
        proposal.id, proposal.run, ask.kind, text_of(ask.subject), ask.words, ask.content(), routes_text(proposal.routes),
        proposal.state, float(proposal.made_at), float(proposal.expires_at), float(proposal.decided_at),
        float(proposal.ended_at), proposal.reason, proposal.repeats,
    )  # fmt: skip


def proposal_from(row: Sequence[Any]) -> Proposal:
    """The proposal that stands in a row."""
    return Proposal(
        id=row[0], run=row[1], ask=Ask(row[2], json.loads(row[3]), row[4]), routes=routes_from(row[6]), state=row[7],
        made_at=row[8], expires_at=row[9], decided_at=row[10], ended_at=row[11], reason=row[12], repeats=row[13],
    )  # fmt: skip


def decision_row(decision: Decision) -> tuple[object, ...]:
    """The row of `decision`."""
    terms = decision.terms
    edited = "" if terms.routes is None else routes_text(terms.routes)
    return (
        decision.proposal, decision.verdict, float(decision.at), decision.who, decision.digest, decision.policy, terms.scope,
        terms.seconds, edited, json.dumps(decision.added), json.dumps(decision.removed), decision.reason, int(decision.again),
    )  # fmt: skip


def decision_from(row: Sequence[Any]) -> Decision:
    """The decision that stands in a row."""
    terms = Terms(row[6], row[7], routes_from(row[8]) if row[8] else None)
    added, removed = (tuple(json.loads(text)) for text in row[9:11])
    return Decision._make((*row[:6], terms, added, removed, row[11], bool(row[12])))


def grant_row(grant: Grant) -> tuple[object, ...]:
    """The row of `grant`."""
    return (
        grant.id, grant.proposal, grant.run, grant.scope, routes_text(grant.routes), float(grant.since), float(grant.until),
        grant.used, float(grant.used_at), grant.ended, float(grant.ended_at),
    )  # fmt: skip


def grant_from(row: Sequence[Any]) -> Grant:
    """The grant that stands in a row."""
    return Grant._make((*row[:4], routes_from(row[4]), *row[5:]))
