"""Whether proposals, decisions and grants are what the chain of events says of them, each row by the digest in its last event."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from bot_bottle.state.rows import COLUMNS, digest_of

_KEYS = {"proposals": "id", "decisions": "proposal", "grants": "id"}


class Recorded:
    """What the events say of each row: its digest, and which event said so last."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], tuple[str, int]] = {}

    def add(self, number: int, kind: str, data: Mapping[str, Any]) -> None:
        """Event `number`, whose own digest fits."""
        room = kind.partition(".")[0]
        if room == "proposal":
            self._say("proposals", data.get("proposal"), data.get("row"), number)
            self._say("decisions", data.get("proposal"), data.get("decision"), number)
            self._say("grants", data.get("grant"), data.get("grant_row"), number)
        elif room == "grant":
            self._say("grants", data.get("grant"), data.get("row"), number)

    def _say(self, table: str, key: object, digest: object, number: int) -> None:
        if isinstance(key, str) and isinstance(digest, str):
            self._said[table, key] = (digest, number)

    def first_bad(self, connection: sqlite3.Connection) -> tuple[int | None, str] | None:
        """The first row that is not what was recorded: the event that recorded it last (None: no event did), and why."""
        bad: list[tuple[int, str]] = []
        unrecorded: list[str] = []
        for table, columns in COLUMNS.items():
            left = {key: number for (where, key), (_, number) in self._said.items() if where == table}
            for row in connection.execute(f"SELECT {','.join(columns)} FROM {table} ORDER BY {_KEYS[table]}"):  # noqa: S608
                key = row[0]
                said = self._said.get((table, key))
                left.pop(key, None)
                if said is None:
                    unrecorded.append(f"{table} has {key}, which no event made")
                elif _digest(table, row) != said[0]:
                    bad.append((said[1], f"{key} in {table} is not what event {said[1]} recorded of it"))
            bad += [
                (number, f"{key} in {table} is missing; event {number} recorded it")
                for key, number in left.items()
            ]
        if bad:
            return min(bad)
        return (None, unrecorded[0]) if unrecorded else None


def _digest(table: str, row: tuple[object, ...]) -> str:
    try:
        return digest_of(table, row)
    except (TypeError, ValueError):
        return ""
