"""A bottle whose bundle is a container of its own (`far.py`), as the process that created it sees it."""

import base64
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bot_bottle.backends.attached import End, Process
from bot_bottle.backends.base import Stdio
from bot_bottle.backends.docker import carrying, container, door, etc, programs, stage
from bot_bottle.backends.docker.far import KIND_LABEL, Place, door_volume, remove_bottle, work_volume
from bot_bottle.backends.docker.images import Image
from bot_bottle.backends.guest import GONE
from bot_bottle.door.model import Hatch, Listener
from bot_bottle.errors import SandboxError
from bot_bottle.plan.model import INSIDE_WORKSPACE, Command, File, Mount

_BATCH = 2 << 20
"""Bytes of files that are written by one order."""


class FarBottle:
    """See `backends.base.Bottle`."""

    def __init__(self, place: Place, image: Image, stdio: Stdio, owned: ExitStack) -> None:
        self._place = place
        self._plan = place.plan
        self._image = image
        self._owned = owned
        self._numbers = 1
        self._awaits = True
        self._released = False
        self._destroyed = False
        kept = [os.dup(descriptor) for descriptor in stdio[:3]]
        self._stdio = Stdio(kept[0], kept[1], kept[2], stdio.tty)
        ours, self._report = socket.socketpair()
        self.agent = Process(place.attached, 1, ours)
        place.changed = self._show_stores

    def open_door(self, listeners: Sequence[Listener], channel: "socket.socket | Hatch") -> None:
        self._must_run()
        if not isinstance(channel, Hatch):
            self._open_here(listeners, channel)
            return
        if not self._awaits:
            await_helper(self._place)
        self._awaits = False
        order = {"do": "listen", "for": channel.channel, "listeners": [list(one) for one in listeners]}
        self._place.attached.ask(order)

    def _open_here(self, listeners: Sequence[Listener], channel: socket.socket) -> None:
        """For what runs beside the keeper, as the git gate does: by a helper that comes here and not to the deputy."""
        if not self._place.local:
            raise SandboxError("This bottle's listeners can't come here")
        helper = door.another(self._place.engine, self._plan)
        try:
            helper.open(listeners, channel)
        finally:
            helper.close()

    def spawn(self, command: Command, stdio: Stdio) -> Process:
        self._must_run()
        self._numbers += 1
        ours, theirs = socket.socketpair()
        process = Process(self._place.attached, self._numbers, ours)
        with theirs:
            self._run(self._numbers, command, stdio, theirs)
        return process

    def _run(self, number: int, command: Command, stdio: Stdio, report: socket.socket) -> None:
        take = self._place.attached.channel
        ends = [End(take(), stdio.stdin, writes=stdio.tty)]
        if not stdio.tty:
            ends += [End(take(), one, reads=False) for one in (stdio.stdout, stdio.stderr)]
        order = {
            "do": "spawn", "number": number, "tty": stdio.tty, "channels": [end.channel for end in ends],
            "argv": command.argv, "env": command.env, "cwd": command.cwd,
        }  # fmt: skip
        self._place.attached.ask(order, ends, report=report)

    def write_files(self, files: Sequence[File]) -> None:
        self._must_run()
        batch: list[tuple[str, str, int]] = []
        size = 0
        for file in files:
            size += len(file.content)
            batch.append((file.target, base64.b64encode(file.content).decode(), file.mode))
            if size > _BATCH:
                self._place.attached.ask({"do": "write", "files": batch})
                batch, size = [], 0
        if batch:
            self._place.attached.ask({"do": "write", "files": batch})

    def release(self) -> None:
        self._must_run()
        if self._released:
            return
        if self._awaits:  # nothing that can change the network is there when the agent is
            self._place.attached.ask({"do": "leave"})
            self._awaits = False
        workspace = self._plan.workspace
        if workspace.mode == "copy" and not self._place.local:
            carrying.carry_in(self._place.engine, self._place.names, workspace.copy, self._image)
        self._released = True
        try:
            self._run(1, self._plan.command, self._stdio, self._report)
        finally:
            self._forget_stdio()

    def destroy(self) -> None:
        if self._destroyed:
            return
        self._destroyed = True
        self._place.changed = lambda: None
        with contextlib.suppress(SandboxError):
            self._place.attached.ask({"do": "close"})
        if not self._released:
            self._forget_stdio()
        self._owned.close()

    def _forget_stdio(self) -> None:
        for descriptor in self._stdio[:3]:
            os.close(descriptor)
        self._report.close()

    def _show_stores(self) -> None:
        show(self._place)

    def _must_run(self) -> None:
        if self._destroyed or self._place.attached.ended():
            raise SandboxError(GONE)


def make(place: Place, image: Image, stdio: Stdio, meanwhile: Callable[[], object]) -> FarBottle:
    """The bottle. Raises HostError, SandboxError; then nothing of it is left but the place."""
    engine, names, plan = place.engine, place.names, place.plan
    with ExitStack() as owned:
        owned.callback(remove_bottle, engine, names, plan.workspace.copy if not place.local else "")
        with ExitStack() as staged:
            asked = body(place, image, staged)
            engine.call("POST", "/containers/create", asked, what="make the container", name=names.agent)
            starting = engine.begin("POST", f"/containers/{names.agent}/start", what="start the container")
            staged.callback(starting.drop)
            meanwhile()
            starting.finish()
        show(place)
        await_helper(place)
        place.attached.ask({"do": "hand", "files": plan.limits.files})
        return FarBottle(place, image, stdio, owned.pop_all())


def body(place: Place, image: Image, staged: ExitStack) -> dict[str, Any]:
    """The agent's container. With an engine here it is as beside the keeper.

    Elsewhere nothing can be mounted: the workspace is a volume, and what else is to be shown is put into the root, which is not
    read-only for that. Only root could write there, which nothing in it is.
    """
    plan, names = place.plan, place.names
    user = (image.uid, image.gid)
    if place.local:
        bound: Sequence[Mount] = (*container.mounts(plan), *etc.write(plan))
        if os.geteuid() == 0:
            bound = stage.stage(bound, f"{stage.FOLDER}/{plan.id}", user, staged)
        return dict(container.body(plan, image.id, user, bound))
    workspace = {
        "Type": "volume", "Source": work_volume(names), "Target": INSIDE_WORKSPACE,
        "VolumeOptions": {"Labels": {**names.labels, KIND_LABEL: "work"}},
    }  # fmt: skip
    asked: dict[str, Any] = dict(container.body(plan, image.id, user, []))
    asked["NetworkDisabled"] = False  # so that the engine writes /etc/hosts and its like
    asked["HostConfig"] = {**asked["HostConfig"], "ReadonlyRootfs": False, "Mounts": [workspace]}
    return asked


def show(place: Place) -> None:
    """Puts into the container what can't be mounted there: the bottle's own mounts and its certificate stores."""
    if place.local:
        return
    trust = place.plan.trust.mounts if place.plan.trust else ()
    mounts: list[Mount] = [mount for mount in (*place.plan.mounts, *trust) if not mount.writable]
    if mounts:
        carrying.put(place.engine, place.names.agent, mounts)


def await_helper(place: Place) -> None:
    """Starts a helper of the door, which the deputy awaits. Raises HostError, SandboxError."""
    engine, names = place.engine, place.names
    place.attached.ask({"do": "await"})
    labels = {**names.labels, KIND_LABEL: "door"}
    asked: dict[str, Any] = door.body(programs.door_image(engine), names.agent, "/", labels)
    volume = {"Type": "volume", "Source": door_volume(names), "Target": "/door", "ReadOnly": True}
    asked["HostConfig"]["Mounts"] = [volume]
    name = door.further(engine, asked, names)
    engine.call("POST", f"/containers/{name}/start", what="start the door's helper")
