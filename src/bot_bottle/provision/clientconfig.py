"""An agent tool's configuration file with what supervise needs in the entry that the tool's CLI wrote. Pure.

The same as a line for a person's shell, in which the token stands on no command line either: only `printf`, which is the
shell's own, is given it.
"""

import json
import shlex
from collections.abc import Mapping

from bot_bottle.plan.model import SUPERVISE_TOKEN_FILE, TOKEN, Registration
from bot_bottle.typed import Any


class NotThereError(Exception):
    """The file can't be read as what it should be, or lacks the entry; the text says which."""


def has_entry(content: bytes, registration: Registration) -> bool:
    """Whether the tool knows a server under the name already."""
    try:
        _entry(_parsed(content, registration), registration)
    except NotThereError:
        return False
    return True


def completed(content: bytes, registration: Registration, token: str) -> bytes:
    """`content` with the registration's settings in its entry. Raises NotThereError."""
    added = _filled(json.loads(registration.settings), token)
    document = _parsed(content, registration)
    entry = _entry(document, registration)
    _merge(entry, added)
    if registration.before:
        again: dict[str, Any] = {}
        place = again
        for key in registration.before[:-1]:
            place = place.setdefault(key, {})
        place[registration.before[-1]] = entry
        _merge(document, again)
    if registration.format == "json":
        return json.dumps(document, indent=2, ensure_ascii=False).encode()
    return _toml(content.decode(), registration, added, document)


def by_hand(registration: Registration) -> str:
    """The line that registers the server in a shell inside, reading the token from SUPERVISE_TOKEN_FILE."""
    if not registration.program:
        return ""
    added = json.loads(registration.settings)
    config = shlex.quote(registration.config)
    if registration.format == "json":
        inner = json.dumps(added)[1:-1].replace(TOKEN, "%s")
        text = f's|"url": "{registration.url}"|&, {inner}|\\n'
        edit = f"sed -i -f /dev/stdin {config}"
    else:
        text = "".join(f"{key} = {_inline(value)}\\n" for key, value in added.items()).replace(TOKEN, "%s")
        heading = ".".join(registration.entry).replace(".", r"\.")
        edit = f"sed -i '/^\\[{heading}\\]$/r /dev/stdin' {config}"
    add = shlex.join((registration.called, *registration.add))
    return f"""{add} && printf '{text}' "$(cat {SUPERVISE_TOKEN_FILE})" | {edit}"""


def _parsed(content: bytes, registration: Registration) -> dict[str, Any]:
    import tomllib

    if not content:
        raise NotThereError(f"{registration.config} is not there")
    try:
        text = content.decode()
        document = json.loads(text) if registration.format == "json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotThereError(f"{registration.config} can't be read: {error}") from error
    if not isinstance(document, dict):
        raise NotThereError(f"{registration.config} holds no settings")
    return document


def _entry(document: dict[str, Any], registration: Registration) -> dict[str, Any]:
    found: Any = document
    for key in registration.entry:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise NotThereError(f"{registration.config} has no {'.'.join(registration.entry)}")
    return found


def _filled(value: Any, token: str) -> Any:
    if isinstance(value, str):
        return value.replace(TOKEN, token)
    if isinstance(value, dict):
        return {key: _filled(one, token) for key, one in value.items()}
    return value


def _merge(into: dict[str, Any], added: Mapping[str, Any]) -> None:
    for key, value in added.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _toml(text: str, registration: Registration, added: Mapping[str, Any], wanted: dict[str, Any]) -> bytes:
    """`text` with lines put right below the entry's own heading, so that everything else in it stays as it is.

    Raises NotThereError unless what comes out reads as `wanted`.
    """
    import tomllib

    heading = f"[{'.'.join(registration.entry)}]"
    lines = text.splitlines()
    if heading not in lines:
        raise NotThereError(f"{registration.config} has no line {heading}")
    place = lines.index(heading) + 1
    made = "\n".join(
        [*lines[:place], *(f"{key} = {_inline(value)}" for key, value in added.items()), *lines[place:]]
    )
    try:
        same = tomllib.loads(made) == wanted
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise NotThereError(f"{registration.config} can't be completed: it has settings of its own for it")
    return (made + "\n").encode()


def _inline(value: Any) -> str:
    """A value as TOML writes it on one line; JSON's strings, numbers and booleans are TOML's, too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_inline(one)}" for key, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=True)
