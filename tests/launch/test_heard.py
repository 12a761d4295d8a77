"""The keeper's ear for its bundle: whatever one that was broken into says, the keeper goes on and the record stays a record."""

import json
import math
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.launch import heard, sidecar
from bot_bottle.launch.sidecar import Sidecar
from bot_bottle.state.store import Store

HONEST = {"event": "egress.refused", "data": {"host": "x.test", "port": 443, "reason": "host_not_allowed"}}
LIES = [
    b"[" * 60_000,
    b'{"event": "egress.x", "data": ' + b'{"a":' * 60_000,
    b'{"event": "egress.x", "data": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
    b'{"event": "egress.\\ud800", "data": {}}',
    b'{"event": "egress.\\u001b[2J", "data": {}}',
    b'{"event": "egress.x", "data": {"\\u001b[2J": 1}}',
    b'{"event": "egress.x", "data": {"up": NaN}}',
    b'{"event": "egress.x", "data": {"up": -Infinity}}',
    b'{"event": "egress.closed", "data": {"up": 1' + b"0" * 4000 + b"}}",
    b'{"event": "egress.closed", "data": {"up": 1' + b"0" * 5000 + b"}}",
    b'{"event": "egress.folded", "data": {"counts": {"a": {"b": 1}}}}',
    b'{"event": "door.authority", "data": {"sha256": "ff"}}',
    b'{"event": "run.ended", "data": {}}',
    b'{"event": ["egress.x"], "data": {}}',
    b'{"event": "egress.x", "data": []}',
    b"\xff\xfe",
]


@pytest.fixture
def line() -> Iterator[tuple[Sidecar, socket.socket]]:
    """A sidecar, and the bundle's end of its line."""
    mine, its = socket.socketpair()
    sidecar = object.__new__(Sidecar)
    sidecar.sock, sidecar._buffer, sidecar.authority, sidecar._authorities_heard = mine, b"", "", 0
    mine.setblocking(False)
    with mine, its:
        yield sidecar, its


def hear(line: tuple[Sidecar, socket.socket], *said: bytes) -> list[dict[str, Any]]:
    sidecar, its = line
    its.setblocking(False)
    left = b"".join(one + b"\n" for one in (*said, b'{"last": true}'))
    found: list[dict[str, Any]] = []
    while {"last": True} not in found:
        if left:
            left = left[its.send(left) :]
        found += sidecar.read() or []
    return found


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
def test_a_lie_is_passed_over_and_what_stands_beside_it_is_recorded(
    line: tuple[Sidecar, socket.socket], lie: bytes, tmp_path: Path
) -> None:
    events = line[0].events("mine-2345", hear(line, lie, json.dumps(HONEST).encode()))
    with Store.open(str(tmp_path / "store.db")) as store:
        store.append(events)
        assert [(event.kind, event.data) for event in store.events()] == [
            ("egress.refused", HONEST["data"]),
        ]


def test_long_and_hostile_text_is_recorded_as_text_that_can_be_read(
    line: tuple[Sidecar, socket.socket],
) -> None:
    data = {"host": "\x1b[2J\u202e\ud800", "path": "x" * 500_000}
    [event] = line[0].events("r", hear(line, json.dumps({"event": "egress.refused", "data": data}).encode()))
    assert event.data["host"] == "\ufffd[2J\ufffd\ufffd"
    assert len(event.data["path"]) == 300


def test_a_flood_is_recorded_up_to_a_rate_and_then_as_a_number() -> None:
    now = [0.0]
    room = heard.Room(lambda: now[0])
    flood = [("egress.refused", {})] * 1000
    assert sum(len(room.take(flood)) for _ in range(100)) == heard.BURST
    now[0] += 1.0
    taken = room.take(flood[:10])
    assert len(taken) == 11
    assert taken[-1] == ("egress.folded", {"counts": {"passed.over": 100 * 1000 - heard.BURST}})
    now[0] += 1.0
    assert room.take(flood[:10]) == flood[:10]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(
    st.text() | st.sampled_from(["egress.closed", "dns.refused"]),
    st.dictionaries(st.text() | st.just("up"), anything),
)
def test_what_is_taken_can_be_written_down(kind: str, data: dict[str, object]) -> None:
    found = heard.event({"event": kind, "data": data})
    if found is None:
        return
    json.dumps(found, allow_nan=False).encode("ascii")
    for value in found[1].values():
        assert not isinstance(value, float) or math.isfinite(value)
        assert not isinstance(value, list)


def test_a_bundle_that_never_stops_talking_is_not_heard_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "LAST_WORDS_WITHIN", 0.2)
    mine, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # whatever becomes of the test
        while True:
            its.sendall(b'{"stats": {}}\n' * 20)
    its.close()
    bundle = object.__new__(Sidecar)
    bundle.sock, bundle._buffer, bundle.pid, bundle.code = mine, b"", pid, None
    bundle.authority, bundle._authorities_heard, bundle._told_to_stop = "", 0, False
    bundle.door = socket.socket()
    assert bundle.stop()
    assert bundle.code == -signal.SIGKILL
