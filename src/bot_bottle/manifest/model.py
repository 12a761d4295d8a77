"""What may stand in the front matter of a bottle and an agent file: pydantic models, one a map.

A model checks one file. What files mean together is `compose.py`; what is wrong, in a person's words, is
`explain.py`. Checks between keys are validators of the later key, so that one reading lists every problem,
each on its own line.
"""

from typing import Annotated, Any, Literal, TypeVar

from annotated_types import MinLen
from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from bot_bottle.manifest.credentials import Credential, Place
from bot_bottle.manifest.strict import Strict
from bot_bottle.manifest.values import (
    BaseUrl,
    Cores,
    Count,
    HeaderPattern,
    Host,
    ImageReference,
    KnownHost,
    Line,
    MatchedHeader,
    Memory,
    Method,
    ModelName,
    Name,
    Names,
    Path,
    Port,
    ProxyUrl,
    RefPattern,
    RemoteUrl,
    RuntimeName,
    Size,
    StageName,
    UpstreamText,
    UrlPath,
    UserText,
    Variable,
    Words,
    wrong,
)

T = TypeVar("T")
UNSET: Any = None
"""The default of a key whose value is worked out from the keys before it."""


class Route(Strict):
    """One thing that a bottle may reach."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"protocol": {"const": "tcp"}}, "required": ["protocol"]},
            "then": {
                "required": ["port"],
                "properties": {
                    "methods": False,
                    "paths": False,
                    "headers": False,
                    "credential": False,
                    "on_match": False,
                },
            },
        }
    )

    host: Host = Field(description="A name, or `*.example.org` for every name below it (not itself).")
    protocol: Literal["https", "http", "tcp"] = Field(
        "https", description="What is spoken; `tcp` needs `port`."
    )
    port: Port = Field(UNSET, validate_default=True, description="Default: 443 for https, 80 for http.")
    methods: Annotated[list[Method], MinLen(1)] = Field(
        [], description="Only these HTTP methods; default: all."
    )
    paths: Annotated[list[UrlPath], MinLen(1)] = Field([], description="Only these paths; `**` is any rest.")
    headers: Annotated[dict[MatchedHeader, HeaderPattern], MinLen(1)] = Field(
        {}, description="Only with these headers; in a value `*` is anything."
    )
    scan: bool = Field(True, description="Whether it is searched for secrets, if `secrets:` says so.")
    on_match: Literal["hold", "redact", "block"] | None = Field(
        None, description="What happens to a secret here; default: as `secrets:` says."
    )
    upstream: UpstreamText | None = Field(
        None, description="Where connections really go, instead of to the name."
    )
    credential: Name | None = Field(
        None, validate_default=True, description="One of `credentials:`, put in outside."
    )

    @field_validator("port", mode="before")
    @classmethod
    def _default_port(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            return value
        if info.data.get("protocol") == "tcp":
            raise wrong("is missing: a route with `protocol: tcp` needs its `port:`")
        return 80 if info.data.get("protocol") == "http" else 443

    @field_validator("methods", "paths", "headers", "on_match")
    @classmethod
    def _only_http(cls, value: T, info: ValidationInfo) -> T:
        if info.data.get("protocol") == "tcp":
            raise wrong("says something about HTTP, but the route has `protocol: tcp`; take one of them away")
        return value

    @field_validator("upstream")
    @classmethod
    def _no_tls_for_tcp(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and "://" in value and info.data.get("protocol") == "tcp":
            raise wrong("must be `HOST:PORT` for a route with `protocol: tcp`")
        return value

    @field_validator("credential")
    @classmethod
    def _can_be_injected(cls, value: str | None, info: ValidationInfo) -> str | None:
        protocol = info.data.get("protocol")
        if value is not None and protocol == "tcp":
            raise wrong("can't be put into `protocol: tcp`; only HTTP has headers")
        if value is not None and protocol == "http" and info.data.get("upstream", "") is None:
            raise wrong("would cross the network in clear text; add `upstream: https://HOST` to the route")
        return value


class Secrets(Strict):
    """What happens to a request in which a secret was found, or that is too large to be looked at."""

    on_match: Literal["hold", "redact", "block"] = Field("block", description="hold: ask the operator.")
    oversize: Literal["block", "pass"] = Field("block", description="For bodies above `limit`.")
    limit: Size = Field(2**25, description="How much of one body is looked at, such as 8MiB.")


class EgressUpstream(Strict):
    """How the servers outside are reached from this machine."""

    ca: Path | None = Field(None, description="Certificates (PEM) trusted beside the system's.")
    proxy: ProxyUrl | None = Field(None, description="The HTTP proxy that all connections go through.")
    credential: Name | None = Field(None, description="The login at the proxy: one of `credentials:`.")

    @field_validator("credential")
    @classmethod
    def _of_a_proxy(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("proxy", "") is None:
            raise wrong("is the login at a proxy; add `proxy:`, or take it away")
        return value


class Egress(Strict):
    """What the bottle may reach. Without routes: nothing."""

    engine: Literal["builtin", "pipelock"] = "builtin"
    mode: Literal["enforce", "observe"] = Field(
        "enforce", description="observe: what no route allows passes, and is recorded."
    )
    routes: list[Route] = Field([], description="An empty list allows nothing.")
    ask: list[Host] = Field([], description="Hosts for which you are asked what no route allows; it waits.")
    secrets: Secrets | None = None
    upstream: EgressUpstream | None = None


class Resources(Strict):
    """What the bottle as a whole may use."""

    cpus: Cores | None = Field(None, description="Cores, such as 1.5.")
    memory: Memory | None = Field(None, description="Such as 4GiB, or a number of bytes.")
    pids: Count | None = Field(None, description="Processes and threads.")
    disk: Memory | None = Field(
        None, description="Of everything that the agent writes outside its workspace."
    )


class Image(Strict):
    """What a bottle is made from, where a path or a name alone does not say it."""

    model_config = ConfigDict(
        json_schema_extra={"if": {"required": ["reference"]}, "then": {"maxProperties": 1}}
    )

    reference: ImageReference | None = Field(
        None,
        description="An image by its name; for smolmachines also a root file system or an archive, by its absolute path.",
    )
    dockerfile: Line | None = Field(None, description="A Dockerfile, as a path beside this file.")
    context: Line | None = Field(
        None, description="The folder that it may copy from; default: the Dockerfile's own."
    )
    target: StageName | None = Field(None, description="The stage that is built; default: the last.")
    args: dict[Variable, str] = Field({}, description="The build's arguments; `BASE` for our own image.")
    ca: Path | None = Field(None, description="Certificates (PEM) that a build trusts beside the host's.")

    @field_validator("dockerfile", "target", "args", "ca")
    @classmethod
    def _of_a_build(cls, value: T, info: ValidationInfo) -> T:
        if value and info.data.get("reference"):
            raise wrong("is about a build, and `reference:` names what is built already; take one away")
        return value

    @field_validator("context", "target")
    @classmethod
    def _of_a_dockerfile(cls, value: T, info: ValidationInfo) -> T:
        if value and "dockerfile" in info.data and not info.data["dockerfile"]:
            raise wrong("needs a `dockerfile:`")
        return value


def _image(value: Any) -> Any:
    """The short form: a path is a Dockerfile's, anything else an image's name."""
    if not isinstance(value, str):
        return value
    return {"dockerfile" if value.startswith(("./", "../", "/", "~/")) else "reference": value}


class GitUser(Strict):
    """Who commits are by."""

    name: UserText | None = None
    email: UserText | None = None


class GitSigning(Strict):
    """A key that signs the agent's commits and tags outside the bottle."""

    key: Path = Field(description="The private key (ssh, without a passphrase); it never enters the bottle.")
    public: KnownHost = Field(description="Its public half, such as `ssh-ed25519 AAAA…`.")


class GitRemote(Strict):
    """A remote that the bottle may use through the git gate."""

    name: Name
    url: RemoteUrl
    key: Path | None = Field(None, description="The private key (ssh); it never enters the bottle.")
    known_host: KnownHost | None = Field(
        None, description="The server's public key (ssh), such as `ssh-ed25519 AAAA…`."
    )
    credential: Name | None = Field(None, description="One of `credentials:` (https); put in outside.")
    local: bool = Field(False, description="Whether `url` may be a folder of this host.")
    push: list[RefPattern] = Field(
        ["bot/*"], description="Branches that may be pushed; `*` stands for anything."
    )
    tags: list[RefPattern] = Field([], description="Tags that may be created.")
    force: list[RefPattern] = Field([], description="Of these, those that may be moved other than forward.")
    delete: list[RefPattern] = Field([], description="Of these, those that may be deleted.")
    paths: list[Line] = Field(
        [], description="Protected paths that may be changed all the same, such as `.github/workflows/*`."
    )
    authors: list[Line] = Field(
        [], description="Whom commits may be by: `NAME <EMAIL>`, `*` for anything. Default: anybody."
    )
    max_file: Memory = Field(100 << 20, validate_default=True, description="How large one file may be.")
    gitleaks: bool = Field(
        True, description="Whether gitleaks has to look at what is pushed; without it nothing is pushed then."
    )
    max_push: Memory = Field(1 << 30, validate_default=True, description="How much one push may bring.")


class Git(Strict):
    """Git inside the bottle."""

    user: GitUser | None = None
    signing: GitSigning | None = Field(None, description="Signs commits and tags; the key stays outside.")
    remotes: list[GitRemote] = Field([])


class Bottle(Strict):
    """A bottle: the isolated place that an agent runs in."""

    extends: Names = Field([], description="Bottles that this one builds on; what stands later wins.")
    backend: Literal["namespace", "docker", "smolmachines"] = "namespace"
    image: Annotated[Image, BeforeValidator(_image, json_schema_input_type=Image | Line)] | None = Field(
        None, description="An image, or a Dockerfile (`./Dockerfile`, beside this file)."
    )
    runtime: RuntimeName | None = Field(
        None, description="What runs the container, such as `crun`; default: the engine's own default."
    )
    bundle: Literal["beside", "container"] | None = Field(
        None,
        description="Where what faces the agent runs; default: beside the keeper where the engine is local.",
    )
    workspace: Literal["mount", "copy", "clone"] | None = Field(
        None, description="Default: copy when headless, else mount."
    )
    resources: Resources | None = None
    egress: Egress | None = None
    credentials: dict[Name, Credential] = Field({}, description="Secrets by reference, put in outside.")
    sensitive: dict[Name, Place] = Field({}, description="Secrets that must not leave by any way.")
    git: Git | None = None
    env: dict[Variable, str] = Field({}, description="Plain values; a secret goes under `credentials:`.")
    supervise: bool = Field(False, description="Whether the agent can ask the operator.")


class Agent(Strict):
    """An agent: the coding tool that runs, and how. The text below the front matter is its prompt."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"provider": {"const": "command"}}, "required": ["provider"]},
            "then": {"required": ["command"]},
            "else": {"properties": {"command": False}},
        }
    )

    provider: Name = "claude"
    bottle: Name = Field("default", description="The bottle it runs in. A repository's agent can't name one.")
    command: Words | None = Field(
        None,
        validate_default=True,
        description="The program and its arguments; for `provider: command` only.",
    )
    model: ModelName | None = None
    base_url: BaseUrl | None = Field(None, description="The model's API.")
    skills: list[Name] = Field([], description="Names of folders under `skills/`.")
    env: dict[Variable, str] = Field({}, description="Plain values; they win over the bottle's.")

    @field_validator("command", mode="before")
    @classmethod
    def _only_for_command(cls, value: Any, info: ValidationInfo) -> Any:
        provider = info.data.get("provider")
        if provider == "command" and value is None:
            raise wrong("is missing: `provider: command` needs `command: [PROGRAM, ARGUMENT, …]`")
        if provider not in (None, "command") and value is not None:
            raise wrong(
                f"is only for `provider: command`, but the provider is `{provider}`; take one of them away"
            )
        return value
