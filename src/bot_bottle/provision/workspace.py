"""The workspace's copy: made before the agent starts, and removed when its changes are saved.

It is made in three steps, since the sandbox needs only the first to be made, and the agent must not run before the last:
`make_folder`, `copy_files`, `remember_start`.
"""

import errno
import os

from bot_bottle.errors import HostError
from bot_bottle.plan.model import RunPlan

START = "files"
"""What the base keeps of each file at the start; its time is when the agent could begin to change them."""
_NO_SPACE = "Free some space, or mount the workspace instead of copying it (workspace: mount)."


def copy_workspace(plan: RunPlan) -> tuple[str, ...]:
    """All three steps; what could not be copied, a line each. Raises HostError."""
    make_folder(plan)
    left_out = copy_files(plan)
    remember_start(plan)
    return left_out


def make_folder(plan: RunPlan) -> None:
    """Makes the empty folder `plan.workspace.copy`; as root, it belongs to `plan.uid` and `plan.gid`. Raises HostError."""
    from bot_bottle.host import tree

    target = plan.workspace.copy
    try:
        os.makedirs(plan.paths.state, mode=0o700, exist_ok=True)
        tree.remove(target)
        os.mkdir(target, 0o700)
        if owner := _owner(plan):
            os.chown(target, *owner)
    except OSError as error:
        tree.remove(target)
        raise _failed(plan.workspace.source, error) from error


def copy_files(plan: RunPlan) -> tuple[str, ...]:
    """Copies `plan.workspace.source` into the folder that `make_folder` made; says what can't be read.

    All of it or nothing: after a failure the folder is gone, too. Raises HostError.
    """
    from bot_bottle.host import copying, tree

    source, target = plan.workspace.source, plan.workspace.copy
    try:
        # A workspace may have the state folder in it, and so the copy itself.
        state = os.stat(plan.paths.state)
        copier = copying.Copier(owner=_owner(plan), skip=frozenset({(state.st_dev, state.st_ino)}))
        copier.copy(source, target)
    except OSError as error:
        tree.remove(target)
        raise _failed(source, error) from error
    except BaseException:
        tree.remove(target)
        raise
    return tuple(copier.left_out)


def remember_start(plan: RunPlan) -> None:
    """Keeps in `plan.workspace.base` what the copy looks like, to compare with later. Raises HostError."""
    from bot_bottle.provision import snapshot

    try:
        snapshot.begin(plan.workspace.copy, plan.workspace.base)
    except OSError as error:
        raise _failed(plan.workspace.copy, error) from error


def agent_begins(plan: RunPlan) -> None:
    """Notes that nobody but us could change the copy until now; called before the agent is let go, for a quick look later."""
    try:
        os.utime(os.path.join(plan.workspace.base, START))
    except OSError as error:
        raise _failed(plan.workspace.base, error) from error


def _owner(plan: RunPlan) -> tuple[int, int] | None:
    """Whose the copy is to be, where that is not who makes it."""
    return (plan.uid, plan.gid) if os.geteuid() == 0 else None


def _failed(path: str, error: OSError) -> HostError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    resolution = _NO_SPACE if full else "See that it is a folder that you can read."
    brief = "The disk is full: the workspace can't be copied" if full else "The workspace can't be copied"
    return HostError(brief, details=f"{path}: {error}", resolution=resolution)
