"""What planning has to know of the host. `host/facts.py` finds it out; a test writes it down."""

from typing import NamedTuple


class HostFacts(NamedTuple):
    """`cgroup_limits` names the limits (`memory`, `cpus`, `pids`) that cgroups can keep for this user here."""

    uid: int
    gid: int
    workspace: str
    state_root: str
    runtime_root: str
    data_root: str
    cgroup_limits: tuple[str, ...] = ()
    term: str = ""
    time_zone: str = ""
