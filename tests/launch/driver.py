"""A keeper that is killed at a chosen point: `driver.py AGENT PHASE WHOM`; run by the tests as a process of its own.

WHOM: `keeper` (this process), `bundle`, `bubblewrap`, or `sandbox` (process 1 inside); each with SIGKILL, when PHASE begins;
or the door's `helper`, while PHASE (`opening` or `passing` the listeners), or the workspace's `copier` (`copying` or
`remembering` it).
PHASE `running` is after the agent was let go.
"""

import os
import signal
import sys
from types import ModuleType

from bot_bottle.door import inside, passing
from bot_bottle.operate.runs import StartRequest, prepare, run_here
from bot_bottle.provision import workspace

STEPS = {
    "opening": (inside, "open_listeners"),
    "passing": (passing, "send_listeners"),
    "copying": (workspace, "copy_files"),
    "remembering": (workspace, "remember_start"),
}
"""What only one forked process calls."""


def children(of: int) -> list[int]:
    """A process's children, oldest first."""
    with open(f"/proc/{of}/task/{of}/children") as file:
        return [int(pid) for pid in file.read().split()]


def name(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def find(whom: str) -> list[int]:
    """The process, if it is there by now."""
    ours = children(os.getpid())
    bubblewrap = [pid for pid in ours if name(pid) == "bwrap"]
    if whom == "bundle":
        return [pid for pid in ours if pid not in bubblewrap][:1]
    return bubblewrap if whom == "bubblewrap" else [pid for one in bubblewrap for pid in children(one)]


def kill(whom: str) -> None:
    """Ends it with SIGKILL."""
    for pid in [os.getpid()] if whom == "keeper" else find(whom):
        print("killed", flush=True)
        os.kill(pid, signal.SIGKILL)


def kill_helper(module: ModuleType, function: str) -> None:
    """Lets the only process that calls `function` kill itself when it comes there."""

    def die(*_: object) -> None:
        print("killed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, function, die)


def main() -> int:
    agent, phase, whom = sys.argv[1:4]
    if phase in STEPS:
        kill_helper(*STEPS[phase])
    prepared = prepare(StartRequest(agent=agent, folder=os.getcwd(), headless=True))
    done = run_here(
        prepared,
        foreground=True,
        phase=lambda name: kill(whom) if name == phase else None,
        ready=lambda _: kill(whom) if phase == "running" else None,
    )
    print(f"exit {done.exit_code}: {done.reason} {done.warnings}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
