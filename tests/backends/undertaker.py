"""Starts a keeper, kills it at the phase it was told (or after some milliseconds), and waits until nothing of it is left.

    undertaker.py ROOT (PHASE | MILLISECONDS)

As the subreaper of its descendants it inherits whatever outlives the keeper; prints `clean` once all have ended.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    root, moment = sys.argv[1:]
    phase = "never" if moment.isdigit() else moment
    keeper = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("keeper.py")), root, phase], stdout=subprocess.PIPE
    )
    if phase == "never":
        time.sleep(int(moment) / 1000)
    else:
        assert keeper.stdout.readline() == b"here\n"
    keeper.kill()
    keeper.wait()
    if phase == "forked":
        for process in children():
            if b"keeper.py" in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGSTOP)  # it goes on holding the keeper's descriptors open
        wait_for(lambda: all(b"keeper.py" in cmdline(process) for process in children()))
        for process in children():
            os.kill(process, signal.SIGKILL)
    wait_for(lambda: not children())
    print("clean")
    return 0


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            for process in children():
                print("left:", process, cmdline(process))
                os.kill(process, signal.SIGKILL)
            sys.exit(1)
        time.sleep(0.005)


def children() -> list[int]:
    """The processes that were inherited and still run."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def cmdline(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


sys.exit(main())
