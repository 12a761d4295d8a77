"""Whether the record of events is still what was recorded: the whole chain, row by row, and its end against the head.

So are the proposals, decisions and grants, whose events name the digests of their rows.

Found are: a changed, removed, added or moved row; rows cut off the end; a chain made anew from some row on; guards (the
append-only triggers) taken off; a damaged file. Not found is what the store's owner does with all the parts at once, the
head included: whoever must hold against that copies the head somewhere else now and then.
"""

import json
import sqlite3
from typing import NamedTuple

from bot_bottle.events import GENESIS, NewEvent, digest
from bot_bottle.state import head, migrations
from bot_bottle.state.verify_rows import Recorded


class Verification(NamedTuple):
    """`checked` events were found whole; `first_bad` is the number of the first that is not, where one can be named.

    Of a proposal, a decision or a grant that is not what was recorded, that is the event that recorded it last.
    """

    ok: bool
    checked: int
    first_bad: int | None = None
    why: str = ""


class _BadRow(Exception):
    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


def verify(connection: sqlite3.Connection, head_path: str) -> Verification:
    """Checks everything; what it finds is a result. Reads the head first, so writers may go on meanwhile."""
    sealed = head.read(head_path)
    checked = 0
    at_head = GENESIS if sealed and sealed[0] == 0 else ""
    previous = GENESIS
    recorded = Recorded()
    connection.text_factory = bytes
    try:
        connection.execute("BEGIN")  # events and the rows that they name are read as of one moment
        for row in connection.execute(
            "SELECT number, previous, run, at, kind, data, digest FROM events ORDER BY number"
        ):
            previous = _checked(checked + 1, previous, row, recorded)
            checked += 1
            if sealed and checked == sealed[0]:
                at_head = previous
        why = _damage(connection)
        connection.text_factory = str
        other = recorded.first_bad(connection)
    except _BadRow as bad:
        return Verification(ok=False, checked=checked, first_bad=bad.number, why=str(bad))
    except sqlite3.DatabaseError as error:
        why = f"the store's file is damaged: {error}"
        return Verification(ok=False, checked=checked, first_bad=checked + 1, why=why)
    finally:
        connection.text_factory = str
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if why:
        return Verification(ok=False, checked=checked, why=why)
    found = _against_the_head(sealed, at_head, checked, head_path)
    if found.ok and other is not None:
        return Verification(ok=False, checked=checked, first_bad=other[0], why=other[1])
    return found


def _checked(number: int, previous: str, row: tuple[object, ...], recorded: Recorded) -> str:
    """The digest of the row, which must be event `number` after `previous`."""
    found = row[0]
    if found != number:
        raise _BadRow(number, f"event {number} is missing; the next one found is {found}")
    try:
        before, run, kind, text, kept = (bytes(row[column]).decode() for column in (1, 2, 4, 5, 6))  # type: ignore[call-overload]
        data = json.loads(text)
        expected = digest(number, previous, NewEvent(run, row[3], kind, data))  # type: ignore[arg-type]
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise _BadRow(number, f"event {number} can't be read: {error}") from error
    if before != previous:
        raise _BadRow(number, f"event {number} does not follow the event before it")
    if kept != expected or text != canonical:
        raise _BadRow(number, f"event {number} is not what was recorded: its digest does not fit")
    recorded.add(number, kind, data)
    return expected


def _damage(connection: sqlite3.Connection) -> str:
    """What is wrong with the store around the events; empty when nothing is."""
    with sqlite3.connect(":memory:", isolation_level=None) as fresh:
        fresh.text_factory = bytes
        migrations.migrate(fresh)
        expected = migrations.shape(fresh)
    fresh.close()
    if migrations.shape(connection) != expected:
        return "the store's tables or guards were changed"
    said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0].decode(errors="replace")
    return "" if said == "ok" else f"the store's file is damaged: {said}"


def _against_the_head(sealed: tuple[int, str] | None, at_head: str, checked: int, path: str) -> Verification:
    if sealed is None:
        why = f"{path} is missing or unreadable: whether events were cut off the end can't be known"
        return Verification(ok=False, checked=checked, why=why)
    number, kept = sealed
    if number > checked:
        why = f"events were cut off the end: {number} were recorded, {checked} are left"
        return Verification(ok=False, checked=checked, first_bad=checked + 1, why=why)
    if at_head != kept:
        why = f"the chain was made anew: event {number} is not the one that was recorded"
        return Verification(ok=False, checked=number - 1, first_bad=number, why=why)
    return Verification(ok=True, checked=checked)
