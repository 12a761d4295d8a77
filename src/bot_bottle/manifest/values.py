"""The single values of a manifest: what each may look like, what is said of one that does not.

A check says what is wrong in a person's words; those of credentials never repeat the value, which may be a
secret.
"""

import re
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from bot_bottle.manifest.hosts import canonical_host, parse_upstream
from bot_bottle.names import RULE, is_name
from bot_bottle.policy.paths import canonical_path_pattern

NAME_PATTERN = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
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
_SMALLEST_SIZE, _LARGEST_SIZE = 2**10, 2**26
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
    if any("**" in part and part != "**" for part in text.split("/")):
        raise wrong(f"`{text[:60]}` has `**` beside other text; it stands for whole parts, such as `/v1/**`")
    path = canonical_path_pattern(text)
    if path is None:
        raise wrong(f"`{text[:60]}` is a path that servers read differently; no path rule can allow it")
    return path


def _bytes(value: Any, what: str) -> Any:
    """A number of bytes; what is no text is left as it is."""
    if not isinstance(value, str):
        return value
    match = _MEMORY.fullmatch(value)
    if match is None:
        raise wrong(f"`{value[:30]}` is no {what}")
    return int(float(match[1]) * _UNITS[match[2]])


def _size(value: Any) -> Any:
    value = _bytes(value, "size; write it such as 1MiB or 512KiB")
    number = isinstance(value, int) and not isinstance(value, bool)
    if number and not _SMALLEST_SIZE <= value <= _LARGEST_SIZE:
        raise wrong(f"is {value} bytes, which is not between 1KiB and 64MiB; write it such as 1MiB")
    return value


def _memory(value: Any) -> Any:
    value = _bytes(value, "amount of memory; write it such as 4GiB or 512MiB")
    if isinstance(value, int) and not isinstance(value, bool) and not 2**24 <= value <= 2**50:
        raise wrong(f"is {value} bytes, which is not between 16MiB and 1024TiB; write it such as 4GiB")
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


def _matched_header(text: str) -> str:
    name = text.lower()
    if not _TOKEN.fullmatch(text):
        raise wrong(f"`{text[:60]}` is no name of an HTTP header")
    if name in _NOT_INJECTED or name.startswith("proxy-"):
        raise wrong(
            f"`{name}` belongs to the connection itself; what the server sees of it is not the agent's"
        )
    return name


def _header_pattern(text: str) -> str:
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise wrong("must be plain ASCII text without blanks around it; `*` stands for anything")
    return text


def _url(text: str, hint: str) -> SplitResult:
    """`text` in its parts, in plain characters and with a port that there can be."""
    try:
        url = urlsplit(text)
        possible = url.port != 0
    except ValueError:
        raise wrong(hint) from None
    if not possible or not text.isascii() or not text.isprintable() or " " in text:
        raise wrong(hint)
    return url


def _proxy_url(text: str) -> str:
    hint = "must be a URL such as http://proxy.example.org:3128"
    url = _url(text, hint)
    if "@" in url.netloc:
        raise wrong(
            "has a user or password in it; a secret goes under `credentials:`, its name under `credential:` here"
        )
    if url.scheme not in ("http", "https") or url.path not in ("", "/"):
        raise wrong(hint)
    if url.query or url.fragment or not url.hostname:
        raise wrong(hint)
    return text


def _prefix(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise wrong("must be plain ASCII text")
    return text


def _file(text: str) -> str:
    if not text.startswith(("/", "~/")):
        raise wrong("must be an absolute path, or start with `~/`")
    return _line(text)


def _keyring(text: str) -> str:
    service, separator, user = text.rpartition("/")
    if not (service and separator and user):
        raise wrong("must be `SERVICE/USER`")
    return _line(text)


def _basic_user(text: str) -> str:
    if not text.isascii() or not text.isprintable() or ":" in text:
        raise wrong("must be a user's name in plain ASCII, without a colon (the password goes under `from:`)")
    return text


def _query_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]{1,100}", text):
        raise wrong(
            "is no name of a URL's parameter; write it such as api_key (the value goes under `from:`)"
        )
    return text


def _token_url(text: str) -> str:
    hint = "must be an https URL such as https://login.example.org/token"
    url = _url(text, hint)
    local = url.scheme == "http" and url.hostname in ("127.0.0.1", "localhost")
    if not url.hostname or "@" in url.netloc or url.fragment or not (url.scheme == "https" or local):
        raise wrong(hint)
    return text


def _base_url(text: str) -> str:
    hint = "must be a URL such as https://api.example.org or http://model.internal/v1, without a query"
    url = _url(text, hint)
    if url.scheme not in ("http", "https") or url.query or url.fragment:
        raise wrong(hint)
    if "@" in url.netloc:
        raise wrong("has a user or password in it; a secret goes under `credentials:` of the bottle")
    try:
        canonical_host(url.hostname or "")
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
    local = re.fullmatch(r"/[^\s]+", text, re.ASCII) and ".." not in text.split("/")
    if not (ssh or https or short or local):
        raise wrong(
            "must be `ssh://USER@HOST/PATH`, `USER@HOST:PATH` or `https://HOST/PATH`, without a password (or, with "
            "`local: true`, an absolute path)"
        )
    return text


def _image_reference(text: str) -> str:
    path = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    host = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    folder = re.fullmatch(r"(?:/[^/:\s,]+)+", text) and not {".", ".."} & set(text.split("/"))
    tag, digest = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?", r"(?:@sha256:[0-9a-f]{64})?"
    if len(text) > 500 or not (folder or re.fullmatch(rf"{host}{path}(?:/{path})*{tag}{digest}", text)):
        raise wrong(
            f"`{text[:60]}` is no name of an image; write it such as debian:bookworm, or a Dockerfile's "
            "path as ./Dockerfile"
        )
    return text


def _stage(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}", text):
        raise wrong(f"`{text[:60]}` is no name of a stage")
    return text


def _runtime(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}", text):
        raise wrong(
            f"`{text[:60]}` is no name of a runtime; `docker info` lists those that the engine has, such as crun"
        )
    return text


def _known_host(text: str) -> str:
    if not re.fullmatch(
        r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]{1,60} [A-Za-z0-9+/]{40,4000}={0,2}", text
    ):
        raise wrong(
            "must be the server's public key alone, such as `ssh-ed25519 AAAA…` (ssh-keyscan HOST shows it)"
        )
    return text


def _ref_pattern(text: str) -> str:
    if len(text) > 200 or re.search(r"[\x00-\x20\x7f~^:\[\\]|\.\.|@\{|//|\A[-/]", text):
        raise wrong(f"`{text[:60]}` is no pattern for refs; write it such as `bot/*`")
    return text


NAME_SCHEMA = WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
Name = Annotated[str, AfterValidator(_name), NAME_SCHEMA]
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
                {"type": "string", "pattern": NAME_PATTERN},
                {"type": "array", "items": {"type": "string", "pattern": NAME_PATTERN}},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": _SMALLEST_SIZE, "maximum": _LARGEST_SIZE},
                {"type": "string", "pattern": f"^{_MEMORY.pattern}$"},
            ]
        }
    ),
]
Header = Annotated[Text, AfterValidator(_header)]
MatchedHeader = Annotated[Text, AfterValidator(_matched_header)]
HeaderPattern = Annotated[Text, AfterValidator(_header_pattern)]
ProxyUrl = Annotated[Text, AfterValidator(_proxy_url)]
Prefix = Annotated[str, MaxLen(100), AfterValidator(_prefix)]
BasicUser = Annotated[Text, AfterValidator(_basic_user)]
QueryName = Annotated[Text, AfterValidator(_query_name)]
TokenUrl = Annotated[Text, AfterValidator(_token_url)]
KeyringItem = Annotated[Text, AfterValidator(_keyring)]
BaseUrl = Annotated[Text, AfterValidator(_base_url)]
ModelName = Annotated[Text, AfterValidator(_model_name)]
ImageReference = Annotated[Text, AfterValidator(_image_reference)]
StageName = Annotated[Text, AfterValidator(_stage)]
RuntimeName = Annotated[Text, AfterValidator(_runtime)]
RemoteUrl = Annotated[Text, AfterValidator(_remote_url)]
KnownHost = Annotated[Text, AfterValidator(_known_host)]
RefPattern = Annotated[Text, AfterValidator(_ref_pattern)]
Words = Annotated[list[Text], MinLen(1)]
Cores = Annotated[float, Gt(0), Le(4096)]
Count = Annotated[int, Ge(1), Le(2**22)]
