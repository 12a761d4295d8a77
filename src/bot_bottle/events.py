"""What an event is: one line of the record of what happened, chained by hash. Pure; the store keeps them.

Kinds are `ROOM.WHAT`: `run.planned run.started run.ended run.reaped run.branched`, `command.failed`, `record.late`,
`workspace.flagged`, `door.opened door.closed door.authority`,
`policy.changed policy.refused`, `credential.renewed credential.failed`, `egress.allowed
egress.observed egress.redacted egress.refused egress.failed egress.closed egress.folded`, `dns.refused`,
`git.fetched git.pushed
git.refused git.failed git.unavailable git.died`,
`proposal.made proposal.repeated proposal.approved proposal.rejected proposal.applied proposal.failed proposal.expired
proposal.withdrawn`, `grant.used grant.ended`, `notice.failed`. `data` is a flat JSON object; text that came from the agent in
it is cleaned and bounded by whoever makes the event.
"""

import json
from collections.abc import Mapping

from bot_bottle.digest import sha256_hex
from bot_bottle.typed import Any, NamedTuple

GENESIS = "0" * 64
"""The hash that stands before the first event (hexadecimal, like every hash here)."""


class NewEvent(NamedTuple):
    """An event before it has a place in the chain. `at` is seconds since the epoch, by the host's clock."""

    run: str
    at: float
    kind: str
    data: Mapping[str, Any]


class Event(NamedTuple):
    """An event in the chain: `digest` covers everything before it in the tuple, and so the whole chain before it."""

    number: int
    previous: str
    run: str
    at: float
    kind: str
    data: Mapping[str, Any]
    digest: str


def digest(number: int, previous: str, event: NewEvent) -> str:
    """The SHA-256, in hexadecimal, of the event at place `number` (from 1) after `previous`."""
    line = json.dumps([number, previous, event.run, repr(event.at), event.kind, dict(event.data)],
                      sort_keys=True, separators=(",", ":"), ensure_ascii=True)  # fmt: skip
    return sha256_hex(line.encode())


def chain(number: int, previous: str, event: NewEvent) -> Event:
    """`event` at its place in the chain."""
    return Event(
        number, previous, event.run, event.at, event.kind, event.data, digest(number, previous, event)
    )
