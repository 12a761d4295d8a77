"""The checked manifest as plain data: what `manifest/load.py` gives and `plan/` reads.

Every default is filled in and every value normalised (memory in bytes, names checked, `extends` composed), so
reading it needs no checks and no heavy import. `manifest/load.py` makes it; a test holds the two together.
"""

from bot_bottle.typed import Literal, NotRequired, TypedDict


class UpstreamDocument(TypedDict):
    host: str
    port: int
    tls: bool


class RouteDocument(TypedDict):
    host: str
    port: int
    protocol: Literal["https", "http", "tcp"]
    methods: list[str]
    """Empty: every method. A file can't state an empty list."""
    paths: list[str]
    """Empty: every path. A file can't state an empty list. Canonical patterns (`policy/paths.py`)."""
    headers: dict[str, str]
    """Names in lower case; all must match."""
    scan: bool
    on_match: Literal["hold", "redact", "block"] | None
    credential: str | None
    upstream: UpstreamDocument | None


class CredentialDocument(TypedDict):
    source: str
    """`env:NAME`, `file:PATH`, `command:JSON-ARGV`, `keyring:SERVICE/USER`, `oauth:JSON` with `file`, `token_url`, `client_id`"""
    scheme: Literal["header", "basic", "query"]
    name: str
    """The header's name in lower case, or the parameter's."""
    prefix: str
    user: str
    """With scheme `basic`: whose password it is; empty when the secret is `USER:PASSWORD`."""
    variable: str | None
    """The variable inside that holds the placeholder."""


class SecretsDocument(TypedDict):
    on_match: Literal["hold", "redact", "block"]
    oversize: Literal["block", "pass"]
    limit: int


class EgressUpstreamDocument(TypedDict):
    ca: str | None
    """An absolute path."""
    proxy: str | None
    credential: str | None
    """The login at the proxy: one of `credentials:`."""


class EgressDocument(TypedDict):
    engine: Literal["builtin", "pipelock"]
    mode: Literal["enforce", "observe"]
    routes: list[RouteDocument]
    ask: list[str]
    """Hosts as in routes, in their one spelling, each once."""
    secrets: SecretsDocument | None
    """None unless the file has `secrets:`"""
    upstream: EgressUpstreamDocument


class ResourcesDocument(TypedDict):
    cpus: float | None
    memory: int | None
    pids: int | None
    disk: int | None


class ImageDocument(TypedDict):
    """Either `reference`, or `dockerfile`, or neither: then it is our own image. Paths are absolute."""

    reference: str | None
    dockerfile: str | None
    context: str | None
    """The folder that the Dockerfile may copy from; with `dockerfile` never None."""
    target: str | None
    args: dict[str, str]
    """Of a build; BASE is what our own image is built on."""
    ca: str | None
    """Certificates (PEM) that a build trusts beside the host's."""


class GitRemoteDocument(TypedDict):
    name: str
    url: str
    key: str | None
    known_host: str | None
    credential: str | None
    local: bool
    push: list[str]
    tags: list[str]
    force: list[str]
    delete: list[str]
    paths: list[str]
    authors: list[str]
    gitleaks: bool
    max_file: int
    max_push: int


class GitSigningDocument(TypedDict):
    key: str
    public: str


class GitDocument(TypedDict):
    user_name: str | None
    user_email: str | None
    signing: GitSigningDocument | None
    remotes: list[GitRemoteDocument]


class BottleDocument(TypedDict):
    name: str
    file: str
    backend: Literal["namespace", "docker", "smolmachines"]
    image: ImageDocument | None
    runtime: str | None
    """What the engine runs containers with; None: the engine's own default."""
    bundle: Literal["beside", "container"] | None
    """None: beside the keeper where the engine is on its kernel."""
    workspace: Literal["mount", "copy", "clone"] | None
    """None: `mount` when a person is at the terminal, `copy` when headless."""
    resources: ResourcesDocument
    egress: EgressDocument
    credentials: dict[str, CredentialDocument]
    sensitive: dict[str, str]
    """Sources by name, as `CredentialDocument.source` writes them, without `oauth`."""
    git: GitDocument
    env: dict[str, str]
    supervise: bool


class SkillDocument(TypedDict):
    name: str
    folder: str
    """Real, absolute; without a link that leads out of it."""


class AgentDocument(TypedDict):
    name: str
    file: str
    from_repository: bool
    provider: str
    bottle: str
    command: list[str]
    """The argv of provider `command`; empty for the others."""
    model: str | None
    base_url: str | None
    skills: list[SkillDocument]
    env: dict[str, str]
    prompt: str


class ManifestDocument(TypedDict):
    agent: AgentDocument
    bottle: BottleDocument
    sources: NotRequired[list[str]]
    """Every file that it was made from, absolute."""
