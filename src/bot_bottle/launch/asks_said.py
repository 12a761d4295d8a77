"""What a call of the agent's is told of a proposal: its state, and a sentence that can't be read as another one."""

import time
from collections.abc import Sequence
from typing import Any

from bot_bottle.policy import approval_git
from bot_bottle.policy import approval_words as words
from bot_bottle.policy.approval import Grant, Proposal
from bot_bottle.policy.approval_show import APPLIES
from bot_bottle.policy.difference import line_of


def said(
    state: str, message: str, proposal: str = "", *, present: bool, added: Sequence[str] = ()
) -> dict[str, Any]:
    """An answer after which there is no other."""
    return {"proposal": proposal, "state": state, "final": True, "present": present, "message": message,
            "added": list(added), "until": 0.0}  # fmt: skip


def of_proposal(proposal: Proposal, grant: Grant | None, *, present: bool, final: bool) -> dict[str, Any]:
    """The answer on `proposal` as it is now; `final` is whether there is no other after it."""
    lines = _lines(proposal, grant)
    answer = said(
        proposal.state, _sentence(proposal, grant, present), proposal.id, present=present, added=lines
    )
    return {**answer, "final": final, "until": grant.until if grant else 0.0}


def _lines(proposal: Proposal, grant: Grant | None) -> list[str]:
    if proposal.ask.kind == "git" and grant is not None:
        return list(approval_git.lines(approval_git.wish(proposal.ask.subject)))
    return [line_of(route) for route in grant.routes] if grant else []


def _sentence(proposal: Proposal, grant: Grant | None, present: bool) -> str:
    if proposal.state == "pending":
        return words.pending(proposal, present=present)
    if proposal.state == "approved":
        return words.approved(proposal) if proposal.ask.kind in APPLIES else words.recorded(proposal)
    if proposal.state == "applied":
        return words.passed(proposal) if proposal.ask.kind == "secret" else _in_force(proposal, grant)
    known = {"rejected": words.rejected, "failed": words.failed, "expired": words.expired}
    return known.get(proposal.state, words.withdrawn)(proposal)


def _in_force(proposal: Proposal, grant: Grant | None) -> str:
    if grant is None or grant.ended:
        return words.ended(proposal, grant.ended if grant else "unknown")
    until = time.strftime("%H:%M:%S", time.localtime(grant.until)) if grant.until else ""
    lines = _lines(proposal, grant)
    return words.applied(proposal, lines, once=grant.scope == "once", until=until, note=proposal.reason)
