"""What the page is told of proposals and grants: plain data, every text in it cleaned. What it means is the desk's to say."""

import json
import re
from typing import Any

from bot_bottle.digest import sha256_hex
from bot_bottle.operate.text import visible
from bot_bottle.policy.approval import Decided, Grant, Shown
from bot_bottle.policy.difference import line_of

WORDS = 8000
"""Characters of an agent's words that are shown."""

_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_PILES = re.compile("([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{2})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")  # fmt: skip


def clean(text: str, *, keep: str = "", most: int = 0) -> str:
    """`text` with nothing in it that hides, moves or reorders; cut after `most` characters (0: whole), and saying so.

    Characters that count as printable and show nothing become escapes as well, and marks piled on a letter are taken off.
    """
    cut = len(text) - most if most and len(text) > most else 0
    text = visible(text[:most] if cut else text, keep=keep)
    if not text.isascii():
        text = _BLANK.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", _PILES.sub(r"\1", text))
    return f"{text} … ({cut} more characters)" if cut else text


def row(shown: Shown) -> dict[str, Any]:
    """A line of the list. `mark` changes whenever something does that an operator would decide by."""
    proposal, effect = shown.proposal, shown.effect
    return {
        "id": proposal.id,
        "run": clean(proposal.run),
        "agent": clean(shown.agent),
        "bottle": clean(shown.bottle),
        "kind": proposal.ask.kind,
        "title": clean(shown.title, most=300),
        "state": proposal.state,
        "made": proposal.made_at,
        "expires": proposal.expires_at,
        "decided": proposal.decided_at,
        "ended": proposal.ended_at,
        "reason": clean(proposal.reason, most=1000),
        "repeats": proposal.repeats,
        "requests": effect.requests,
        "credentialed": len(effect.credentialed),
        "sinks": len(effect.sinks),
        "blocked": bool(shown.problem),
        "alike": list(shown.alike),
        "mark": _mark(shown),
    }


def detail(shown: Shown, routes_text: str) -> dict[str, Any]:
    """Everything of it. `change` is equal for two that change and reach the same."""
    effect = shown.effect
    said = {
        "added": [clean(line) for line in shown.added],
        "removed": [clean(line) for line in shown.removed],
        "credentialed": [clean(host) for host in effect.credentialed],
        "sinks": [clean(host) for host in effect.sinks],
        "notes": [clean(note) for note in effect.notes],
        "problem": clean(shown.problem, keep="\n"),
        "applies": shown.applies,
    }
    return {
        **row(shown),
        **said,
        "hosts": effect.hosts,
        "scope": shown.terms.scope,
        "minutes": shown.terms.seconds // 60,
        "edited": shown.terms.routes is not None,
        "words": clean(shown.words, keep="\n", most=WORDS),
        "routes_text": clean(routes_text, keep="\n"),
        "digest": shown.digest,
        "change": sha256_hex(json.dumps(said, sort_keys=True).encode()),
    }


def grant(held: Grant) -> dict[str, Any]:
    """A grant that holds."""
    return {
        "id": held.id,
        "proposal": held.proposal,
        "run": clean(held.run),
        "scope": held.scope,
        "lines": [clean(line_of(route)) for route in held.routes],
        "since": held.since,
        "until": held.until,
        "used": held.used,
        "used_at": held.used_at,
    }


def outcome(decided: Decided) -> dict[str, Any]:
    """What became of a decision."""
    return {"id": decided.id, "state": decided.state, "problem": clean(decided.problem, keep="\n")}


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
