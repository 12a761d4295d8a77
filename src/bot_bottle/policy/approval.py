"""What agents ask for and what operators answer, as data: proposals, what is shown of them, decisions, grants. Pure.

The change that a proposal would make is computed here from what the agent asked, never taken from it; an approval names the
digest of what was shown, and so exactly that change.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from bot_bottle.digest import sha256_hex
from bot_bottle.policy.model import Route

Kind = Literal["egress", "credential", "capability", "git", "request", "secret"]
"""`egress`, `credential`, `capability` and `git` were asked for by a tool; `request` is one that waits at the proxy because
its host stands under `egress: ask:`, `secret` one that waits because a secret was found in it."""

State = Literal["pending", "approved", "applied", "failed", "rejected", "expired", "withdrawn"]
"""`approved` is decided and not yet seen at the enforcement point; of a kind that can't be applied yet it stays so."""

OPEN: tuple[State, ...] = ("pending", "approved")

Scope = Literal["once", "time", "bottle", "manifest"]
"""How long a grant holds: for one use, for some seconds, while the run lives, or for good in the bottle's file."""

TOOLS: Mapping[str, Kind] = MappingProxyType(
    {
        "pipelock-block": "egress",
        "credential-block": "credential",
        "capability-block": "capability",
        "git-block": "git",
    }
)


class Ask(NamedTuple):
    """What was asked, cleaned and bounded at intake. `subject` is flat and depends on the kind; `words` is the agent's reason."""

    kind: Kind
    subject: Mapping[str, Any]
    words: str = ""

    def content(self) -> str:
        """What makes two asks of one bottle the same one: everything but the words."""
        return sha256_hex(json.dumps([self.kind, dict(self.subject)], sort_keys=True).encode())


class Proposal(NamedTuple):
    """One ask of one run, as it is remembered. Times are seconds since the epoch, 0.0 for not yet.

    `routes` are those that an approval as it stands would add (none for kinds that change no policy); `reason` is the
    operator's at a rejection, the enforcer's at a failure. `repeats` counts how often the agent asked again meanwhile.
    """

    id: str
    run: str
    ask: Ask
    routes: tuple[Route, ...]
    state: State
    made_at: float
    expires_at: float
    decided_at: float = 0.0
    ended_at: float = 0.0
    reason: str = ""
    repeats: int = 0


class Terms(NamedTuple):
    """On what terms a proposal is approved: `seconds` counts for scope `time`; `routes` stand for the proposal's own when an
    operator edited them, None when not."""

    scope: Scope = "bottle"
    seconds: int = 0
    routes: tuple[Route, ...] | None = None


class Grant(NamedTuple):
    """What an approval allows. `until` is 0.0 when no time ends it. `ended` says why it is no more; empty while it holds.

    `used` counts the connections or requests that it alone allowed, `used_at` is when the last one was.
    """

    id: str
    proposal: str
    run: str
    scope: Scope
    routes: tuple[Route, ...]
    since: float
    until: float = 0.0
    used: int = 0
    used_at: float = 0.0
    ended: str = ""
    ended_at: float = 0.0


class Effect(NamedTuple):
    """What a change would have let through of what the bottle's record holds, and what else an operator must know of it.

    `requests` and `hosts` count refused traffic that it would have allowed; `credentialed` are hosts that it opens and that a
    credential is put in for; `sinks` are hosts on it that are known for taking in whatever is sent to them; `notes` are
    further sentences, worst first.
    """

    requests: int = 0
    hosts: int = 0
    credentialed: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Shown(NamedTuple):
    """A proposal as an operator is shown it, on certain terms. `digest` is what an approval names.

    `title` is one line of ours; `added` and `removed` are the lines of the policy that would change (`policy/difference.py`);
    `words` is the agent's text: hostile, cleaned, bounded, shown last and quoted. `alike` are the ids of open proposals of
    other runs that ask for the same. `applies` is False where an approval is recorded and not applied. `problem` says why it
    can't be approved on these terms; empty when it can.
    """

    proposal: Proposal
    agent: str
    bottle: str
    terms: Terms
    title: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    effect: Effect
    words: str
    alike: tuple[str, ...]
    applies: bool
    problem: str
    digest: str

    @property
    def credentials_of(self) -> str:
        """The bottle whose credentials it is about, if any: another's may be other secrets by the same name."""
        return self.bottle if self.effect.credentialed else ""


class Approval(NamedTuple):
    """An operator's yes: to the proposal `id` as it was shown with `digest`, on `terms`."""

    id: str
    digest: str
    terms: Terms = Terms()


class Decided(NamedTuple):
    """What became of one decision. `state` is the proposal's then; `problem` is why a decision did not count, else empty."""

    id: str
    state: State
    problem: str = ""
