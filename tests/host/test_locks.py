"""A lock tells whether who took it still lives, however it ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from bot_bottle.host import locks

SOURCES = Path(__file__).resolve().parents[2] / "src"


def test_a_lock_is_held_until_released_and_by_one_only(tmp_path):
    path = str(tmp_path / "lock")
    assert not locks.is_held(path)
    held = locks.hold(path)
    assert held is not None
    assert locks.is_held(path)
    assert locks.hold(path) is None
    held.release()
    held.release()
    assert not locks.is_held(path)
    again = locks.hold(path)
    assert again is not None
    again.release()


def test_a_killed_keeper_is_seen_to_be_dead(tmp_path):
    code = """
import sys
from bot_bottle.host import locks
held = locks.hold(locks.keeper_lock(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
    keeper = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": str(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout.readline() == b"held\n"
    assert locks.keeper_alive(str(tmp_path))
    keeper.send_signal(signal.SIGKILL)
    keeper.communicate()
    assert not locks.keeper_alive(str(tmp_path))


def test_asking_does_not_keep_a_keeper_from_its_lock(tmp_path):
    path = str(tmp_path / "lock")
    held = locks.hold(path)
    held.release()
    asker = os.fork()
    if asker == 0:
        while os.getppid() != 1:
            locks.is_held(path)
        os._exit(0)
    try:
        for _ in range(50):
            held = locks.hold(path)
            assert held is not None
            held.release()
    finally:
        os.kill(asker, signal.SIGKILL)
        os.waitpid(asker, 0)
