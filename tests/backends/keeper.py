"""A keeper to be killed: makes a bottle, goes on to the phase it was told, says so and stops there.

keeper.py ROOT PHASE
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.namespace import backend as namespace
from bot_bottle.backends.namespace import bottle as namespace_bottle
from bot_bottle.backends.namespace import enter, sandbox
from bot_bottle.door.model import Listener
from bot_bottle.host import spawn
from bot_bottle.plan.model import Limits
from support.backends import make_plan
from support.keepers import stop, stopping_after

PHASES = ("starting", "made", "entering", "held", "door", "spawned", "released", "forked")


def stopping_before(function, phase):
    def run(*arguments, **options):
        stop(phase)
        return function(*arguments, **options)

    return run


def main() -> None:
    root = Path(sys.argv[1])
    spawn.start = stopping_after(spawn.start, "starting")
    sandbox.make = stopping_after(sandbox.make, "made")
    enter._confine = stopping_before(enter._confine, "entering")
    namespace_bottle.NamespaceBottle.hold_agent = stopping_after(
        namespace_bottle.NamespaceBottle.hold_agent, "held"
    )
    # The agent does what a hostile one would: it keeps the signal of its keeper's end from itself, and leaves its session.
    script = "touch ran; setsid sh -c 'trap \"\" HUP TERM INT; while :; do sleep 0.1; done' & sleep 1000"
    nothing = os.open(os.devnull, os.O_RDWR)
    plan = make_plan(root, "sh", "-c", script, limits=Limits(pids=None))
    bottle = namespace.make().create(plan, Stdio(nothing, nothing, nothing))
    ours, theirs = socket.socketpair()
    bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs)
    stop("door")
    bottle.spawn(plan.command, Stdio(nothing, nothing, nothing))
    stop("spawned")
    bottle.release()
    while not (root / "workspace" / "ran").exists():
        time.sleep(0.01)
    stop("released")
    if sys.argv[2] == "forked" and os.fork():  # as a bundle would be that is forked from its keeper
        signal.pause()
    stop("forked")  # said by the child: it has done by then what a fork does first
    ours.close()


main()
