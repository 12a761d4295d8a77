"""`~/.bot-bottle/operator.yaml`: how the operator wants to be told that something waits. Strictly checked, with lines.

webhook: {url: "https://ntfy.example.org/bottles", token: {env: NTFY_TOKEN}}
desktop: true
"""

import os
from functools import lru_cache
from typing import Any, NamedTuple

from bot_bottle.errors import BotBottleError, ManifestError
from bot_bottle.host import paths

FILE = "operator.yaml"
_SOURCES = ("env", "file", "command")


_TEXT = {"type": "string", "minLength": 1}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Operator",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "webhook": {
            "description": "Where a notice is posted to when something waits, as ntfy takes it.",
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {
                "url": {"type": "string", "pattern": "^https?://[^@\\s]+$"},
                "token": {
                    "description": "Where the bearer token is read.",
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": False,
                    "properties": {
                        "env": _TEXT,
                        "file": _TEXT,
                        "command": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                    },
                },
            },
        },
        "desktop": {"description": "Whether notify-send shows it.", "type": "boolean"},
    },
}
"""The JSON Schema of the file, for editors."""


class Webhook(NamedTuple):
    """Where a message is posted to; `token` is a reference (`env:NAME`, `file:PATH`, `command:JSON`), empty for none."""

    url: str
    token: str = ""


class Operator(NamedTuple):
    """What the file says; nothing when there is none."""

    webhook: Webhook | None = None
    desktop: bool = False


def file() -> str:
    """Where the file is, if there is one."""
    return os.path.join(paths.manifest_root(), FILE)


def notifies() -> bool:
    """Whether the operator is told of what waits. False when the file is wrong: nobody would hear anything."""
    try:
        facts = os.stat(file())
    except OSError:
        return False
    return _notifies(file(), facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=4)
def _notifies(_file: str, _changed: int, _size: int) -> bool:
    """Asked with every answer to an agent, so a file is read once while it stays as it is."""
    try:
        found = read()
    except BotBottleError:
        return False
    return found.webhook is not None or (found.desktop and desktop_program() != "")


def problems() -> tuple[str, ...]:
    """What is wrong with the file, one a line; nothing when there is none."""
    try:
        read()
    except ManifestError as error:
        return tuple(error.details.splitlines())
    return ()


def desktop_program() -> str:
    """What shows a message on the desktop; empty where there is no desktop, or no such program."""
    import shutil

    there = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return (shutil.which("notify-send") or "") if there else ""


def read() -> Operator:
    """The checked file. Raises ManifestError with every problem, by line."""
    from bot_bottle.manifest.source import Reading

    reading = Reading()
    raw = reading.read(file(), paths.manifest_root())
    if raw is None:
        reading.raise_problems(_BRIEF)
        return Operator()
    from bot_bottle.manifest.frontmatter import parse

    front = parse(
        b"---\n" + raw + b"\n---\n", lambda line, what: reading.wrong(file(), max(1, line - 1), what)
    )
    made = Operator()
    if front is not None:

        def wrong(what: str, *path: str) -> None:
            reading.wrong(file(), max(1, front.line(path) - 1), what)

        made = _checked(front.data, wrong)
    reading.raise_problems(_BRIEF)
    return made


_BRIEF = f"`{FILE}` is wrong"


def _checked(data: dict[str, Any], wrong: Any) -> Operator:
    _known(data, ("webhook", "desktop"), wrong)
    desktop = data.get("desktop", False)
    if not isinstance(desktop, bool):
        wrong("`desktop` must be true or false", "desktop")
        desktop = False
    webhook = data.get("webhook")
    if webhook is None:
        if "webhook" in data:
            wrong("`webhook` must be a map with `url`", "webhook")
        return Operator(None, desktop)
    if not isinstance(webhook, dict):
        wrong("`webhook` must be a map with `url`", "webhook")
        return Operator(None, desktop)
    _known(webhook, ("url", "token"), wrong, "webhook")
    url = webhook.get("url")
    if not isinstance(url, str) or not _is_url(url):
        wrong("`url` must be an http:// or https:// URL without a login in it", "webhook", "url")
        return Operator(None, desktop)
    return Operator(Webhook(url, _token(webhook.get("token"), wrong) if "token" in webhook else ""), desktop)


def _known(data: dict[str, Any], names: tuple[str, ...], wrong: Any, *path: str) -> None:
    import difflib

    for name in data:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(names)}"
            wrong(f"there is no key `{name}`; {hint}", *path, name)


def _is_url(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url
        return (
            plain and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        )
    except ValueError:
        return False


def _token(stated: Any, wrong: Any) -> str:
    import json

    if not isinstance(stated, dict) or len(stated) != 1 or next(iter(stated)) not in _SOURCES:
        what = "`token` must be one of {env: NAME}, {file: PATH}, {command: [PROGRAM, …]}; never the token itself"
        wrong(what, "webhook", "token")
        return ""
    kind, value = next(iter(stated.items()))
    if kind == "command":
        if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
            return f"command:{json.dumps(value)}"
        wrong("`command` must be a list of words", "webhook", "token", "command")
        return ""
    if not isinstance(value, str) or not value:
        wrong(f"`{kind}` must be text", "webhook", "token", str(kind))
        return ""
    return f"{kind}:{os.path.expanduser(value) if kind == 'file' else value}"
