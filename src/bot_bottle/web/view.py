"""What the page is told of proposals and grants: plain data, every text in it cleaned. What it means is the desk's to say."""

import json
from typing import Any

from bot_bottle.digest import sha256_hex
from bot_bottle.policy.approval import Decided, Grant, Shown
from bot_bottle.policy.difference import bare, line_of
from bot_bottle.web.clean import block, line

MOST_CHANGE = 24_000
"""Characters of a change that can be looked at; one that is larger can't be approved here."""


def row(shown: Shown) -> dict[str, Any]:
    """A line of the list. `mark` changes whenever something does that an operator would decide by."""
    proposal, effect = shown.proposal, shown.effect
    return {
        "id": proposal.id,
        "run": line(proposal.run),
        "agent": line(shown.agent),
        "bottle": line(shown.bottle),
        "kind": proposal.ask.kind,
        "title": _sentence(shown.title),
        "state": proposal.state,
        "made": proposal.made_at,
        "expires": proposal.expires_at,
        "decided": proposal.decided_at,
        "ended": proposal.ended_at,
        "reason": line(proposal.reason, 1000),
        "repeats": proposal.repeats,
        "requests": effect.requests,
        "credentialed": len(effect.credentialed),
        "sinks": len(effect.sinks),
        "blocked": bool(_problem(shown)),
        "alike": list(shown.alike),
        "mark": _mark(shown),
    }


def detail(shown: Shown, routes_text: str, in_file: str = "") -> dict[str, Any]:
    """Everything of it, and what it changes in the bottle's file. `change` is equal for two that change and reach the same."""
    effect = shown.effect
    said = {
        "added": [line(bare(each), 0) for each in shown.added],
        "removed": [line(bare(each), 0) for each in shown.removed],
        "credentialed": [line(host) for host in effect.credentialed],
        "sinks": [line(host) for host in effect.sinks],
        "notes": [line(note, 1000) for note in effect.notes],
        "problem": block(_problem(shown)),
        "applies": shown.applies,
    }
    return {
        **row(shown),
        **said,
        "hosts": effect.hosts,
        "scope": shown.terms.scope,
        "minutes": shown.terms.seconds // 60,
        "edited": shown.terms.routes is not None,
        "words": block(shown.words),
        "in_file": block(in_file, MOST_CHANGE),
        "routes_text": block(routes_text, 0),
        "digest": shown.digest,
        "change": sha256_hex(json.dumps({**said, "of": shown.credentials_of}, sort_keys=True).encode()),
    }


def grant(held: Grant) -> dict[str, Any]:
    """A grant that holds."""
    return {
        "id": held.id,
        "proposal": held.proposal,
        "run": line(held.run),
        "scope": held.scope,
        "lines": [line(bare(line_of(route)), 0) for route in held.routes],
        "since": held.since,
        "until": held.until,
        "used": held.used,
        "used_at": held.used_at,
    }


def outcome(decided: Decided) -> dict[str, Any]:
    """What became of a decision."""
    return {"id": decided.id, "state": decided.state, "problem": block(decided.problem)}


def _sentence(title: str) -> str:
    said = line(title)
    return said[:1].upper() + said[1:]


def _problem(shown: Shown) -> str:
    """Why it can't be approved here on these terms; empty when it can."""
    if sum(map(len, shown.added)) + sum(map(len, shown.removed)) > MOST_CHANGE:
        return "The change is too large to be looked at: edit it down first, or reject it."
    return shown.problem


def _mark(shown: Shown) -> str:
    effect = shown.effect
    seen = [
        shown.digest,
        shown.proposal.state,
        shown.problem,
        shown.applies,
        shown.title,
        shown.added,
        shown.removed,
    ]
    seen += [effect.credentialed, effect.sinks, effect.notes]
    return sha256_hex(json.dumps(seen).encode())[:16]
