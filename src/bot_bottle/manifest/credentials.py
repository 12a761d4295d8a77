"""The secrets that a bottle's file names by reference: where they are read, and how they go out.

No secret stands in a file. What is said of a wrong value never repeats it: it may be a secret that was put there by mistake.
"""

import json
import os
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from bot_bottle.manifest.document import CredentialDocument
from bot_bottle.manifest.strict import Strict
from bot_bottle.manifest.values import (
    BasicUser,
    Header,
    KeyringItem,
    Line,
    Path,
    Prefix,
    QueryName,
    TokenUrl,
    Variable,
    Words,
    wrong,
)

CLAUDE_TOKEN_URL = "https://platform.claude.com/v1/oauth/token"  # noqa: S105 - an address
CLAUDE_CLIENT_ID = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
"""Where Claude Code's own logins are renewed, and as whom: both stand in the program."""


_NEEDED = frozenset(
    (
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "TZ", "PWD", "TMPDIR", "IFS", "ENV", "BASH_ENV",
        "EDITOR", "PAGER", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS",
        "JAVA_TOOL_OPTIONS", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO",
    )
)  # fmt: skip
_NEEDED_BEGINNINGS = ("LD_", "LC_", "PYTHON", "BOT_BOTTLE")


def _a_map(value: Any, says: str) -> Any:
    """Whoever writes text here has probably written the secret itself."""
    if isinstance(value, str):
        raise wrong(f"must say {says}; the secret itself does not stand in this file")
    return value


class Place(Strict):
    """Where a secret is read when a bottle starts; exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    env: Variable | None = Field(None, description="A variable of the operator's environment.")
    file: Path | None = Field(None, description="A file; absolute or `~/…`.")
    command: Words | None = Field(None, description="A program's first line of output.")
    keyring: KeyringItem | None = Field(None, description="`SERVICE/USER` in the system's keyring.")

    @model_validator(mode="before")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        return _a_map(value, "where the secret is read, such as `{env: NAME}`")

    @model_validator(mode="after")
    def _one(self) -> "Place":
        if len(self.model_fields_set) != 1:
            known = ", ".join(f"`{name}`" for name in type(self).model_fields)
            raise wrong(f"must have exactly one of {known}")
        return self


class OAuth(Strict):
    """A login that is renewed outside: the file is JSON with `access_token`, `refresh_token` and `expires_at`."""

    file: Path = Field(description="Where the login is kept; the renewed one is written back.")
    token_url: TokenUrl = Field(description="Where it is renewed.")
    client_id: Line = Field(description="As which client.")


class Origin(Place):
    """Where a credential is read when a bottle starts; exactly one of these."""

    claude_login: Path | None = Field(
        None, description="Claude Code's login: `~/.claude/.credentials.json`. Renewed outside."
    )
    oauth: OAuth | None = Field(None, description="Another OAuth login. Renewed outside.")


class Credential(Strict):
    """A secret by reference, and how it goes out."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [way]} for way in ("header", "bearer", "basic", "query")],
            "dependentRequired": {"prefix": ["header"]},
        },
    )

    from_: Origin = Field(alias="from", description="Where the secret is read.")
    header: Header | None = Field(None, description="The header, such as x-api-key.")
    prefix: Prefix = Field("", description="Stands before the secret.")
    bearer: Literal[True] | None = Field(
        None, description="Short for header authorization with prefix `Bearer `."
    )
    basic: Literal[True] | BasicUser | None = Field(
        None, description="The user whose password it is; `true` when the secret is `USER:PASSWORD`."
    )
    query: QueryName | None = Field(None, description="A parameter of the URL.")
    env: Variable | None = Field(None, description="The variable inside that holds the placeholder.")

    @field_validator("env")
    @classmethod
    def _not_needed(cls, name: str | None) -> str | None:
        if name and (name.upper() in _NEEDED or name.upper().startswith(_NEEDED_BEGINNINGS)):
            raise wrong(
                f"{name} is a variable that programs need to run; a placeholder there would break them"
            )
        return name

    @model_validator(mode="before")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        return _a_map(
            value, "where the secret is read and how it goes out, such as `{from: {env: NAME}, bearer: true}`"
        )

    @field_validator("bearer", mode="before")
    @classmethod
    def _only_true(cls, value: Any) -> Any:
        if value is not True and value is not None:
            raise wrong("must be `true` (the secret itself goes under `from:`)")
        return value

    @field_validator("basic", mode="before")
    @classmethod
    def _true_or_user(cls, value: Any) -> Any:
        if value is not True and value is not None and not isinstance(value, str):
            raise wrong("must be a user's name, or `true` when the secret is `USER:PASSWORD`")
        return value

    @model_validator(mode="after")
    def _one_way_out(self) -> "Credential":
        ways = [name for name in ("header", "bearer", "basic", "query") if getattr(self, name) is not None]
        if not ways:
            raise wrong(
                "`bearer`, `basic`, `query` or `header` is missing: write `bearer: true`, or `header:` with the header's name"
            )
        if len(ways) > 1:
            raise wrong(f"`{ways[0]}` and `{ways[1]}` exclude each other; keep one")
        if self.prefix and self.header is None:
            raise wrong("`prefix` needs `header:` beside it")
        if self.from_.claude_login is not None and self.bearer is None:
            raise wrong("`claude_login` goes out with `bearer: true`")
        return self


def source(place: Place) -> str:
    """Where it is read, as planning and the reader name it: a kind, a colon, and what that kind needs."""
    if place.command is not None:
        return "command:" + json.dumps(place.command)
    if place.file is not None:
        return "file:" + os.path.expanduser(place.file)
    if place.keyring is not None:
        return "keyring:" + place.keyring
    if isinstance(place, Origin) and place.claude_login is not None:
        return _login(place.claude_login, CLAUDE_TOKEN_URL, CLAUDE_CLIENT_ID)
    if isinstance(place, Origin) and place.oauth is not None:
        return _login(place.oauth.file, place.oauth.token_url, place.oauth.client_id)
    return f"env:{place.env}"


def _login(file: str, token_url: str, client_id: str) -> str:
    login = {"file": os.path.expanduser(file), "token_url": token_url, "client_id": client_id}
    return "oauth:" + json.dumps(login)


def document(credential: Credential) -> CredentialDocument:
    """One credential with everything filled in."""
    made: CredentialDocument = {
        "source": source(credential.from_),
        "scheme": "header",
        "name": "authorization",
        "prefix": "",
        "user": "",
        "variable": credential.env,
    }
    if credential.header is not None:
        made |= {"name": credential.header, "prefix": credential.prefix}
    elif credential.bearer is not None:
        made |= {"prefix": "Bearer "}
    elif credential.basic is not None:
        made |= {"scheme": "basic", "user": "" if credential.basic is True else credential.basic}
    else:
        made |= {"scheme": "query", "name": credential.query or ""}
    return made
