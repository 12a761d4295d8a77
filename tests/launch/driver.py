"""A keeper that is killed at a chosen point: `driver.py AGENT PHASE WHOM`; run by the tests as a process of its own.

WHOM: `keeper` (this process), `bundle`, or `sandbox`; each with SIGKILL, when PHASE begins. PHASE `running` is after the
agent was let go.
"""

import os
import signal
import sys

from bot_bottle.operate.runs import StartRequest, prepare, run_here


def children() -> list[int]:
    """This process's children, oldest first."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def is_sandbox(pid: int) -> bool:
    """Whether the process is bubblewrap and not a fork of ours."""
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip() == "bwrap"


def kill(whom: str) -> None:
    """Ends it, if it is there by now."""
    if whom == "keeper":
        print("killed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    for pid in children():
        if is_sandbox(pid) == (whom == "sandbox"):
            print("killed", flush=True)
            os.kill(pid, signal.SIGKILL)
            return


def main() -> int:
    agent, phase, whom = sys.argv[1:4]
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
