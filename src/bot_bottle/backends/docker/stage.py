"""As root: the operator's files shown to the agent's user of the container, as mounts that the engine takes its own from.

An engine takes paths only, so each is mounted for the fifth of a second that the container takes to start, in a folder that is
root's alone and never emptied by anything but `unstage`: what is in it are the operator's own files.
"""

import contextlib
import os
from collections.abc import Sequence
from contextlib import ExitStack

from bot_bottle.backends.idmapped import mapping
from bot_bottle.errors import HostError
from bot_bottle.host import kernel
from bot_bottle.plan.model import INSIDE_WORKSPACE, Mount

FOLDER = "/run/bot-bottle-shown"
"""Below it a folder for each run that starts just now."""


def stage(mounts: Sequence[Mount], folder: str, user: tuple[int, int], owned: ExitStack) -> list[Mount]:
    """`mounts` with sources in which their owner is `user`; `owned` takes them away. Raises HostError."""
    shown: list[Mount] = []
    for mount in mounts:
        try:
            status = os.stat(mount.source)
        except OSError as error:
            raise HostError(f"{mount.source} can't be shown in the bottle", details=str(error)) from error
        same = (status.st_uid, status.st_gid) == user
        if same or (not mount.writable and _everybody_reads(mount.source, status)):
            shown.append(mount)
            continue
        owned.callback(unstage, folder)
        try:
            shown.append(mount._replace(source=_show(mount.source, status, user, folder, len(shown))))
        except OSError as error:
            if not mount.writable:
                shown.append(mount)  # shown as it is; what its modes keep from others, the agent can't read
                continue
            cure = "use `workspace: copy`" if mount.target == INSIDE_WORKSPACE else "mount it read-only"
            raise HostError(
                f"The file system of {mount.source} can't show its files as the agent's",
                details=f"idmapped mount: {error.strerror or error}",
                resolution=f"{cure}, or start bot-bottle as the owner of these files instead of as root",
            ) from error
    return shown


def unstage(folder: str) -> bool:
    """Takes away what `stage` mounted in `folder`, and never anything in it; whether something was there."""
    if not os.path.isdir(folder):
        return False
    for name in sorted(os.listdir(folder)):
        place = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            while True:
                kernel.unmount(place)
        if os.path.isdir(place):
            os.rmdir(place)  # fails when a mount is still there
        elif os.path.lexists(place):
            if os.stat(place).st_size:
                raise HostError(f"{place} is still mounted", resolution=f"umount {place}")
            os.unlink(place)
    os.rmdir(folder)
    return True


def _show(source: str, status: os.stat_result, user: tuple[int, int], folder: str, number: int) -> str:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    place = os.path.join(folder, str(number))
    tree = kernel.clone_tree(source)
    try:
        with mapping((status.st_uid, user[0]), (status.st_gid, user[1])) as namespace:
            kernel.map_owners(tree, namespace)
        if os.path.isdir(source):
            os.mkdir(place, 0o700)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        kernel.attach_tree(tree, place)
    finally:
        os.close(tree)
    return place


def _everybody_reads(path: str, status: os.stat_result) -> bool:
    """Whether there is nothing in it that only its owner may read: not looked into, so a file alone can tell."""
    return not os.path.isdir(path) and bool(status.st_mode & 0o004)
