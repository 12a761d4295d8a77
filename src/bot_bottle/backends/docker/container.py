"""What the engine is asked to make: pure functions from the plan to the bodies of its calls, held by tests.

The agent's container has no network, no capability, no path of the host but what the plan shows, and runs a user that is not
root under the same seccomp rules as every other backend's.
"""

import os
from collections.abc import Sequence
from zlib import crc32

from bot_bottle.digest import sha256_hex
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_WORKSPACE, Mount, RunPlan
from bot_bottle.typed import Final, NamedTuple

GUEST: Final = "/.bottle"
"""Where the program that is process 1 stands inside."""
RUN_LABEL: Final = "bot-bottle.run"
ROOT_LABEL: Final = "bot-bottle.root"
HELPERS: Final = 3
"""How many names the door's helpers have: the first one's, and two that further ones take in turn."""
_GIB: Final = 1024**3
_SCRATCH: Final = 4 * _GIB
"""The size of /tmp and of the home folder when the bottle's memory has no limit; they are in memory."""
_MASKED: Final = [
    *(f"/proc/{name}" for name in ("acpi", "asound", "cmdline", "config.gz", "interrupts", "kallsyms", "kcore", "key-users")),
    *(f"/proc/{name}" for name in ("keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats")),
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]  # fmt: skip
"""What tells of the machine and not of the bottle."""
_READ_ONLY: Final = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
NO_NETWORK: Final = {"NetworkDisabled": True}
"""Beside `NetworkMode: none`: the namespace is then made by the engine's runtime alone. Else the engine runs itself twice for each
container, to give the namespace a name that nobody asks for: half of what a container costs."""

OWN_TARGETS: Final = (
    *("/", "/proc", "/dev", "/sys", "/etc", "/usr", "/run", GUEST, INSIDE_HOME, INSIDE_WORKSPACE),
    *("/tmp", "/var/tmp"),  # noqa: S108 - the bottle's own
)
"""Places that are the backend's; a bottle's own mounts may lie below some of them, but not replace them."""


class Names(NamedTuple):
    """What everything made for one run is called."""

    run: str
    root: str

    @property
    def labels(self) -> dict[str, str]:
        return {RUN_LABEL: self.run, ROOT_LABEL: self.root}

    @property
    def agent(self) -> str:
        return f"bot-bottle-{self.root[:6]}-{self.run}"

    def helper(self, number: int) -> str:
        return f"{self.agent}-door-{number}"

    @property
    def bundle(self) -> str:
        return f"{self.agent}-bundle"

    @property
    def every(self) -> tuple[str, ...]:
        """All that containers of the run are called, whichever of them there are."""
        return (self.agent, self.bundle, *map(self.helper, range(HELPERS)))


def names(plan: RunPlan) -> Names:
    """The names of a run's containers: those of another installation have another root."""
    root = os.path.dirname(os.path.dirname(plan.paths.state))
    return Names(plan.id, sha256_hex(root.encode())[:16])


def mounts(plan: RunPlan) -> tuple[Mount, ...]:
    """The workspace and the bottle's certificate stores, outer ones before inner ones. The agent's tool is in the image."""
    workspace = plan.workspace
    source = workspace.source if workspace.mode == "mount" else workspace.copy
    first = Mount(source=source, target=INSIDE_WORKSPACE, writable=True)
    stores = plan.trust.mounts if plan.trust else ()
    return (first, *sorted(stores, key=lambda mount: mount.target.count("/")))


def body(
    plan: RunPlan,
    image: str,
    user: tuple[int, int],
    bound: Sequence[Mount],
    *,
    writable_root: bool = False,
    podman: bool = False,
) -> dict[str, object]:
    """The agent's container. `bound` are `mounts(plan)` with their sources where the engine finds them; `podman` is whether the
    engine is one."""
    uid, gid = user
    return {
        "Image": image,
        "Entrypoint": [GUEST],
        "Cmd": [],
        "User": f"{uid}:{gid}",
        "Hostname": host_name(plan.id),
        "WorkingDir": "/",
        "Labels": names(plan).labels,
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["none" if podman else "NONE"]},  # Podman would run a program of that name
        **NO_NETWORK,
        "HostConfig": {
            **_confinement(podman=podman), **_limits(plan), **_root(plan, writable_root),
            **({"Runtime": plan.runtime} if plan.runtime else {}),
            "Tmpfs": _scratch(plan, user, podman=podman), "Mounts": list(map(_bound, bound)),
        },
    }  # fmt: skip


def trial(image: str, labels: dict[str, str]) -> dict[str, object]:
    """A container that is confined like the agent's and ends at once, to see whether one starts."""
    host = {**_confinement(), "AutoRemove": False, "ReadonlyRootfs": True, "PidsLimit": 8}
    return {
        "Image": image,
        "Entrypoint": [GUEST, "door"],
        "User": "65534:65534",
        "Labels": labels,
        **NO_NETWORK,
        "HostConfig": host,
    }


def _root(plan: RunPlan, writable: bool) -> dict[str, object]:
    """Read-only, unless the image's maker says that it has to be written; then what the bottle's file states bounds it, too."""
    if not writable:
        return {"ReadonlyRootfs": True}
    bound = {"StorageOpt": {"size": str(plan.limits.disk)}} if plan.limits.disk else {}
    return {"ReadonlyRootfs": False, **bound}


def _confinement(*, podman: bool = False) -> dict[str, object]:
    # Podman takes `MaskedPaths` in silence, and hides what it chooses to.
    masks = [f"mask={':'.join(_MASKED)}"] if podman else []
    return {
        "NetworkMode": "none",
        "Dns": ["127.0.0.1"],  # for engines that write /etc/resolv.conf themselves
        "CapDrop": ["ALL"],
        # and the engine's own seccomp rules; ours come on top of them
        "SecurityOpt": ["no-new-privileges", *masks],
        "AutoRemove": True,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "MaskedPaths": _MASKED,
        "ReadonlyPaths": _READ_ONLY,
        "LogConfig": {"Type": "none"},
    }


def _limits(plan: RunPlan) -> dict[str, object]:
    limits = plan.limits
    found: dict[str, object] = {}
    if limits.memory is not None:
        found |= {"Memory": limits.memory, "MemorySwap": limits.memory}
    if limits.cpus is not None:
        found["NanoCpus"] = int(limits.cpus * 1e9)
    if limits.pids is not None:
        found["PidsLimit"] = limits.pids + 1  # process 1 is ours
    return found


def _scratch(plan: RunPlan, user: tuple[int, int], *, podman: bool) -> dict[str, str]:
    """What can be written besides the workspace, all of it in memory and bounded; and /sys, of which nothing is shown."""
    memory, disk = plan.limits.memory or _SCRATCH, plan.limits.disk
    own = "U,mode=0700" if podman else f"uid={user[0]},gid={user[1]},mode=0700"  # U: the container's user
    most = (  # the last number is the place's share of `resources.disk`, in sixteenths
        ("/tmp", "mode=1777", memory, 5),  # noqa: S108
        ("/var/tmp", "mode=1777", memory, 1),  # noqa: S108
        ("/run", "mode=0755", min(memory, _GIB // 16), 1),
        (INSIDE_HOME, own, memory, 8),
        ("/dev/shm", "mode=1777", min(memory, _GIB), 1),  # noqa: S108
    )
    places = (
        (path, mode, min(size, disk * share // 16) if disk else size) for path, mode, size, share in most
    )
    made = {path: f"rw,exec,nosuid,nodev,{mode},size={size}" for path, mode, size in places}
    return {**made, "/sys": "ro,noexec,nosuid,nodev,mode=0555,size=4096"}


def _bound(mount: Mount) -> dict[str, object]:
    options: dict[str, object] = {"Propagation": "rprivate"}
    if not mount.writable:
        options["NonRecursive"] = True  # what is mounted below would stay writable
    return {
        "Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": not mount.writable, "BindOptions": options,
    }  # fmt: skip


def host_name(run: str) -> str:
    """What a bottle calls itself."""
    return run if len(run) <= 63 else f"bottle-{crc32(run.encode()):08x}"


def mismatches(plan: RunPlan) -> list[str]:
    """What in the plan a bottle of this kind can't have, one sentence each."""
    wrong = []
    for mount in plan.image.layers:
        inside = mount.target
        if not inside.startswith("/") or not mount.source.startswith("/"):
            wrong.append(f"a tool needs absolute paths: {mount.source} at {inside}")
        elif inside in OWN_TARGETS or "//" in inside or {".", ".."} & set(inside.split("/")):
            wrong.append(f"nothing can be put at {inside}")
    for mount in plan.mounts:
        if mount not in plan.image.layers:
            wrong.append(
                f"{mount.source} can't be shown at {mount.target}: nothing of the host is, but the workspace"
            )
    return wrong
