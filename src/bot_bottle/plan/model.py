"""What a run will be, decided in full before anything is made. Frozen, without I/O.

`plan/resolve.py` makes a `RunPlan` from the checked manifest and the host's facts; `launch/` carries it out; `bot-bottle
plan` prints it. Secrets are in it by reference only.
"""

from bot_bottle.policy.git import GitRules
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.typed import Literal, NamedTuple

WorkspaceMode = Literal["mount", "copy", "clone"]
INSIDE_HOME = "/home/agent"
INSIDE_WORKSPACE = "/workspace"
INSIDE_USER = "agent"
INSIDE_UID = 1000
INSIDE_GID = 1000
COPY_FOLDER = "workspace"
"""In `copy` mode, the copy's folder below `Paths.state`."""
SUPERVISE_NAME = "supervise"
"""What the server that the agent asks for help is called inside."""
SUPERVISE_TOKEN_FILE = f"{INSIDE_HOME}/.bot-bottle/supervise.token"
"""Where the bearer token stands inside when it stands in no tool's own configuration."""
TOKEN = "{token}"  # noqa: S105 - where the token is to stand
"""Stands for the bearer token in `Registration.settings`; the token itself is in no plan."""
BASE_FOLDER = "base"
"""What the copy looked like at the start, beside it."""


class Mount(NamedTuple):
    """A host path (absolute) shown inside at `target` (absolute). Files and folders; read-only unless said otherwise."""

    source: str
    target: str
    writable: bool = False


class File(NamedTuple):
    """A file that provisioning writes inside as the agent's user, before the agent starts. `mode` as in chmod."""

    target: str
    content: bytes
    mode: int = 0o600


class Command(NamedTuple):
    """What runs inside: `env` is the whole environment, nothing is added or inherited."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str = INSIDE_WORKSPACE


class Limits(NamedTuple):
    """What the bottle as a whole may use; None is the host's own limit.

    `memory` and `disk` in bytes, `cpus` in cores, `pids` processes and threads. `stated` names those that the bottle's file asked
    for: they are kept by a control group, and if the host can't keep one of them, the run is refused. `pids` is an rlimit as
    well, and so always kept, as is `files` (open descriptors a process); core dumps are always off.
    """

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = 4096
    files: int = 65536
    stated: tuple[str, ...] = ()
    disk: int | None = None


class Workspace(NamedTuple):
    """The user's repository: `source` on the host; in `copy` mode the bottle gets a copy made at `copy`; in
    `clone` mode an empty folder there, into which the agent's git clones its first remote."""

    source: str
    mode: WorkspaceMode
    copy: str = ""
    base: str = ""
    """A bare git directory of ours that remembers what the copy looked like at the start."""


class Paths(NamedTuple):
    """Where the run keeps what it makes on the host; all absolute, all named after the run."""

    run: str
    """Sockets, lock, pid file; gone when the run ends."""
    state: str
    """Log and saved changes; stay until `bot-bottle cleanup --forget`."""


class Trust(NamedTuple):
    """Which certificate authorities programs inside trust, as files: the host's, and in their midst the bottle's own.

    `mounts` show, in the places of the host's stores, files of `folder` (the run's own) and `copies` of the host's folders (the
    host's and ours, shared by all bottles, made once). `list`, `java` and `extra` are the host's files that they are made from;
    `ca` is what the bottle's file adds. None of those is ever written.
    """

    folder: str
    mounts: tuple[Mount, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    list: str = ""
    java: str = ""
    extra: str = ""
    ca: str = ""
    intercepts: bool = False
    """Whether the policy opens TLS from the start, so that the agent must not run before the bottle has its authority."""


class Credential(NamedTuple):
    """A secret by reference: where it is read (`CredentialDocument.source`), and how it goes out.

    `key` is the header's or the parameter's name. Inside, `variable` (if any) holds `placeholder`, which is no secret.
    """

    name: str
    source: str
    scheme: Literal["header", "basic", "query"]
    key: str
    prefix: str = ""
    user: str = ""
    variable: str = ""
    placeholder: str = ""


class Sensitive(NamedTuple):
    """A secret that must not leave, by reference."""

    name: str
    source: str


class ProxyReference(NamedTuple):
    """A proxy on the way to the servers outside: `url` without a login, and where it stands (`source`).

    `credential` names the one of the bottle's that is its login; else a variable as `source` may hold one.
    """

    url: str
    source: str
    credential: str = ""


class Outward(NamedTuple):
    """How the servers outside are reached from this host: certificates trusted beside the system's, and proxies.

    `ca` is an absolute path; empty means none. `direct` are the entries of NO_PROXY.
    """

    ca: str = ""
    https: ProxyReference | None = None
    http: ProxyReference | None = None
    tcp: ProxyReference | None = None
    direct: tuple[str, ...] = ()
    login: Credential | None = None
    """What the proxy of the bottle's file is told; by reference, as every credential."""


class Registration(NamedTuple):
    """How the agent's tool is told of the supervise server, as the agent's user, before the agent runs.

    Its own CLI registers the server: `program` with `add`, and with `remove` where something stands under the name already;
    a person inside calls it `called`. It is told no secret. Then what it can't be told is put into `config`, the file that it
    wrote: `settings`, a JSON object, is merged into the entry that `entry` leads to, TOKEN in it standing for the bearer
    token. `before` leads to where the whole entry stands once more, so that a repository's own server of that name does not come
    before it. Without a `program` there is no tool to tell, and the token stands in SUPERVISE_TOKEN_FILE for whoever asks.
    """

    url: str
    tool: str = ""
    called: str = ""
    program: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    config: str = ""
    format: Literal["json", "toml"] = "json"
    entry: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    settings: str = "{}"


class Supervise(NamedTuple):
    """The server inside that the agent may ask for help, at `url`. `hold` is how many seconds a call waits for a person.

    `registration` is how the agent's tool is told of it.
    """

    address: str
    port: int
    url: str
    registration: Registration | None = None
    hold: int = 86_400

    @property
    def expected(self) -> bool:
        """Whether the agent's tool connects by itself as soon as it starts."""
        return self.registration is not None and bool(self.registration.program)


class ImageSpec(NamedTuple):
    """What a container is made from: an image by name, or a Dockerfile, or neither (our own image). Paths are absolute.

    `layers` are the host's files and folders (a provider's tool) that are put on top, where `mounts` would show them: an image is
    the same wherever the engine runs. Nothing of it may lie in `workspace`, nor hold it: an agent would choose what the
    operator's engine builds.
    """

    reference: str = ""
    dockerfile: str = ""
    context: str = ""
    target: str = ""
    args: tuple[tuple[str, str], ...] = ()
    ca: str = ""
    layers: tuple[Mount, ...] = ()
    workspace: str = ""


class GitRemote(NamedTuple):
    """A remote that is served inside: what the upstream is, how it is entered, and what may be pushed there.

    `mirror` is our bare copy of it, the same for all who enter the same upstream in the same way. `key` is a file, `credential`
    by reference as every one.
    """

    name: str
    url: str
    mirror: str
    key: str = ""
    known_host: str = ""
    credential: Credential | None = None
    rules: GitRules = GitRules()


class GitGate(NamedTuple):
    """The git gate of a run. `folder` is where pushes stand while they are checked; below the run's state.

    `signing_key` is the file of the key that signs commits and tags; empty without.
    """

    remotes: tuple[GitRemote, ...]
    folder: str
    signing_key: str = ""


class RunPlan(NamedTuple):
    """Everything about one run. `uid` and `gid` are those of the agent on the host; never 0.

    The bundle has ids of its own where it can (when root starts it), so that neither can touch the other.
    """

    id: str
    agent: str
    bottle: str
    bottle_file: str
    backend: str
    provider: str
    command: Command
    tty: bool
    workspace: Workspace
    paths: Paths
    uid: int
    gid: int
    bundle_uid: int
    bundle_gid: int
    mounts: tuple[Mount, ...] = ()
    files: tuple[File, ...] = ()
    limits: Limits = Limits()
    egress: EgressPolicy = EgressPolicy()
    outward: Outward = Outward()
    credentials: tuple[Credential, ...] = ()
    """Those that a route names."""
    sensitive: tuple[Sensitive, ...] = ()
    model: tuple[tuple[str, int, str], ...] = ()
    """Host, port and protocol of the routes without which the agent's tool can't work: of its model's API."""
    trust: Trust | None = None
    """None: nothing may be reached, so nothing has to be trusted."""
    supervise: Supervise | None = None
    """None: the agent can't ask."""
    image: ImageSpec = ImageSpec()
    """For backends that are made from one."""
    runtime: str = ""
    """What the engine runs the container with; empty: its own default."""
    bundle: Literal["", "beside", "container"] = ""
    """Where the bundle runs; empty: beside the keeper where the bottle is on its kernel, else in a container of its own."""
    git: GitGate | None = None
    """None: there is no remote."""
    notes: tuple[str, ...] = ()
    """What the person should know: something asked for that this version or host can't do, and that weakens nothing."""
