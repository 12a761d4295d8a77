"""The places of the gate's processes: gone with their keeper, whatever runs in them; nothing of the host's in them by chance."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.namespace
SUPPORT = Path(__file__).resolve().parents[1] / "support"
KEEPER = """
import os, select, signal, sys, socket
from bot_bottle.launch.gitgate import jail
told, support, often = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
place = jail.Place(readable=((support, "/python/own/support"),))
def keep():
    line, theirs = socket.socketpair()
    child = jail.start("support.stubborn", (theirs.fileno(), told), place)
    signal.pause()
for number in range(often):
    pid = os.fork()
    if not pid:
        os.setsid()
        keep()
    select.select([], [], [], number / 2000)  # another moment of its beginning each time
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
if not often:
    keep()
"""


@contextmanager
def keeping(often=0, **env):
    """A keeper; and what is told from the places that it makes, which ends when nothing is left in any."""
    ours, theirs = socket.socketpair()
    ours.settimeout(120)
    with ours, theirs:
        argv = [sys.executable, "-c", KEEPER, str(theirs.fileno()), str(SUPPORT), str(often)]
        given = {**os.environ, **env}
        with subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=given, start_new_session=True) as keeper:
            theirs.close()
            try:
                yield keeper, ours
            finally:
                keeper.kill()


def until_the_end(told):
    heard = b""
    while part := told.recv(4096):
        heard += part
    return heard


def test_what_does_not_want_to_end_ends_with_its_keeper():
    with keeping() as (keeper, told):
        assert told.recv(4) == b"here"
        keeper.send_signal(signal.SIGKILL)
        assert until_the_end(told) == b""


def test_a_keeper_that_is_killed_at_any_moment_of_a_places_beginning_leaves_nothing():
    with keeping(often=60) as (keeper, told):
        assert keeper.wait(300) == 0
        until_the_end(told)


def test_folders_that_modules_are_sought_in_on_the_host_are_not_in_the_place(tmp_path):
    with keeping(PYTHONPATH=f"/tmp:{tmp_path}:{os.environ.get('PYTHONPATH', '')}") as (keeper, told):
        assert told.recv(4) == b"here"
        seen = Path(f"/proc/{_inside(keeper.pid)}/root/tmp")
        assert list(seen.iterdir()) == []
        mounts = Path(f"/proc/{_inside(keeper.pid)}/mountinfo").read_text()
        (options,) = [line.split()[5] for line in mounts.splitlines() if line.split()[4] == "/tmp"]
        assert "rw" in options.split(",")


def _inside(pid):
    """Process 1 of the place: the child of the keeper's child."""
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid
