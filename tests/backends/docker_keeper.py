"""A keeper to be killed: makes a bottle of docker, goes on to the phase it was told, says so and stops there.

docker_keeper.py ROOT PHASE
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

from bot_bottle.backends import guest
from bot_bottle.backends.base import Stdio
from bot_bottle.backends.docker import door, stage, wire
from bot_bottle.backends.registry import backend
from bot_bottle.door.model import Listener
from bot_bottle.plan.model import ImageSpec
from support.backends import make_plan
from support.engine import BASE
from support.keepers import stop, stopping_after

ENGINE_CALLS = {
    "agent-created": ("POST", "/containers/create", "name=bot-bottle"),
    "agent-starting": ("POST", "/start", ""),
    "helper-created": ("POST", "/containers/create", "-door-"),
    "helper-starting": ("POST", "-door-0/start", ""),
    "further-created": ("POST", "/containers/create", "-door-1"),
    "further-starting": ("POST", "-door-1/start", ""),
}


def watch_engine() -> None:
    """Stops after the engine was asked for what the phase is called after; its answer is not waited for."""
    begin = wire.Engine.begin

    def run(self, method, path, *arguments, **query):
        pending = begin(self, method, path, *arguments, **query)
        for phase, (wanted, part, named) in ENGINE_CALLS.items():
            name = f"name={query.get('name', '')}"
            if method == wanted and part in path and named in name:
                if phase == "agent-created" and "-door-" in name:
                    continue
                stop(phase)
        return pending

    wire.Engine.begin = run


def main() -> None:
    root = Path(sys.argv[1])
    watch_engine()
    stage.stage = stopping_after(stage.stage, "staged")
    door.Helper.start = stopping_after(door.Helper.start, "helper-there")
    door.Helper.hand_over = stopping_after(door.Helper.hand_over, "handed-over")
    guest.Line.confine = stopping_after(guest.Line.confine, "confined")
    # The agent does what a hostile one would: it keeps the signals of its keeper's end from itself, and leaves its session.
    script = "touch ran; setsid sh -c 'trap \"\" HUP TERM INT; while :; do sleep 0.1; done' & sleep 1000"
    nothing = os.open(os.devnull, os.O_RDWR)
    plan = make_plan(root, "sh", "-c", script, backend="docker", image=ImageSpec(reference=BASE))
    made_by = backend("docker")
    os.write(1, json.dumps(made_by.traces(plan)).encode() + b"\n")
    bottle = made_by.create(plan, Stdio(nothing, nothing, nothing))
    stop("made")
    ours, theirs = socket.socketpair()
    bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs)
    stop("door")
    bottle.spawn(plan.command._replace(argv=("sleep", "1000")), Stdio(nothing, nothing, nothing))
    stop("spawned")
    if sys.argv[2].startswith("further-"):
        bottle.open_door([Listener("git", "127.0.0.1", 3130)], theirs)
    bottle.release()
    while not (root / "workspace" / "ran").exists():
        time.sleep(0.01)
    stop("released")
    ours.close()


main()
