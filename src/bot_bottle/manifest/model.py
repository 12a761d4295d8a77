"""What may stand in the front matter of a bottle and an agent file: pydantic models, one a map.

A model checks one file. What files mean together is `compose.py`; what is wrong, in a person's words, is
`explain.py`. Checks between keys are validators of the later key, so that one reading lists every problem,
each on its own line.
"""

import re
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from bot_bottle.manifest.hosts import canonical_host, parse_upstream
from bot_bottle.names import RULE, is_name

_NAME_PATTERN = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_UNITS = {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_MEMORY = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,6}})?) ?({'|'.join(_UNITS)})")
_NOT_INJECTED = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "keep-alive",
    )
)


def wrong(what: str) -> PydanticCustomError:
    """A validation error that is already in a person's words."""
    return PydanticCustomError("wrong", "{what}", {"what": what})


def _name(text: str) -> str:
    if not is_name(text):
        raise wrong(f"`{text[:60]}` can't be a name: {RULE}")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise wrong("is no name of an environment variable (letters, digits and `_`, no digit first)")
    return text


def _host(text: str) -> str:
    try:
        return canonical_host(text)
    except ValueError as error:
        raise wrong(f"`{text[:60]}` {error}") from None


def _upstream(text: str) -> str:
    try:
        parse_upstream(text)
    except ValueError as error:
        raise wrong(f"`{text[:60]}` {error}") from None
    return text


def _method(text: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z-]{0,19}", text):
        raise wrong(f"`{text[:30]}` is no HTTP method; write it in capitals, such as GET")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or any(character in text for character in " ?#\\"):
        raise wrong(f"`{text[:60]}` is no path; it starts with `/` and has no query, such as `/v1/**`")
    if any(part in (".", "..") for part in text.split("/")):
        raise wrong(f"`{text[:60]}` has `.` or `..` in it; write the path that is meant")
    return text


def _memory(value: Any) -> Any:
    if isinstance(value, str):
        match = _MEMORY.fullmatch(value)
        if match is None:
            raise wrong(f"`{value[:30]}` is no amount of memory; write it such as 4GiB or 512MiB")
        value = int(float(match[1]) * _UNITS[match[2]])
    if isinstance(value, int) and not isinstance(value, bool) and not 2**24 <= value <= 2**50:
        raise wrong(f"is {value} bytes, which is not within 16MiB and 1024TiB; write it such as 4GiB")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _line(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise wrong("must be one line of text")
    return text


def _user(text: str) -> str:
    if set(text) & set("<>"):
        raise wrong("has `<` or `>` in it; the name and the address stand in keys of their own")
    return _line(text)


def _header(text: str) -> str:
    name = text.lower()
    if not _TOKEN.fullmatch(text):
        raise wrong("is no name of an HTTP header; write it such as x-api-key (the value goes under `from:`)")
    if name in _NOT_INJECTED or name.startswith(("proxy-", "sec-")):
        raise wrong(f"`{name}` belongs to the connection itself and can't carry a credential")
    return name


def _prefix(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise wrong("must be plain ASCII text")
    return text


def _file(text: str) -> str:
    if not text.startswith(("/", "~/")):
        raise wrong("must be an absolute path, or start with `~/`")
    return _line(text)


def _keyring(text: str) -> str:
    service, separator, user = text.partition("/")
    if not (service and separator and user):
        raise wrong("must be `SERVICE/USER`")
    return _line(text)


def _base_url(text: str) -> str:
    hint = "must be an URL such as https://api.example.org or http://model.internal/v1, without a query"
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise wrong(hint) from None
    plain = text.isascii() and text.isprintable() and " " not in text
    if not plain or url.scheme not in ("http", "https") or url.query or url.fragment or port == 0:
        raise wrong(hint)
    if "@" in url.netloc:
        raise wrong("has a user or password in it; a secret goes under `credentials:` of the bottle")
    try:
        canonical_host(host)
    except ValueError as error:
        raise wrong(f"has a host that {error}") from None
    return text


def _model_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+\[\]-]{0,199}", text):
        raise wrong("is no name of a model")
    return text


def _remote_url(text: str) -> str:
    word = r"\w[\w.-]*"
    ssh = re.fullmatch(rf"ssh://(?:{word}@)?{word}(?::\d{{1,5}})?/[^\s-][^\s]*", text, re.ASCII)
    https = re.fullmatch(rf"https?://{word}(?::\d{{1,5}})?/[^\s]+", text, re.ASCII)
    short = re.fullmatch(rf"{word}@{word}:[^\s-][^\s]*", text, re.ASCII)
    if not (ssh or https or short):
        raise wrong(
            "must be `ssh://USER@HOST/PATH`, `USER@HOST:PATH` or `https://HOST/PATH`, without a password"
        )
    return text


T = TypeVar("T")
UNSET: Any = None
"""The default of a key whose value is worked out from the keys before it."""
_NAME_SCHEMA = WithJsonSchema({"type": "string", "pattern": _NAME_PATTERN})
Name = Annotated[str, AfterValidator(_name), _NAME_SCHEMA]
Variable = Annotated[str, AfterValidator(_variable)]
Text = Annotated[str, MinLen(1), MaxLen(4000)]
Line = Annotated[Text, AfterValidator(_line)]
UserText = Annotated[Text, AfterValidator(_user)]
Host = Annotated[Text, AfterValidator(_host)]
UpstreamText = Annotated[Text, AfterValidator(_upstream)]
Port = Annotated[int, Ge(1), Le(65535)]
Method = Annotated[Text, AfterValidator(_method)]
UrlPath = Annotated[Text, AfterValidator(_path)]
Path = Annotated[Text, AfterValidator(_file)]
Memory = Annotated[
    int,
    BeforeValidator(_memory),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 2**24},
                {"type": "string", "pattern": f"^{_MEMORY.pattern}$"},
            ]
        }
    ),
]
Names = Annotated[
    list[Name],
    BeforeValidator(_listed),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _NAME_PATTERN},
                {"type": "array", "items": {"type": "string", "pattern": _NAME_PATTERN}},
            ]
        }
    ),
]


class Strict(BaseModel):
    """Every key known, every type as written. None is a key that is not there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Route(Strict):
    """One thing that a bottle may reach."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"protocol": {"const": "tcp"}}, "required": ["protocol"]},
            "then": {
                "required": ["port"],
                "properties": {"methods": False, "paths": False, "credential": False},
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

    @field_validator("methods", "paths")
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


class OnMatch(Strict):
    """What happens to a request in which a secret was found."""

    on_match: Literal["hold", "redact", "block"] = Field(description="hold: ask the operator.")


class Egress(Strict):
    """What the bottle may reach. Without routes: nothing."""

    engine: Literal["builtin", "pipelock"] = "builtin"
    routes: list[Route] = Field([], description="An empty list allows nothing.")
    secrets: OnMatch | None = None


class Origin(Strict):
    """Where a credential is read when a bottle starts; exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    env: Variable | None = Field(None, description="A variable of the operator's environment.")
    file: Path | None = Field(None, description="A file; absolute or `~/…`.")
    command: Annotated[list[Text], MinLen(1)] | None = Field(
        None, description="A program's first line of output."
    )
    keyring: Annotated[Text, AfterValidator(_keyring)] | None = Field(None, description="`SERVICE/USER`.")


class Credential(Strict):
    """A secret by reference, and the header it goes out in."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["header"]}, {"required": ["bearer"]}]},
    )

    from_: Origin = Field(alias="from", description="Where the secret is read.")
    header: Annotated[Text, AfterValidator(_header)] | None = Field(
        None, description="The header, such as x-api-key."
    )
    prefix: Annotated[str, MaxLen(100), AfterValidator(_prefix)] = Field(
        "", description="Stands before the secret."
    )
    bearer: Literal[True] | None = Field(
        None, validate_default=True, description="Short for header authorization with prefix `Bearer `."
    )

    @field_validator("from_")
    @classmethod
    def _one_origin(cls, value: Origin) -> Origin:
        if len(value.model_fields_set) != 1:
            raise wrong("must have exactly one of `env`, `file`, `command`, `keyring`")
        return value

    @field_validator("prefix")
    @classmethod
    def _prefix_needs_header(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("header", "") is None:
            raise wrong("needs `header:` beside it")
        return value

    @field_validator("bearer", mode="before")
    @classmethod
    def _one_header(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            if info.data.get("header", "") is None:
                raise wrong(
                    "or `header` is missing: write `bearer: true`, or `header:` with the header's name"
                )
            return None
        if value is not True:
            raise wrong("must be `true` (the secret itself goes under `from:`)")
        if info.data.get("header") is not None:
            raise wrong("and `header` exclude each other; keep one")
        return value


class Resources(Strict):
    """What the bottle as a whole may use."""

    cpus: Annotated[float, Gt(0), Le(4096)] | None = Field(None, description="Cores, such as 1.5.")
    memory: Memory | None = Field(None, description="Such as 4GiB, or a number of bytes.")
    pids: Annotated[int, Ge(1), Le(2**22)] | None = Field(None, description="Processes and threads.")


class GitUser(Strict):
    """Who commits are by."""

    name: UserText | None = None
    email: UserText | None = None


class GitRemote(Strict):
    """A remote that the bottle may use through the git gate."""

    name: Annotated[Text, AfterValidator(_name), _NAME_SCHEMA]
    url: Annotated[Text, AfterValidator(_remote_url)]
    key: Path | None = Field(None, description="The private key; it never enters the bottle.")
    known_host: Line | None = Field(None, description="The server's public key, such as `ssh-ed25519 AAAA…`.")


class Git(Strict):
    """Git inside the bottle."""

    user: GitUser | None = None
    remotes: list[GitRemote] = []


class Bottle(Strict):
    """A bottle: the isolated place that an agent runs in."""

    extends: Names = Field([], description="Bottles that this one builds on; what stands later wins.")
    backend: Literal["namespace", "docker", "smolmachines"] = "namespace"
    image: Line | None = Field(
        None, description="An image, or a Dockerfile (`./Dockerfile`, beside this file)."
    )
    workspace: Literal["mount", "copy"] | None = Field(
        None, description="Default: copy when headless, else mount."
    )
    resources: Resources | None = None
    egress: Egress | None = None
    credentials: dict[Name, Credential] = {}
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
    command: Annotated[list[Text], MinLen(1)] | None = Field(
        None,
        validate_default=True,
        description="The program and its arguments; for `provider: command` only.",
    )
    model: Annotated[Text, AfterValidator(_model_name)] | None = None
    base_url: Annotated[Text, AfterValidator(_base_url)] | None = Field(None, description="The model's API.")
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
