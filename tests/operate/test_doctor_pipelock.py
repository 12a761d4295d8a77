"""What doctor says of pipelock: there, absent, too old for `engine: pipelock`, or broken."""

from pathlib import Path

import pytest

from bot_bottle.engines.pipelock.program import INSTALL
from bot_bottle.operate.doctor import Finding, _pipelock


def _look(says: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """What it finds with a program of that name on PATH whose `version` runs the shell's line `says`; None: without one."""
    if says is not None:
        program = folder / "pipelock"
        program.write_text(f'#!/bin/sh\n[ "$1" = version ] || exit 9\n{says}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    [finding] = _pipelock()
    return finding


@pytest.mark.parametrize("number", ["2.3.0", "2.10.1", "10.0.0", "0.0.0"])
def test_a_pipelock_that_will_do_is_named_with_its_version_and_place(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _look(f"echo pipelock version {number}; echo more", tmp_path, monkeypatch)
    assert (found.name, found.status) == ("pipelock", "ok")
    assert f"pipelock version {number} at {tmp_path.resolve() / 'pipelock'}" == found.seen


@pytest.mark.parametrize(
    ("says", "brief"),
    [
        (None, "Pipelock was not found on PATH"),
        ("echo pipelock version 2.2.9", "Pipelock 2.2.9 is too old"),
        ("echo pipelock version v1.9.0", "Pipelock v1.9.0 is too old"),
    ],
)
def test_a_pipelock_that_is_absent_or_too_old_is_noted_with_who_needs_it_and_how_to_get_it(
    says: str | None, brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _look(says, tmp_path, monkeypatch)
    assert found == Finding(
        "pipelock", "note", brief, f"Only bottles with `engine: pipelock` need it. {INSTALL}"
    )


def test_a_pipelock_that_does_not_run_is_noted_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _look("exit 3", tmp_path, monkeypatch)
    assert (found.name, found.status) == ("pipelock", "note")
    assert "does not run" in found.seen
