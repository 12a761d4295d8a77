"""Whatever is done to the record behind the store's back is found, and the first bad event is named."""

import os
import sqlite3
from pathlib import Path

import pytest

from bot_bottle.errors import StateError
from bot_bottle.events import GENESIS, NewEvent, digest
from bot_bottle.state.store import Store

COPY_OF_THE_LAST = "INSERT INTO events SELECT"
GUARDS = ("events_are_not_changed", "events_are_not_removed")


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = str(tmp_path / "state" / "store.db")
    with Store.open(place) as store:
        for n in range(10):
            store.append([NewEvent("fixer-ab12", float(n), "egress.allowed", {"host": f"{n}.example.org"})])
    return place


def tamper(path: str, *statements: str) -> None:
    """Runs `statements` with the guards off, and puts them back as they were."""
    raw = sqlite3.connect(path, isolation_level=None)
    guards = [
        raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0] for name in GUARDS
    ]
    for name in GUARDS:
        raw.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        raw.execute(statement)
    for guard in guards:
        raw.execute(guard)
    raw.close()


def verdict(path: str):
    with Store.open(path) as store:
        return store.verify()


def rebuild_from(path: str, first: int, **change: object) -> None:
    """Changes event `first` and makes every digest from there on fit again."""
    raw = sqlite3.connect(path, isolation_level=None)
    rows = raw.execute("SELECT * FROM events ORDER BY number").fetchall()
    raw.close()
    previous = rows[first - 2][6] if first > 1 else GENESIS
    statements = []
    for number, _, run, at, kind, _, _ in rows[first - 1 :]:
        event = NewEvent(run, at, kind, {"host": "forged"})
        fresh = digest(number, previous, event)
        statements.append(
            f"UPDATE events SET previous = '{previous}', data = '{{\"host\":\"forged\"}}', digest = '{fresh}' "
            f"WHERE number = {number}"
        )
        previous = fresh
    tamper(path, *statements)


def test_the_record_as_it_was_made_is_whole(path):
    tamper(path)
    assert verdict(path) == (True, 10, None, "")


@pytest.mark.parametrize(
    ("statement", "first_bad", "why"),
    [
        ("UPDATE events SET data = '{\"host\":\"x\"}' WHERE number = 4", 4, "digest"),
        ("UPDATE events SET data = '{ \"host\":\"3.example.org\"}' WHERE number = 4", 4, "digest"),
        ("UPDATE events SET at = at + 1 WHERE number = 1", 1, "digest"),
        ("UPDATE events SET kind = 'egress.refused' WHERE number = 10", 10, "digest"),
        ("UPDATE events SET run = 'other-cd34' WHERE number = 7", 7, "digest"),
        (f"UPDATE events SET digest = '{'0' * 64}' WHERE number = 5", 5, "digest"),
        (f"UPDATE events SET previous = '{'1' * 64}' WHERE number = 5", 5, "follow"),
        ("UPDATE events SET data = CAST(X'ff' AS TEXT) WHERE number = 6", 6, "can't be read"),
        ("UPDATE events SET data = '[1' WHERE number = 6", 6, "can't be read"),
        ("DELETE FROM events WHERE number = 3", 3, "missing"),
        ("DELETE FROM events WHERE number = 1", 1, "missing"),
        ("DELETE FROM events WHERE number > 8", 9, "cut off"),
        ("DELETE FROM events", 1, "cut off"),
        ("UPDATE events SET number = 0 WHERE number = 1", 1, "missing"),
        (f"{COPY_OF_THE_LAST} 11, previous, run, at, kind, data, digest FROM events WHERE number = 10", 11, "follow"),
        (f"{COPY_OF_THE_LAST} 12, previous, run, at, kind, data, digest FROM events WHERE number = 10", 11, "missing"),
    ],
)  # fmt: skip
def test_a_change_is_found_and_named(path, statement, first_bad, why):
    tamper(path, statement)
    found = verdict(path)
    assert (found.ok, found.first_bad) == (False, first_bad), found
    assert why in found.why


def test_two_events_that_changed_places_are_found(path):
    tamper(
        path,
        "UPDATE events SET number = 99 WHERE number = 3",
        "UPDATE events SET number = 3 WHERE number = 4",
        "UPDATE events SET number = 4 WHERE number = 99",
    )
    assert verdict(path)[:3] == (False, 2, 3)


def test_a_removed_event_whose_followers_moved_up_is_found(path):
    tamper(
        path,
        "DELETE FROM events WHERE number = 3",
        *(f"UPDATE events SET number = {n - 1} WHERE number = {n}" for n in range(4, 11)),
    )
    assert verdict(path)[:3] == (False, 2, 3)


def test_a_chain_that_was_made_anew_is_found_by_the_head(path):
    rebuild_from(path, 6)
    found = verdict(path)
    assert not found.ok
    assert "made anew" in found.why


def test_what_is_appended_after_a_tampering_does_not_heal_it(path):
    tamper(path, "DELETE FROM events WHERE number > 8")
    with Store.open(path) as store:
        for n in range(5):
            store.append([NewEvent("later-cd34", float(n), "run.started", {})])
        assert store.events()[-1].number == 13
    found = verdict(path)
    assert (found.ok, found.first_bad) == (False, 10)


def test_a_head_that_is_behind_is_what_a_kill_leaves_and_is_caught_up(path):
    head = Path(path + ".head")
    before = head.read_bytes()
    with Store.open(path) as store:
        store.append([NewEvent("fixer-ab12", 11.0, "run.ended", {})])
    after = head.read_bytes()
    head.write_bytes(before)
    assert verdict(path).ok
    with Store.open(path) as store:
        store.append([NewEvent("fixer-ab12", 12.0, "run.ended", {})])
    assert head.read_bytes() not in (before, after)
    assert verdict(path).ok


def test_a_missing_or_broken_head_is_found_and_not_made_again(path):
    head = Path(path + ".head")
    for content in (None, b"", b"nonsense", b"10 abc\n", head.read_bytes()[:-10], b"x" * 86):
        if content is None:
            head.unlink()
        else:
            head.write_bytes(content)
        with Store.open(path) as store:
            store.append([NewEvent("fixer-ab12", 11.0, "run.ended", {})])
        found = verdict(path)
        assert not found.ok
        assert "missing or unreadable" in found.why


def test_guards_that_were_taken_off_are_found(path):
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER events_are_not_removed")
    raw.close()
    found = verdict(path)
    assert not found.ok
    assert "guards" in found.why


def test_the_guards_stop_changes_and_deletes(path):
    raw = sqlite3.connect(path)
    for statement in ("DELETE FROM events", "UPDATE events SET kind = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()


def first_page_of(path: str, table: str) -> int:
    raw = sqlite3.connect(path)
    [(page,)] = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    raw.close()
    return page


def test_a_damaged_file_is_found(path):
    with open(path, "r+b") as file:
        file.seek(4096 * (first_page_of(path, "events") - 1))
        file.write(b"\x5a" * 4096)
    assert not verdict(path).ok


def test_a_file_whose_tables_are_damaged_is_said_to_be(path):
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\x5a" * (size - 4096))
    with pytest.raises(StateError, match="damaged"):
        verdict(path)
