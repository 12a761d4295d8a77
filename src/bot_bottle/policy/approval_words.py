"""The sentences that a model is answered with: none of them lets a no be read as a yes, or silence as one. Pure.

A yes begins with APPROVED, a no with REFUSED, and what is neither with NOT DECIDED YET. What the operator wrote is quoted.
"""

from collections.abc import Sequence

from bot_bottle.policy.approval import Proposal
from bot_bottle.policy.approval_text import clean
from bot_bottle.policy.difference import bare

AWAIT = "call supervise-await with proposal {id} to wait for the answer"


def pending(proposal: Proposal, *, present: bool) -> str:
    """It was submitted, and nobody has decided."""
    how = AWAIT.format(id=proposal.id)
    if present:
        return (
            f"NOT DECIDED YET. Nothing has changed. The operator has been asked (proposal {proposal.id}) and has not answered; "
            f"{how}. Do not work around the policy meanwhile."
        )
    return (
        f"NOT DECIDED YET. Nothing has changed. Nobody is at the inbox now; the proposal {proposal.id} is kept and can be decided "
        f"later. Go on with what needs no approval, and {how} from time to time. Do not work around the policy meanwhile."
    )


def approved(proposal: Proposal) -> str:
    """Decided, and not seen enforced."""
    return (
        f"NOT IN FORCE YET. The operator agreed to proposal {proposal.id}, and the change is being made; "
        f"{AWAIT.format(id=proposal.id)}. Until that says it is applied, what was refused is still refused."
    )


def recorded(proposal: Proposal) -> str:
    """Approved, of a kind that this version records only."""
    return (
        f"RECORDED, NOT APPLIED. The operator agreed to proposal {proposal.id}, but this version of bot-bottle can't make a change "
        "of this kind in a running bottle: nothing in the bottle has changed. The operator knows, and has to make it by hand. "
        "Go on without it."
    )


def applied(proposal: Proposal, lines: Sequence[str], *, once: bool, until: str, note: str = "") -> str:
    """Seen in force."""
    what = "; ".join(bare(line) for line in lines) or "what was asked for"
    ends = " It is good for one use only." if once else f" It holds until {until}." if until else ""
    return f"APPROVED and in force now (proposal {proposal.id}): {what}.{ends}{' ' + note if note else ''} Try again."


def passed(proposal: Proposal) -> str:
    """A request with a secret in it that was let through."""
    return f"APPROVED: this one request was let through (proposal {proposal.id}). The next one like it is held again."


def rejected(proposal: Proposal) -> str:
    """No."""
    return (
        f"REFUSED by the operator (proposal {proposal.id}).{_because(proposal.reason)} Nothing has changed, and the policy still "
        "refuses this. Do not ask for it again in another form and do not work around it; go on without it."
    )


def sticky(what: str, reason: str, minutes: int) -> str:
    """It is what was refused a while ago, or a variant of that."""
    return (
        f"REFUSED: the operator refused {clean(what, 120)}, or something like it, within the last hour.{_because(reason)} No new "
        f"proposal was made; asking again, in whatever form, is answered like this for {max(1, minutes)} more minutes. "
        "Go on without it."
    )


def failed(proposal: Proposal) -> str:
    """Approved, and not in force."""
    return (
        f"REFUSED: proposal {proposal.id} was agreed to, but could NOT be put in force: {clean(proposal.reason, 300)}. Nothing has "
        "changed. You may ask once more."
    )


def expired(proposal: Proposal) -> str:
    """Nobody answered."""
    return (
        f"REFUSED: nobody answered proposal {proposal.id} in time, and no answer means no. Nothing has changed. You may ask once "
        "more if it is still needed."
    )


def withdrawn(proposal: Proposal) -> str:
    """Taken back."""
    because = _because(proposal.reason)
    return (
        f"REFUSED: proposal {proposal.id} was withdrawn before anybody decided.{because} Nothing has changed."
    )


def ended(proposal: Proposal, why: str) -> str:
    """Was applied, and its grant holds no more."""
    return (
        f"NOT IN FORCE ANY MORE: proposal {proposal.id} was approved and applied, and its grant has ended ({clean(why, 120)}). "
        "What it allowed is refused again."
    )


def allowed(lines: Sequence[str]) -> str:
    """There is nothing to add."""
    what = "; ".join(bare(line) for line in lines[:8])
    return (
        f"ALLOWED ALREADY, so nothing was asked of the operator: {what}. If it fails all the same, the cause is another one: see "
        "the error itself, and `policy` for what was refused lately."
    )


def hindered(problem: str) -> str:
    """It can't be asked for, whoever decides."""
    return f"REFUSED, and the operator was not asked: {problem[:1].upper()}{problem[1:]}"


TOO_MANY = (
    "REFUSED for now, and the operator was not asked: {open} proposals of this bottle wait already, and no more are taken. "
    "Wait for their answers with supervise-await, and go on with what needs no approval."
)
TOO_FAST = (
    "REFUSED for now, and the operator was not asked: this bottle asks too fast. Wait {seconds} seconds before asking for "
    "anything else; put what belongs together into one call."
)
UNKNOWN = "There is no such proposal of this bottle."
STORE_FAILED = (
    "REFUSED: the proposal could not be stored on the operator's machine, so nobody will see it. Nothing has changed. "
    "Try again later."
)
STORE_UNREAD = (
    "NOT KNOWN: what became of it can't be read on the operator's machine at the moment. Nothing can be concluded from that. Try "
    "again later."
)


def _because(reason: str) -> str:
    said = clean(reason, 500)
    return f' The operator says: "{said}"' if said else " No reason was given."
