"""The keeper's side of a second engine: what it does when that dies, and what of its log reaches the record."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bot_bottle.bundle import record
from bot_bottle.engines.pipelock import log, program
from bot_bottle.errors import SandboxError
from bot_bottle.launch.engine import Engine, revive
from bot_bottle.policy.model import EgressPolicy


class Dying:
    """An engine that fails to start as often as it is told."""

    def __init__(self, failures=0):
        self.died = 0
        self.failures = failures
        self.stopped = False

    def restart(self):
        if self.failures:
            self.failures -= 1
            raise SandboxError("no luck")

    def stop(self):
        self.stopped = True


def revived(engine, most=3):
    said = []
    why = revive(
        engine, most=most, tell=lambda up: said.append(up), note=lambda kind, data: said.append((kind, data))
    )
    return why, said


def test_the_bundle_hears_of_the_end_before_anything_else_and_of_the_new_one_last_but_one():
    why, said = revived(Dying())
    assert why == ""
    assert [item if isinstance(item, bool) else item[0] for item in said] == [
        False,
        "door.closed",
        True,
        "door.opened",
    ]


def test_failing_to_start_counts_like_dying_and_the_bundle_is_never_told_that_it_is_up():
    engine = Dying(failures=9)
    why, said = revived(engine)
    assert "no luck" in why
    assert engine.stopped
    assert True not in said
    assert [item[1]["times"] for item in said if not isinstance(item, bool)] == [1, 2, 3, 4]


def test_one_that_died_too_often_is_not_started_again():
    engine = Dying()
    for _ in range(3):
        assert revived(engine)[0] == ""
    why, said = revived(engine)
    assert why
    assert True not in said


@pytest.fixture
def engine(tmp_path: Path, monkeypatch):
    """An engine that was never started; its log is what a test says."""
    monkeypatch.setattr(program, "find", lambda: "/usr/bin/true")
    monkeypatch.setattr(program, "version", lambda path: "pipelock 2.3.0")
    plan = SimpleNamespace(
        id="run-1", egress=EgressPolicy(engine="pipelock"), bundle_uid=1, bundle_gid=1,
        paths=SimpleNamespace(run=str(tmp_path)),
    )  # fmt: skip
    return Engine(plan)


def test_the_engine_of_a_running_bottle_cannot_be_changed(engine):
    with pytest.raises(SandboxError, match="can't be changed"):
        engine.apply(EgressPolicy(engine="builtin"))


def test_a_flood_in_its_log_is_folded_like_one_of_the_bundles(engine, monkeypatch):
    line = log.Line("blocked", {"target": "evil.test:443", "scanner": "allowlist", "reason": "no"})
    others = [log.Line("tunnel_open", {"target": f"h{number}.test:443"}) for number in range(2000)]
    monkeypatch.setattr(engine._pipelock, "read", lambda: [line] * 500 + others)
    events = engine.events()
    assert len(events) <= record.BURST + 5
    assert [event.kind for event in events].count("egress.refused") == 1
    assert {event.run for event in events} == {"run-1"}
    last = engine.stop()
    assert any(event.data.get("count", 0) >= 499 for event in last if event.kind == "egress.refused")


def test_lines_that_could_not_be_read_are_an_event(engine, monkeypatch):
    monkeypatch.setattr(engine._pipelock, "read", lambda: [])
    engine._pipelock.unreadable = 3
    [event] = engine.events()
    assert (event.kind, event.data["reason"], event.data["lines"]) == ("egress.failed", "log_unreadable", 3)
    assert engine.events() == []


def test_its_end_is_told_apart_from_its_silence(engine, monkeypatch):
    monkeypatch.setattr(engine._pipelock, "read", lambda: None)
    assert engine.events() is None
