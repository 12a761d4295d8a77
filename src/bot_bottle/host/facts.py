"""Finds out what planning has to know of this host. Cheap: it stats and reads, and starts nothing."""

import os

from bot_bottle.errors import HostError
from bot_bottle.host import cgroups, paths, proxies, stores
from bot_bottle.plan.facts import HostFacts

FORBIDDEN_WORKSPACES = (
    *("/", "/home", "/root", "/etc", "/usr", "/opt", "/var", "/proc", "/sys", "/dev", "/run"),
    "/tmp",  # noqa: S108 - refused, not used
)


def gather(workspace: str) -> HostFacts:
    """The facts for a run in the folder `workspace`. Raises HostError when that can't be a workspace."""
    folder = os.path.realpath(workspace)
    _check_workspace(folder)
    return HostFacts(
        uid=os.getuid(),
        gid=os.getgid(),
        workspace=folder,
        state_root=paths.state_root(),
        runtime_root=paths.runtime_root(),
        data_root=paths.data_root(),
        cgroup_limits=cgroups.available(),
        term=os.environ.get("TERM", ""),
        time_zone=_time_zone(),
        stores=stores.look(),
        proxies=proxies.find(),
    )


def _check_workspace(folder: str) -> None:
    brief = f"{folder} can't be a workspace"
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise HostError(
            brief,
            details=f"{error.strerror}.",
            resolution="Go to the repository that the agent is to work in.",
        ) from error
    try:
        folder.encode()
    except UnicodeEncodeError as error:
        raise HostError(
            f"{folder!a} can't be a workspace", details="Its path is not UTF-8.", resolution="Rename it."
        ) from error
    ours = (paths.manifest_root(), paths.state_root(), paths.data_root(), paths.cache_root())
    holds_us = any(_within(place, folder) for place in (paths.home(), *ours))
    if folder in FORBIDDEN_WORKSPACES or holds_us or any(_within(folder, place) for place in ours):
        raise HostError(
            brief,
            details="It holds more than a project, or bot-bottle's own files: the agent would be given all of it.",
            resolution="Go to the repository that the agent is to work in.",
        )


def _within(path: str, folder: str) -> bool:
    return (os.path.realpath(path) + "/").startswith(os.path.realpath(folder).rstrip("/") + "/")


def _time_zone() -> str:
    try:
        target = os.readlink("/etc/localtime")
    except OSError:
        return os.environ.get("TZ", "")
    return target.partition("zoneinfo/")[2]
