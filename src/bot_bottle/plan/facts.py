"""What planning has to know of the host. `host/facts.py` finds it out; a test writes it down."""

from bot_bottle.typed import NamedTuple


class StoreFolder(NamedTuple):
    """A folder with a file for each authority: where it really is, every place where it is seen, and what changes with it."""

    path: str
    places: tuple[str, ...]
    mark: str


class Stores(NamedTuple):
    """Where the host keeps the certificate authorities that it trusts; empty where it has none.

    `list` is the file with all of them, `lists` every place where such a file is seen; `java` and `javas` the same for Java's
    own format. `extra` is the operator's own addition for Node.
    """

    list: str = ""
    lists: tuple[str, ...] = ()
    java: str = ""
    javas: tuple[str, ...] = ()
    folders: tuple[StoreFolder, ...] = ()
    extra: str = ""


class HostProxies(NamedTuple):
    """The proxies of the host's environment: each a URL without its login and the variable that names it.

    `direct` are the entries of NO_PROXY, `wrong` the variables that name no HTTP proxy.
    """

    https: tuple[str, str] | None = None
    http: tuple[str, str] | None = None
    direct: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


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
    stores: Stores = Stores()
    proxies: HostProxies = HostProxies()
