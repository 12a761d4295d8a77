"""As root: showing the operator's files to an agent that is somebody else on the host.

The agent never runs as host root, which owns /proc/sys and much more even without capabilities. So the child that becomes
bubblewrap gets a mount namespace of its own, in which everything that the bottle shows is mounted where any user can go,
the owner of the files shown as the agent's user (an idmapped mount): what the agent makes belongs to the owner.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack

from bot_bottle.backends.idmapped import mapping
from bot_bottle.errors import HostError
from bot_bottle.host import kernel, spawn
from bot_bottle.plan.model import INSIDE_WORKSPACE, Mount, RunPlan
from bot_bottle.typed import NamedTuple

_STAGE = "/run"
"""Covered by a tmpfs in the child's own mount namespace; nothing that bubblewrap itself needs is there."""


class Tree(NamedTuple):
    """A detached copy of a mount, and what is to be seen of it."""

    descriptor: int
    is_folder: bool
    mount: Mount


def detach(plan: RunPlan, mounts: Sequence[Mount], owned: ExitStack) -> tuple[Tree, ...]:
    """A detached tree for each of `mounts`, its owner shown as the agent's user; `owned` closes them. Raises HostError."""
    trees = []
    public = plan.trust.mounts if plan.trust else ()
    for number, mount in enumerate(mounts):
        try:
            status = os.stat(mount.source)
            tree = kernel.clone_tree(mount.source)
        except OSError as error:
            raise HostError(f"{mount.source} can't be shown in the bottle", details=str(error)) from error
        owned.callback(os.close, tree)
        if (status.st_uid, status.st_gid) != (plan.uid, plan.gid) and mount not in public:
            _show_owner_as_agent(plan, mount, tree, status)
        staged = mount._replace(source=f"{_STAGE}/{number}")
        trees.append(Tree(tree, stat.S_ISDIR(status.st_mode), staged))
    return tuple(trees)


def _show_owner_as_agent(plan: RunPlan, mount: Mount, tree: int, status: os.stat_result) -> None:
    try:
        with mapping((status.st_uid, plan.uid), (status.st_gid, plan.gid)) as namespace:
            kernel.map_owners(tree, namespace)
    except OSError as error:
        if not mount.writable:
            return  # shown as it is; what its modes keep from others, the agent can't read
        cure = "use `workspace: copy`" if mount.target == INSIDE_WORKSPACE else "mount it read-only"
        raise HostError(
            f"The file system of {mount.source} can't show its files as the agent's",
            details=f"idmapped mount: {error.strerror or error}",
            resolution=f"{cure}, or start bot-bottle as the owner of these files instead of as root",
        ) from error


def steps(plan: RunPlan, trees: Sequence[Tree]) -> list[spawn.Step]:
    """What the child does as root: its own mounts, then giving up root."""
    return [
        spawn.Step("make a mount namespace", _own_mounts),
        *(spawn.Step(f"show {tree.mount.target}", lambda tree=tree: _attach(tree)) for tree in trees),  # type: ignore[misc]
        spawn.Step("become the agent's user", lambda: spawn.become(plan.uid, plan.gid)),
    ]


def _own_mounts() -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC_PRIVATE)
    kernel.mount("tmpfs", _STAGE, "tmpfs", 0, "mode=0755,size=1m")


def _attach(tree: Tree) -> None:
    place = tree.mount.source
    if tree.is_folder:
        os.mkdir(place, 0o755)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    kernel.attach_tree(tree.descriptor, place)
