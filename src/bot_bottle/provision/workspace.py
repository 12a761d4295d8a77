"""The workspace's copy: made before the agent starts, and removed when its changes are saved."""

import errno
import os

from bot_bottle.errors import HostError
from bot_bottle.plan.model import RunPlan

_NO_SPACE = "Free some space, or mount the workspace instead of copying it (workspace: mount)."


def copy_workspace(plan: RunPlan) -> tuple[str, ...]:
    """Copies the workspace and remembers the start; what could not be copied, a line each. Raises HostError.

    The sandbox needs only `copy_files` to be made; the agent must not run before `remember_start` is done, too.
    """
    left_out = copy_files(plan)
    remember_start(plan)
    return left_out


def copy_files(plan: RunPlan) -> tuple[str, ...]:
    """Copies `plan.workspace.source` to `plan.workspace.copy`, all of it or nothing; says what can't be read.

    As root, the copy belongs to `plan.uid` and `plan.gid`. Raises HostError.
    """
    from bot_bottle.host import copying, tree

    source, target = plan.workspace.source, plan.workspace.copy
    partial = target + ".partial"
    try:
        os.makedirs(plan.paths.state, mode=0o700, exist_ok=True)
        # A workspace may have the state folder in it, and so the copy itself.
        state = os.stat(plan.paths.state)
        owner = (plan.uid, plan.gid) if os.geteuid() == 0 else None
        copier = copying.Copier(owner=owner, skip=frozenset({(state.st_dev, state.st_ino)}))
        tree.remove(partial)
        copier.copy(source, partial)
        os.rename(partial, target)
    except OSError as error:
        tree.remove(partial)
        raise _failed(source, error) from error
    except BaseException:
        tree.remove(partial)
        raise
    return tuple(copier.left_out)


def remember_start(plan: RunPlan) -> None:
    """Keeps in `plan.workspace.base` what the copy looks like, to compare with later. Raises HostError."""
    from bot_bottle.provision import snapshot

    try:
        snapshot.begin(plan.workspace.copy, plan.workspace.base)
    except OSError as error:
        raise _failed(plan.workspace.copy, error) from error


def _failed(path: str, error: OSError) -> HostError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    resolution = _NO_SPACE if full else "See that it is a folder that you can read."
    brief = "The disk is full: the workspace can't be copied" if full else "The workspace can't be copied"
    return HostError(brief, details=f"{path}: {error}", resolution=resolution)
