"""A machine whose keeper is killed while it starts is stopped once its start has ended, and not before."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bot_bottle.backends.smolmachines.guard import Guard
from support.microvms import is_gone
from support.waiting import wait_for

KEEPER = """
import os, sys
from bot_bottle.backends.smolmachines.guard import Guard
Guard(int(sys.argv[1]), ["/bin/sh", "-c", 'echo "$WORDS" > "$0"', sys.argv[2]], {"WORDS": "stopped"}, seconds=60)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def start() -> Iterator[subprocess.Popen[bytes]]:
    """A start that takes until its input ends."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as made:
        yield made


def test_the_machine_of_a_killed_keeper_is_stopped_when_its_start_has_ended(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    with start() as starting:
        argv = [sys.executable, "-c", KEEPER, str(starting.pid), str(stopped)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"ready\n"
            keeper.kill()
            keeper.wait()
            assert keeper.stdout.read() == b"", "nobody else holds what the keeper wrote to"
        assert not stopped.exists()
    wait_for(lambda: stopped.exists() and stopped.read_text() == "stopped\n", "the machine to be stopped")


def test_a_guard_that_is_not_needed_any_more_does_nothing(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    with start() as starting:
        guard = Guard(starting.pid, ["/usr/bin/touch", str(stopped)], {}, seconds=60)
        pid = guard._pid
        guard.over()
        guard.over()
        assert is_gone(pid)
    assert not stopped.exists()
    assert str(pid) not in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
