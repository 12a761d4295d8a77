"""Whoever dies, and whenever: the agent is dead or never ran, and no process is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle.errors import SandboxError
from bot_bottle.testing.conformance import DEADLINE, SLEEP, shell, until
from support.identity import identify

UNDERTAKER = Path(__file__).with_name("undertaker.py")
BEFORE_RELEASE = ("starting", "made", "entering", "held", "door")


def bury(root: Path, moment: str) -> subprocess.CompletedProcess:
    (root / "workspace").mkdir()
    return subprocess.run(
        [sys.executable, str(UNDERTAKER), str(root), moment],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("phase", [*BEFORE_RELEASE, "spawned", "released", "forked"])
def test_a_keeper_that_is_killed_leaves_no_process(tmp_path: Path, phase: str) -> None:
    done = bury(tmp_path, phase)
    assert done.stdout == b"clean\n", (done.stdout, done.stderr)
    if phase in BEFORE_RELEASE:
        assert not (tmp_path / "workspace" / "ran").exists()


@pytest.mark.parametrize("milliseconds", range(40, 200, 8))
def test_a_keeper_that_is_killed_at_any_moment_leaves_no_process(tmp_path: Path, milliseconds: int) -> None:
    done = bury(tmp_path, str(milliseconds))
    assert done.stdout == b"clean\n", (done.stdout, done.stderr)


def test_a_bottle_whose_first_process_is_killed_has_ended(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    (holder,) = (
        Path(f"/proc/{_child_called('bwrap')}/task/{_child_called('bwrap')}/children").read_text().split()
    )
    os.kill(int(holder), signal.SIGKILL)
    assert bottle.agent.wait(DEADLINE) == 128 + signal.SIGKILL
    with pytest.raises(SandboxError):
        until(lambda: shell(bottle, "true") and None, "the bottle is known to have ended")


def test_a_bottle_whose_bubblewrap_is_killed_goes_on_and_still_ends(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    monitor = _child_called("bwrap")
    (holder,) = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
    os.kill(monitor, signal.SIGKILL)
    assert shell(bottle, "exit 3").code == 3
    bottle.destroy()
    until(lambda: identify(int(holder)) is None, "the holder has ended")


def _child_called(name: str) -> int:
    for process in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(name.encode()):
            return int(process)
    raise AssertionError(f"no child is called {name}")
