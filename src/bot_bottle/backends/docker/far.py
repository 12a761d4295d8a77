"""Bottles whose bundle is a container of its own: with an engine on another kernel, and wherever the bottle's file says so.

What takes descriptors is done there by the deputy (`deputy.py`); here is who tells it. The deputy's container has a network to dial
out by, a volume that the door's helper alone has besides it, and nothing of the host. Nothing secret is in what it is made from:
its config and credentials come over its standard input.
"""

import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bot_bottle.backends.attached import End, Process
from bot_bottle.backends.base import Stdio
from bot_bottle.backends.docker import carrying, container, door, programs, stage, toolbox
from bot_bottle.backends.docker.attached import attach
from bot_bottle.backends.docker.container import Names
from bot_bottle.backends.docker.images import Image
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from bot_bottle.backends.guest import GONE
from bot_bottle.door.model import Hatch, Listener
from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.plan.model import INSIDE_WORKSPACE, Command, File, Mount, RunPlan

MEMORY = 512 << 20
_PROCESSES = 64
_ENDED_WITHIN = 5.0
_BATCH = 2 << 20
_RUN = "from bot_bottle.backends.docker import deputy; deputy.main()"
KIND_LABEL = "bot-bottle.kind"


def bundle_name(names: Names) -> str:
    """The container's."""
    return f"{names.agent}-bundle"


def door_volume(names: Names) -> str:
    """The volume's that the deputy and the door's helper have."""
    return f"{names.agent}-door"


def work_volume(names: Names) -> str:
    """The volume's that holds the workspace's copy."""
    return f"{names.agent}-work"


def network_name(names: Names) -> str:
    """The network's that the bundle dials out by."""
    return f"{names.agent}-out"


class Place:
    """See `backends.base.Place`. `local` is whether the engine runs on this kernel, so that folders can be shown to it."""

    def __init__(self, engine: Engine, plan: RunPlan, *, local: bool) -> None:
        """Makes it. Raises HostError, SandboxError; then nothing is left."""
        self.engine = engine
        self.plan = plan
        self.local = local
        self.names = container.names(plan)
        self.keeper = 1
        self.changed: Callable[[], None] = lambda: None
        self._owned = ExitStack()
        self._begin()

    def _begin(self) -> None:
        with ExitStack() as owned:
            owned.callback(self.engine.close)
            owned.callback(remove_rest, self.engine, self.names)
            owned.callback(_remove_container, self.engine, bundle_name(self.names))
            image = toolbox.ensure(self.engine)
            labels = {**self.names.labels, KIND_LABEL: "bundle"}
            call = self.engine.call
            options = {
                "type": "tmpfs",
                "device": "tmpfs",
                "o": f"size=64k,nr_inodes=64,uid={toolbox.UID},mode=0711",
            }
            asked = {
                "Name": door_volume(self.names),
                "Labels": labels,
                "Driver": "local",
                "DriverOpts": options,
            }
            call("POST", "/volumes/create", asked, what="make the door's volume")
            alone = {"com.docker.network.bridge.enable_icc": "false"}
            network = {
                "Name": network_name(self.names),
                "CheckDuplicate": True,
                "Labels": labels,
                "Options": alone,
            }
            call("POST", "/networks/create", network, what="make the bundle's network")
            asked = _body(self.names, image, labels)
            call(
                "POST",
                "/containers/create",
                asked,
                what="make the bundle's container",
                name=bundle_name(self.names),
            )
            self.attached = attach(self.engine, bundle_name(self.names))
            owned.callback(self.attached.close)
            call("POST", f"/containers/{bundle_name(self.names)}/start", what="start the bundle's container")
            self._owned = owned.pop_all()

    def _alive(self) -> None:
        """Raises SandboxError when the container has ended: the engine was restarted, or it used too much memory."""
        if self.attached.ended():
            raise SandboxError("The bundle's container has ended")

    def bundle(self) -> tuple[int, socket.socket]:
        return self._start({"do": "bundle"})

    def server(self, order: object) -> tuple[int, socket.socket]:  # noqa: ARG002 - said on its line
        return self._start({"do": "supervise"})

    def knocks(self) -> socket.socket:
        return self._start({"do": "knock"})[1]

    def _start(self, order: dict[str, Any]) -> tuple[int, socket.socket]:
        self._alive()
        channel = self.attached.channel()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.attached.ask({**order, "channel": channel}, [End(channel, theirs.fileno())])
        except BaseException:
            ours.close()
            raise
        return channel, ours

    def shut(self) -> None:
        with contextlib.suppress(SandboxError):
            self.attached.tell({"do": "shut"})

    def end(self, channel: int) -> int | None:
        with contextlib.suppress(SandboxError):
            self.attached.tell({"do": "end", "channel": channel})
            return self.attached.code(channel, within=_ENDED_WITHIN)
        return None

    def refresh(self) -> None:
        self.changed()

    def close(self) -> None:
        self._owned.close()


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
            raise SandboxError("This bottle's listeners can't come here")
        if not self._awaits:
            await_helper(self._place)
        self._awaits = False
        order = {"do": "listen", "for": channel.channel, "listeners": [list(one) for one in listeners]}
        self._place.attached.ask(order)

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
        bound: Sequence[Mount] = container.mounts(plan)
        if os.geteuid() == 0:
            bound = stage.stage(bound, f"{stage.FOLDER}/{plan.id}", user, staged)
        return dict(container.body(plan, image.id, user, bound))
    workspace = {
        "Type": "volume", "Source": work_volume(names), "Target": INSIDE_WORKSPACE,
        "VolumeOptions": {"Labels": {**names.labels, KIND_LABEL: "work"}},
    }  # fmt: skip
    asked: dict[str, Any] = dict(container.body(plan, image.id, user, []))
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
    name = names.helper(time.monotonic_ns())
    labels = {**names.labels, KIND_LABEL: "door"}
    asked: dict[str, Any] = door.body(programs.door_image(engine), names.agent, "/", labels)
    volume = {"Type": "volume", "Source": door_volume(names), "Target": "/door", "ReadOnly": True}
    asked["HostConfig"]["Mounts"] = [volume]
    engine.call("POST", "/containers/create", asked, what="make the door's helper", name=name)
    engine.call("POST", f"/containers/{name}/start", what="start the door's helper")


def _body(names: Names, image: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": [*toolbox.RUN, toolbox.PREFIX + _RUN],
        "Cmd": [],
        "User": f"{toolbox.UID}:{toolbox.UID}",
        "Labels": labels,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "StopSignal": "SIGKILL",
        "HostConfig": {
            "NetworkMode": network_name(names),
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "AutoRemove": True,
            "IpcMode": "private",
            "Memory": MEMORY,
            "MemorySwap": MEMORY,
            "PidsLimit": _PROCESSES,
            "LogConfig": {"Type": "none"},
            "Mounts": [{"Type": "volume", "Source": door_volume(names), "Target": "/door"}],
        },
    }


# Removing


def remove_bottle(engine: Engine, names: Names, copy: str) -> None:
    """The agent's container and, once what it held is in the folder `copy` here, the volume of its workspace."""
    _remove_container(engine, names.agent)
    if copy:
        try:
            carrying.carry_out(engine, names, copy)
        except BotBottleError as error:
            raise HostError(
                "The agent's work could not be brought back", details=str(error),
                resolution=f"It is in the volume {work_volume(names)} of the engine at {engine.path}.",
            ) from error  # fmt: skip
    _remove(engine, f"/volumes/{work_volume(names)}", "remove a volume")


def remove_rest(engine: Engine, names: Names) -> list[str]:
    """Every network of the run and every volume but the workspace's; a sentence for each."""
    said = []
    wanted = json.dumps({"label": [f"{key}={value}" for key, value in names.labels.items()]})
    for network in engine.call("GET", "/networks", what="list networks", filters=wanted):
        _remove(engine, f"/networks/{network['Id']}", "remove a network")
        said.append(f"removed the network {network['Name']}")
    for volume in engine.call("GET", "/volumes", what="list volumes", filters=wanted).get("Volumes") or ():
        if volume["Name"] != work_volume(names):
            _remove(engine, f"/volumes/{volume['Name']}", "remove a volume")
            said.append(f"removed the volume {volume['Name']}")
    return said


def has_work(engine: Engine, names: Names) -> bool:
    """Whether there is a volume with the run's workspace."""
    try:
        engine.call("GET", f"/volumes/{work_volume(names)}", what="look for a volume")
    except EngineRefusal as refused:
        if refused.status != 404:
            raise
        return False
    return True


def _remove_container(engine: Engine, name: str) -> None:
    _remove(engine, f"/containers/{name}?force=1&v=1", "remove a container")


def _remove(engine: Engine, path: str, what: str) -> None:
    """What is in use is about to be free: whatever had it has been killed."""
    deadline = time.monotonic() + _ENDED_WITHIN * 2
    while True:
        try:
            engine.call("DELETE", path, what=what)
        except EngineRefusal as refused:
            if refused.status == 404:
                return
            if refused.status not in (403, 409, 500) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
