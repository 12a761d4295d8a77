"""What smolvm is asked for: pure functions from the plan to a machine, its names and its folders."""

import os
from collections.abc import Sequence
from zlib import crc32

from bot_bottle.backends.smolmachines.arguments import Folder, Machine, MountedSocket
from bot_bottle.backends.smolmachines.place import Shown, outer_first
from bot_bottle.digest import sha256_hex
from bot_bottle.plan.model import INSIDE_WORKSPACE, Mount, RunPlan
from bot_bottle.typed import Final, NamedTuple

BOTTLE: Final = "/.bottle"
"""The folder inside with the programs of ours, which the agent's place does not have."""
DOOR, LINE = "/.door/door", "/.door/line"
_SMOLVMS: Final = f".cache/smolvm/vms/{'0' * 16}/port-forward.sock"
"""The longest of smolvm's own, below its state."""
_LONGEST: Final = 107
_SHOWN: Final = "/.shown"
_MIB, _GIB = 1024**2, 1024**3
_MEMORY: Final = 4 * _GIB
"""Where the bottle's file states none: only what is touched is taken of the host's."""
_CPUS: Final = 2
_DISK: Final = 2
"""In GiB: of the machine's own, for what is made on top of the image; the agent can't write there."""


class Names(NamedTuple):
    """What a run's machine is called, and where smolvm keeps it: one folder for all runs of an installation."""

    machine: str
    state: str


def names(plan: RunPlan) -> Names:
    """The names of a run's machine."""
    root = os.path.dirname(os.path.dirname(plan.paths.state))
    return Names(f"bb-{sha256_hex(root.encode())[:6]}-{plan.id}", f"{root}/vm")


def folder(plan: RunPlan) -> str:
    """Below the run's folder: programs and sockets. Its path is short, as those of sockets have to be."""
    return f"{plan.paths.run}/vm-{crc32(plan.id.encode()):08x}"


def too_long(plan: RunPlan) -> str:
    """The longest path that a socket of the machine would have, where no socket can have it; else empty."""
    paths = (f"{folder(plan)}/door.sock", f"{names(plan).state}/{_SMOLVMS}")
    longest = max(paths, key=len)
    return longest if len(os.fsencode(longest)) > _LONGEST else ""


def workspace(plan: RunPlan) -> str:
    """The folder that is the workspace."""
    return plan.workspace.source if plan.workspace.mode == "mount" else plan.workspace.copy


def memory(plan: RunPlan) -> int:
    """The machine's, in bytes."""
    return plan.limits.memory or _MEMORY


def machine(plan: RunPlan, image: str, folders: Sequence[Folder]) -> Machine:
    """The machine; `folders` are what it shows besides the workspace and our programs."""
    run = folder(plan)
    cpus = plan.limits.cpus
    return Machine(
        name=names(plan).machine,
        image=image,
        cpus=max(1, -int(-cpus // 1)) if cpus else _CPUS,
        memory=max(128, memory(plan) // _MIB),
        storage=_DISK,
        command=(f"{BOTTLE}/deputy", f"{BOTTLE}/relay", f"{BOTTLE}/guest", DOOR, LINE),
        folders=(
            Folder(f"{run}/bottle", BOTTLE),
            Folder(workspace(plan), INSIDE_WORKSPACE, writable=True),
            *folders,
        ),
        sockets=(MountedSocket(f"{run}/door.sock", DOOR), MountedSocket(f"{run}/line.sock", LINE)),
        labels=(("bot-bottle.run", plan.id),),
    )


def shown(mounts: Sequence[Mount], folders: frozenset[str]) -> tuple[tuple[Folder, ...], tuple[Shown, ...]]:
    """How `mounts` get in. A machine is shown folders only, so of a file the one that it is in.

    `folders` are those of their sources that are folders.
    """
    made: dict[str, Folder] = {}
    found = []
    for mount in outer_first(mounts):
        is_folder = mount.source in folders
        source = mount.source if is_folder else os.path.dirname(mount.source)
        folder = made.setdefault(source, Folder(source, f"{_SHOWN}/{len(made)}"))
        inside = folder.target if is_folder else f"{folder.target}/{os.path.basename(mount.source)}"
        found.append(Shown(inside, mount.target, is_folder))
    return tuple(made.values()), tuple(found)


def host_name(run: str) -> str:
    """What the machine calls itself."""
    return run if len(run) <= 63 else f"bottle-{crc32(run.encode()):08x}"


def mismatches(plan: RunPlan) -> list[str]:
    """What in the plan a bottle of this kind can't have, one sentence each."""
    wrong = []
    if plan.workspace.mode == "clone":
        wrong.append("workspace: clone is there with backend: namespace only")
    if plan.bundle == "container":
        wrong.append("bundle: the smolmachines backend has no containers; backend: docker does")
    if plan.runtime:
        wrong.append("runtime: the smolmachines backend has no engine; backend: docker does")
    if plan.limits.cpus and plan.limits.cpus != int(plan.limits.cpus):
        wrong.append(f"resources.cpus: a machine has whole processors, not {plan.limits.cpus:g}")
    for mount in plan.mounts:
        if mount not in plan.image.layers:
            wrong.append(
                f"{mount.source} can't be shown at {mount.target}: nothing of the host is, but the workspace"
            )
    return wrong
