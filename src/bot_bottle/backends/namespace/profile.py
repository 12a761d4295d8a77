"""What bubblewrap is told: a pure function from the plan and the host's view to its arguments.

They go to it through a descriptor (`--args`), never on the command line, which everybody on the host and inside could read.
Contents of small files stand in the list as `Content` and become descriptors when it is carried out.
"""

from collections.abc import Sequence

from bot_bottle.backends.namespace.view import View
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_UID, INSIDE_USER, INSIDE_WORKSPACE, Mount, RunPlan
from bot_bottle.typed import Final, NamedTuple

HOLDER: Final = "/.bottle"
"""Where the bottle's process 1 is, inside."""

_GIB: Final = 1024**3
_SCRATCH: Final = 4 * _GIB
"""The size of /tmp and of the home folder when the bottle's memory has no limit; they are in memory."""

OWN_TARGETS: Final = ("/", "/proc", "/dev", "/etc", "/usr", "/tmp", "/run", INSIDE_HOME, INSIDE_WORKSPACE)  # noqa: S108
"""Places that are the profile's; a bottle's own mounts may lie below some of them, but not replace them."""


class Content(NamedTuple):
    """The bytes of a file; becomes the number of a descriptor to read them from."""

    data: bytes


Argument = str | Content


def mounts(plan: RunPlan) -> tuple[Mount, ...]:
    """The workspace, the bottle's own mounts and its certificate stores, in the order in which they are made: outer ones
    before inner ones."""
    workspace = plan.workspace
    source = workspace.copy or workspace.source
    first = Mount(source=source, target=INSIDE_WORKSPACE, writable=True)
    others = (*plan.mounts, *(plan.trust.mounts if plan.trust else ()))
    return (first, *sorted(others, key=lambda mount: mount.target.count("/")))


def arguments(plan: RunPlan, view: View, bound: Sequence[Mount], *, holder: bytes) -> list[Argument]:
    """What is said to bubblewrap, without the descriptors of its own protocol.

    `bound` are `mounts(plan)` with their sources where bubblewrap finds them.
    """
    return [
        *(
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--as-pid-1",
            "--clearenv",
        ),
        *("--cap-drop", "ALL", "--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--hostname", plan.id),
        *_system(view),
        *_proc_and_dev(view),
        *_scratch(plan),
        *_etc(plan, view),
        *("--perms", "0555", "--file", Content(holder), HOLDER),
        *_bound(bound),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--", HOLDER),
    ]


def _system(view: View) -> list[Argument]:
    # Made on the way to something else, these would get that one's mode.
    made: list[Argument] = []
    for folder in ("/etc", "/home", "/var"):
        made += ["--perms", "0755", "--dir", folder]
    for folder in view.folders:
        made += ["--ro-bind", folder, folder]
    for target, path in view.links:
        made += ["--symlink", target, path]
    return made


def _proc_and_dev(view: View) -> list[Argument]:
    made: list[Argument] = ["--proc", "/proc"]
    for path in view.masked_files:
        made += ["--ro-bind", "/dev/null", path]
    for path in view.masked_folders:
        made += ["--tmpfs", path, "--remount-ro", path]
    return [*made, "--dev", "/dev"]


def _scratch(plan: RunPlan) -> list[Argument]:
    """What can be written besides the workspace, all of it in memory and bounded."""
    memory = plan.limits.memory or _SCRATCH
    sizes = (
        ("1777", "/tmp", memory),  # noqa: S108 - the bottle's own
        ("0755", "/run", min(memory, _GIB // 16)),
        ("0700", INSIDE_HOME, memory),
        ("1777", "/dev/shm", min(memory, _GIB)),  # noqa: S108
    )
    made: list[Argument] = []
    for mode, path, size in sizes:
        made += ["--perms", mode, "--size", str(size), "--tmpfs", path]
    return [*made, "--symlink", "../tmp", "/var/tmp", "--symlink", "../run", "/var/run"]  # noqa: S108


def _etc(plan: RunPlan, view: View) -> list[Argument]:
    made: list[Argument] = []
    for path, data in (*view.files, *synthetic_etc(plan.id)):
        made += ["--perms", "0444", "--file", Content(data), path]
    return made


def synthetic_etc(host_name: str) -> tuple[tuple[str, bytes], ...]:
    """The files below /etc that say who and where one is, made up for the bottle."""
    user = f"{INSIDE_USER}:x:{INSIDE_UID}"
    texts = {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{user}:{INSIDE_UID}:{INSIDE_USER}:{INSIDE_HOME}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{user}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {host_name}\n",
        "hostname": f"{host_name}\n",
        "resolv.conf": "nameserver 127.0.0.1\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        "host.conf": "multi on\n",
    }
    return tuple((f"/etc/{name}", text.encode()) for name, text in texts.items())


def _bound(bound: Sequence[Mount]) -> list[Argument]:
    made: list[Argument] = []
    for mount in bound:
        made += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.target]
    return made


def mismatches(plan: RunPlan) -> list[str]:
    """What in the plan a bottle of this kind can't have, one sentence each."""
    wrong = [] if plan.uid else ["the agent can't run as root"]
    for mount in plan.mounts:
        inside = mount.target
        if not inside.startswith("/") or not mount.source.startswith("/"):
            wrong.append(f"a mount needs absolute paths: {mount.source} at {inside}")
        elif inside in OWN_TARGETS or "//" in inside or {".", ".."} & set(inside.split("/")):
            wrong.append(f"nothing can be mounted at {inside}")
        elif inside.startswith(("/proc/", "/dev/", "/etc/", "/usr/")):
            wrong.append(f"{inside} is the system's; mount below {INSIDE_HOME} or at a place of its own")
    if any("\0" in path for mount in plan.mounts for path in (mount.source, mount.target)):
        wrong.append("a mount's path has a NUL character in it")
    return wrong
