"""Control groups: what a bottle as a whole may use of memory, cpu and processes, kept by the kernel.

Both hierarchies are known: cgroup v2 in a subtree that this user may write to (as systemd delegates it, or as root), and
v1, where each controller has a tree of its own. A group is made below, or beside, the group this process is in, so that
whatever limits this process is under hold for the bottle, too.
"""

import os
from collections.abc import Mapping

from bot_bottle.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.plan.model import Limits

CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
"""The limits of `plan.Limits` that groups keep, and the kernel's controller for each."""
_PREFIX = "bot-bottle-"
_PERIOD = 100_000


class Group:
    """One bottle's group: a folder for each limit that is kept (the same one for all, on v2)."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = dict(folders)

    def names(self) -> dict[str, str]:
        """The folder of each limit: JSON-able, and enough for `find` to know the group again."""
        return dict(self._folders)

    def add(self, pid: int) -> None:
        """Puts process `pid` into the group; what it starts from then on is in it, too. Raises HostError."""
        for folder in self._distinct():
            try:
                _write(folder + "/cgroup.procs", str(pid))
            except OSError as error:
                details = f"{folder}: {error}"
                raise HostError("A process could not be put under its limits", details=details) from error

    def kill(self, *, timeout: float = 5.0) -> None:
        """Kills every process in the group, also those started meanwhile; returns once none is left, or after `timeout`."""
        _try_write(self._folders.get("pids", "") + "/pids.max", "0")
        for folder in self._distinct():
            _try_write(folder + "/cgroup.kill", "1")
            _until(lambda folder=folder: not _kill_some(folder), timeout)  # type: ignore[misc]

    def remove(self, *, timeout: float = 5.0) -> None:
        """Removes the group once it is empty; succeeds when it is gone. Raises HostError if it is not empty in time."""
        for folder in self._distinct():
            if not _until(lambda folder=folder: _removed(folder), timeout):  # type: ignore[misc]
                details = f"{folder}: processes {', '.join(map(str, _processes(folder))) or 'unknown'}"
                raise HostError("A control group is still in use", details=details)

    def usage(self) -> dict[str, float]:
        """What was used so far, as far as the kernel says: `memory` and `memory_peak` in bytes, `oom_kills`, `pids`,
        `cpu_seconds`."""
        found: dict[str, float] = {}
        memory, cpu, pids = (self._folders.get(name, "") for name in CONTROLLERS)
        for key, file, field in (
            ("memory", f"{memory}/memory.current", ""),
            ("memory", f"{memory}/memory.usage_in_bytes", ""),
            ("memory_peak", f"{memory}/memory.peak", ""),
            ("memory_peak", f"{memory}/memory.max_usage_in_bytes", ""),
            ("oom_kills", f"{memory}/memory.events", "oom_kill"),
            ("oom_kills", f"{memory}/memory.oom_control", "oom_kill"),
            ("pids", f"{pids}/pids.current", ""),
            ("cpu_seconds", f"{cpu}/cpu.stat", "usage_usec"),
            ("cpu_seconds", f"{cpu}/cpuacct.usage", ""),
        ):
            value = _number(file, field)
            if value is not None:
                scale = {"cpu.stat": 1e6, "cpuacct.usage": 1e9}.get(os.path.basename(file))
                found[key] = value / scale if scale else value
        return found

    def _distinct(self) -> list[str]:
        return list(dict.fromkeys(self._folders.values()))


def available() -> tuple[str, ...]:
    """The limits that can be kept here for this user, of `memory`, `cpus` and `pids`. Changes nothing."""
    return tuple(_bases())


def names(run_id: str, limits: "Limits") -> dict[str, str]:
    """What `make` will make, for the record, before it is made."""
    bases = _bases()
    return {limit: f"{bases[limit]}/{_PREFIX}{run_id}" for limit in _wanted(limits) if limit in bases}


def make(run_id: str, limits: "Limits") -> Group | None:
    """The group that keeps what the bottle's file states of `limits`; None when it states nothing.

    Raises HostError, with nothing left behind, when one of them can't be kept.
    """
    wanted = _wanted(limits)
    folders = names(run_id, limits)
    kept: dict[str, str] = {}
    for limit, value in wanted.items():
        try:
            if limit not in folders:
                raise PermissionError(f"no control group for {limit} can be made by this user")
            if folders[limit] not in kept.values():
                _make_folder(folders[limit])
            kept[limit] = folders[limit]
            _set(folders[limit], limit, value)
        except OSError as error:
            Group(kept).remove()
            raise _not_kept(limit, error) from error
    return Group(kept) if kept else None


def find(recorded: Mapping[str, str]) -> Group:
    """The group that `names` told of, whether it is there or not; folders that can't be one of ours are left out."""
    mounts = [mount for mount, *_ in _mounts()]
    ours = {
        limit: folder
        for limit, folder in recorded.items()
        if os.path.basename(folder).startswith(_PREFIX)
        and os.path.normpath(folder) == folder
        and any(folder.startswith(mount + "/") for mount in mounts)
    }
    return Group(ours)


def _not_kept(limit: str, error: OSError) -> HostError:
    return HostError(
        f"The limit on {limit} can't be kept on this machine",
        details=str(error),
        resolution="Start from a delegated scope (systemd-run --user --scope -p Delegate=yes bot-bottle …), run as root, "
        "or take the limit out of the bottle's file.",
    )


def _wanted(limits: "Limits") -> dict[str, float]:
    """What is stated. Our own limit on processes is kept by an rlimit, which costs nothing; a group costs milliseconds."""
    values = {"memory": limits.memory, "cpus": limits.cpus, "pids": limits.pids}
    return {limit: value for limit, value in values.items() if value is not None and limit in limits.stated}


def _set(folder: str, limit: str, value: float) -> None:
    """Sets the limit, by the file that this hierarchy has for it. Memory includes swap: none is used beyond it."""
    if limit == "pids":
        _write(folder + "/pids.max", str(int(value)))
    elif limit == "cpus":
        quota = max(1000, int(value * _PERIOD))
        if os.path.exists(folder + "/cpu.cfs_quota_us"):
            _write(folder + "/cpu.cfs_period_us", str(_PERIOD))
            _write(folder + "/cpu.cfs_quota_us", str(quota))
        else:
            _write(folder + "/cpu.max", f"{quota} {_PERIOD}")
    elif os.path.exists(folder + "/memory.limit_in_bytes"):
        _write(folder + "/memory.limit_in_bytes", str(int(value)))
        if os.path.exists(folder + "/memory.memsw.limit_in_bytes"):
            _write(folder + "/memory.memsw.limit_in_bytes", str(int(value)))
        else:
            _try_write(folder + "/memory.swappiness", "0")
    else:
        _write(folder + "/memory.max", str(int(value)))
        if os.path.exists(folder + "/memory.swap.max"):
            _write(folder + "/memory.swap.max", "0")


def _make_folder(folder: str) -> None:
    """Makes the group's folder; on v2 its parent first hands down the controllers it has."""
    parent = os.path.dirname(folder)
    if os.path.exists(parent + "/cgroup.subtree_control"):
        has, gives = _words(parent + "/cgroup.controllers"), _words(parent + "/cgroup.subtree_control")
        for controller in CONTROLLERS.values():
            if controller in has and controller not in gives:
                _try_write(parent + "/cgroup.subtree_control", "+" + controller)
    os.mkdir(folder, 0o755)


# -- where groups can be made ------------------------------------------------------------------------------------------


def _mounts() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(mount point, root, `cgroup` or `cgroup2`, controllers) of every hierarchy that is mounted."""
    found: list[tuple[str, str, str, tuple[str, ...]]] = []
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        words, described = before.split(), after.split()
        if described[0] in ("cgroup", "cgroup2"):
            found.append((words[4], words[3], described[0], tuple(described[-1].split(","))))
    return found


def _bases() -> dict[str, str]:
    """For each limit that can be kept, the folder in which a group for it can be made."""
    own: dict[str, str] = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, listed, path = line.split(":", 2)
        own.update(dict.fromkeys(listed.split(",") if listed else ["v2"], path))
    bases: dict[str, str] = {}
    for mount, root, kind, controllers in _mounts():
        if kind == "cgroup2":
            bases.update(_v2_bases(mount, _below(mount, root, own.get("v2", "/"))))
            continue
        for limit, controller in CONTROLLERS.items():
            if controller in controllers:
                base = _below(mount, root, own.get(controller, "/"))
                if os.access(base, os.W_OK | os.X_OK) and os.access(base + "/cgroup.procs", os.W_OK):
                    bases[limit] = base
    return {limit: bases[limit] for limit in CONTROLLERS if limit in bases}


def _below(mount: str, root: str, own: str) -> str:
    """The folder of this process's own group; the mount point when that is not below it."""
    relative = own.removeprefix(root) if root != "/" else own
    folder = os.path.normpath(mount + "/" + relative.strip("/"))
    inside = own.startswith(root) and (folder + "/").startswith(mount + "/")
    return folder if inside and os.path.isdir(folder) else mount


def _v2_bases(mount: str, own: str) -> dict[str, str]:
    """The nearest folder from this process's own upwards that can hand down the most controllers to a new group."""
    best: dict[str, str] = {}
    folder = own
    while (folder + "/").startswith(mount + "/"):
        usable = _handed_down(folder)
        kept = {limit: folder for limit, controller in CONTROLLERS.items() if controller in usable}
        if len(kept) > len(best):
            best = kept
        folder = os.path.dirname(folder)
    return best


def _handed_down(folder: str) -> set[str]:
    """The controllers that a new group in `folder` can have: those handed down already, and those that can be.

    A group with processes of its own can't hand any down, unless it is the hierarchy's real root (which alone has no type).
    """
    files = ("", "/cgroup.procs", "/cgroup.subtree_control")
    if not all(os.access(folder + file, os.W_OK) for file in files):
        return set()
    if os.path.exists(folder + "/cgroup.type") and _words(folder + "/cgroup.procs"):
        return set()
    return {*_words(folder + "/cgroup.subtree_control"), *_words(folder + "/cgroup.controllers")}


# -- files -------------------------------------------------------------------------------------------------------------


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _words(path: str) -> list[str]:
    return _read(path).split()


def _number(path: str, field: str) -> int | None:
    """The file's number, or the one beside `field` in it; None when there is none."""
    words = _words(path)
    if field:
        words = words[words.index(field) + 1 :] if field in words else []
    return int(words[0]) if words and words[0].isdigit() else None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _try_write(path: str, text: str) -> None:
    try:
        _write(path, text)
    except OSError:
        return


def _until(done: "Callable[[], bool]", timeout: float) -> bool:
    """Whether `done()` came true within `timeout` seconds."""
    import time

    deadline, pause = time.monotonic() + timeout, 0.0005
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def _tree(folder: str) -> list[str]:
    """The folder and all below it, the deepest first."""
    return [path for path, *_ in os.walk(folder, topdown=False)]


def _processes(folder: str) -> list[int]:
    """Those in the group and below it. 0 stands for one that this process can't see, and is never a pid to signal."""
    pids = (int(word) for path in _tree(folder) for word in _words(path + "/cgroup.procs"))
    return [pid for pid in pids if pid > 0]


def _kill_some(folder: str) -> bool:
    """Kills up to a hundred of those in the group; whether there were any. By descriptor, and only who is still in the
    group once the descriptor is open: a number that was used anew meanwhile is another process's.
    """
    import signal

    descriptors: dict[int, int] = {}
    try:
        for pid in _processes(folder)[:100]:
            try:
                descriptors[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        for pid in _processes(folder):
            if pid not in descriptors:
                continue
            try:
                signal.pidfd_send_signal(descriptors[pid], signal.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    return bool(descriptors)


def _removed(folder: str) -> bool:
    """Whether the group is gone, after trying to remove it."""
    for path in _tree(folder) or [folder]:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
