"""Bottles whose bundle is a container of its own: with an engine on another kernel, and wherever the bottle's file says so.

What takes descriptors is done there by the deputy (`deputy.py`); here is who tells it. The deputy's container has a network to dial
out by, a volume that the door's helper alone has besides it, and nothing of the host. Nothing secret is in what it is made from:
its config and credentials come over its standard input.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from bot_bottle.backends.attached import End
from bot_bottle.backends.docker import carrying, container, toolbox
from bot_bottle.backends.docker.attached import attach
from bot_bottle.backends.docker.container import Names
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.plan.model import RunPlan

MEMORY = 512 << 20
_PROCESSES = 64
_ENDED_WITHIN = 5.0
_RUN = "from bot_bottle.backends.docker import deputy; deputy.main()"
KIND_LABEL = "bot-bottle.kind"


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
            owned.callback(_remove_container, self.engine, self.names.bundle)
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
                name=self.names.bundle,
            )
            self.attached = attach(self.engine, self.names.bundle)
            owned.callback(self.attached.close)
            call("POST", f"/containers/{self.names.bundle}/start", what="start the bundle's container")
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
