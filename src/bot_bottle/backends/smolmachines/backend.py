"""The `smolmachines` backend: bottles that are virtual machines of their own."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial

from bot_bottle.backends import guest, seccomp
from bot_bottle.backends.base import Backend, Bottle, Place, Stdio
from bot_bottle.backends.smolmachines import deputy, machine, place, program
from bot_bottle.backends.smolmachines.bottle import MachineBottle, confine
from bot_bottle.backends.smolmachines.images import PreparedImage
from bot_bottle.backends.smolmachines.smolvm import Smolvm
from bot_bottle.door import relayed
from bot_bottle.errors import HostError
from bot_bottle.host import files
from bot_bottle.host.spawn import nothing
from bot_bottle.plan.model import RunPlan
from bot_bottle.typed import Any

_PATIENCE = 60.0
"""Seconds for a machine that runs to start our programs; under emulation it takes a few."""

_LARGEST_LIST = 1 << 20
_SHORTER = "Have XDG_STATE_HOME and XDG_RUNTIME_DIR name folders whose paths are shorter"


class SmolmachinesBackend:
    """See `backends.base.Backend`."""

    name = "smolmachines"

    def needs_copy(self) -> bool:
        return False

    def mismatches(self, plan: RunPlan) -> Sequence[str]:
        return machine.mismatches(plan)

    def traces(self, plan: RunPlan) -> Mapping[str, Any]:
        return machine.names(plan)._asdict()

    def prepare(self, plan: RunPlan, say: Callable[[str], None]) -> None:
        _image(plan, say)

    def place(self, plan: RunPlan) -> Place | None:  # noqa: ARG002 - beside the keeper, always
        return None

    def create(self, plan: RunPlan, stdio: Stdio, *, meanwhile: Callable[[], object] = nothing) -> Bottle:
        if problems := machine.mismatches(plan):
            raise HostError("This bottle can't be made", details="\n".join(problems))
        ids()
        image = _image(plan)
        with ExitStack() as owned:
            return _make(plan, image, stdio, meanwhile, owned)

    def reap(self, traces: Mapping[str, Any]) -> Sequence[str]:
        if not os.path.isdir(traces["state"]):
            return []
        machines = Smolvm(program.find(), traces["state"])
        return [f"removed the machine {traces['machine']}"] if _remove(machines, traces["machine"]) else []


def make() -> Backend:
    """The backend, for the registry."""
    return SmolmachinesBackend()


def ids() -> tuple[int, int]:
    """Who the agent is inside: the operator, whose files the workspace's are. Raises HostError for root."""
    if os.geteuid() == 0:
        raise HostError(
            "A bottle in a microVM can't be started by root",
            details="smolvm runs the machines of root as another user, who can't reach the bottle's files.",
            resolution="Start it as a user who may open /dev/kvm, or use another backend.",
        )
    return os.getuid(), os.getgid()


def _image(plan: RunPlan, say: Callable[[str], None] = lambda _: None) -> PreparedImage:
    from bot_bottle.backends.smolmachines import images

    root = os.path.dirname(os.path.dirname(plan.paths.state))
    return images.prepare(plan.image, cache=f"{root}/images", say=say)


def _make(
    plan: RunPlan, image: PreparedImage, stdio: Stdio, meanwhile: Callable[[], object], owned: ExitStack
) -> MachineBottle:
    folder = machine.folder(plan)
    names = machine.names(plan)
    if problem := machine.too_long(plan):
        raise HostError("The sockets of a microVM need shorter paths", details=problem, resolution=_SHORTER)
    _programs(folder, owned)
    machines = Smolvm(program.find(), names.state)
    mounts = (*plan.image.layers, *(plan.trust.mounts if plan.trust else ()))
    are_folders = frozenset(mount.source for mount in mounts if os.path.isdir(mount.source))
    folders, shown = machine.shown(mounts, are_folders)
    owned.callback(_remove, machines, names.machine)
    creating = machines.begin_create(machine.machine(plan, image.rootfs, folders))
    owned.callback(creating.drop)
    relay = relayed.Relay(f"{folder}/door.sock")
    owned.callback(relay.end)
    line = deputy.Waiting(f"{folder}/line.sock")
    owned.callback(line.close)
    meanwhile()  # and not while it boots: what it boots with are processors of ours
    creating.finish()
    starting = machines.begin(names.machine)
    owned.callback(starting.drop)
    starting.finish()
    connection = line.take(_PATIENCE)
    owned.callback(connection.close)
    process = deputy.machine_of(connection)
    owned.callback(os.close, process)
    door = (relay.fileno(), "its door's relay has ended")
    attached = deputy.attach(connection, partial(_kill, process), (process,), (door,))
    owned.callback(attached.close)
    starting.guarded()
    relay.wait_for_inside(_PATIENCE)
    uid, gid = ids()
    wanted = place.Place(
        machine.host_name(plan.id), uid, gid, machine.memory(plan), plan.limits, shown,
        _list(image, "passwd"), _list(image, "group"),
    )  # fmt: skip
    begin = {
        "number": uid,
        "value": gid,
        "more": plan.limits.pids or 0,
        "text": deputy.said(place.listed(wanted)),
    }
    confine(attached, begin, seccomp.agents_filter(), plan.limits.files)
    return MachineBottle(attached, relay, plan.command, stdio, owned.pop_all())


def _list(image: PreparedImage, name: str) -> str:
    """The image's list of users or groups; empty where it has none of a sensible size."""
    path = f"{image.rootfs}/etc/{name}"
    if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > _LARGEST_LIST:
        return ""
    return files.read(path).decode(errors="replace").replace("\0", "")


def _programs(folder: str, owned: ExitStack) -> None:
    """What the machine is shown of ours, as files of its own: it sees the folder that they are in."""
    owned.callback(_forget, folder)
    os.makedirs(f"{folder}/bottle", mode=0o755)
    try:
        for name, content in (
            ("deputy", files.read(deputy.program())),
            ("relay", files.read(relayed.program())),
            ("guest", guest.program()),
        ):
            path = f"{folder}/bottle/{name}"
            files.write(path, content)
            os.chmod(path, 0o755)  # noqa: S103 - a program
    except OSError as error:
        raise HostError("The bottle's programs can't be put into its folder", details=str(error)) from error


def _forget(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _kill(process: int) -> None:
    with suppress(OSError):
        signal.pidfd_send_signal(process, signal.SIGKILL)


def _remove(machines: Smolvm, name: str) -> bool:
    """Whether there was such a machine."""
    machines.stop(name)
    return machines.delete(name)
