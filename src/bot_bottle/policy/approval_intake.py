"""What a tool was called with, as an ask in its one spelling; or why it can't be asked for, in a sentence for the model.

Pure and total. Nothing here is believed: whatever process took the call, its arguments are checked again, cleaned and bounded.
Hosts come out in the one spelling in which policy compares them, so that two spellings of one thing are one ask.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from bot_bottle.policy.approval import TOOLS, Ask
from bot_bottle.policy.approval_git import OPERATIONS, full_ref, is_exact_path, is_fingerprint
from bot_bottle.policy.approval_text import FIELD, clean
from bot_bottle.policy.egress import REASONS
from bot_bottle.policy.hosts import canonical_host, why_no_name
from bot_bottle.policy.lines import USUAL_PORTS
from bot_bottle.policy.paths import canonical_path, canonical_path_pattern

MOST = 16
"""Hosts, URLs, methods, packages and tools in one ask."""
MAX_URL_PATH = 1024
PROTOCOLS = ("https", "http", "tcp")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}")
_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)", re.IGNORECASE)
_PORT = re.compile(r"(.*):([0-9]{1,5})")


class _NoAsk(ValueError):
    """Says what is wrong, in a sentence for the model."""


def ask_of(tool: object, arguments: object) -> Ask | str:
    """The ask that a call of `tool` makes; a sentence that says what is wrong when it makes none."""
    maker = _MAKERS.get(tool) if isinstance(tool, str) else None
    if maker is None:
        return "There is no such tool."
    if not isinstance(arguments, dict):
        return "The arguments must be an object."
    try:
        known, make = maker
        unknown = sorted(str(name) for name in arguments if name not in (*known, "reason"))
        if unknown:
            raise _NoAsk(
                f"There is no argument {clean(unknown[0], 40)!r}; there are {', '.join(known)} and reason."
            )
        subject = make({name: value for name, value in arguments.items() if value is not None})
    except _NoAsk as error:
        return str(error)
    return Ask(TOOLS[str(tool)], subject, clean(arguments.get("reason", "")))


def held_ask(message: Mapping[str, Any]) -> Ask | None:
    """The ask that a request makes which waits at the proxy; None when the bundle says nothing that could be one."""
    host, port, protocol = message.get("host"), message.get("port"), message.get("protocol")
    if (
        not isinstance(host, str)
        or canonical_host(host) != host
        or protocol not in PROTOCOLS
        or not _is_port(port)
    ):
        return None
    method, path = clean(message.get("method", ""), 20), message.get("path", "")
    if not isinstance(path, str):
        return None
    where: dict[str, Any] = {"host": host, "port": port, "protocol": protocol}
    if message.get("kind") == "request":
        if not method and not path:
            return Ask("request", where)  # a connection, of which single requests are not judged
        exact = _METHOD.fullmatch(method) is not None and _is_exact(path)
        return Ask("request", {**where, "method": method, "path": path}) if exact else None
    if message.get("kind") == "secret":
        more: dict[str, Any] = {
            name: clean(message.get(name, ""), FIELD) for name in ("detector", "place", "fingerprint")
        }
        more["hold"] = message.get("hold")  # each is asked about by itself: a yes is for one request alone
        return Ask("secret", {**where, "method": method, "path": clean(path, FIELD), **more})
    return None


def _egress(given: dict[str, Any]) -> dict[str, Any]:
    hosts, urls = _texts(given, "hosts"), _texts(given, "urls")
    if not hosts and not urls:
        raise _NoAsk("Name the hosts (`hosts`) or the exact URLs (`urls`) that are needed.")
    if len(hosts) + len(urls) > MOST:
        raise _NoAsk(f"At most {MOST} hosts and URLs can be asked for at once.")
    protocol = given.get("protocol", "https")
    if protocol not in PROTOCOLS:
        raise _NoAsk("`protocol` must be https, http or tcp.")
    port = given.get("port", USUAL_PORTS.get(protocol))
    if port is None:
        raise _NoAsk("`protocol: tcp` needs its `port`.")
    if not _is_port(port):
        raise _NoAsk("`port` must be a number from 1 to 65535.")
    methods = sorted({method.upper() for method in _texts(given, "methods")})
    if any(_METHOD.fullmatch(method) is None for method in methods):
        raise _NoAsk("`methods` are HTTP methods, such as GET.")
    if protocol == "tcp" and (methods or urls):
        raise _NoAsk("`methods` and `urls` say something about HTTP; for tcp, name `hosts` and `port` only.")
    wanted = {_of_host(text, protocol, port) for text in hosts} | {_of_url(text) for text in urls}
    return {"wanted": sorted(wanted), "methods": methods}


def _of_host(text: str, protocol: str, port: int) -> str:
    if "://" in text:
        return _of_url(text)
    if (match := _PORT.fullmatch(text)) and ":" not in match[1]:
        text, port = match[1], int(match[2])
        if not _is_port(port):
            raise _NoAsk("A port must be a number from 1 to 65535.")
    return _place(_host(text), protocol, port)


def _of_url(text: str) -> str:
    match = _URL.match(text)
    if match is None:
        raise _NoAsk(f"{clean(text, 80)!r} is no URL that begins with https:// or http://.")
    protocol, authority, path = match[1].lower(), match[2], match[3]
    if "@" in authority:
        raise _NoAsk("A URL with a user name in it can't be asked for.")
    port = USUAL_PORTS[protocol]
    if (found := _PORT.fullmatch(authority)) is not None and not authority.startswith("["):
        authority, port = found[1], int(found[2])
        if not _is_port(port):
            raise _NoAsk("A port must be a number from 1 to 65535.")
    place = _place(_host(authority), protocol, port)
    if path in ("", "/"):
        return place
    try:
        canonical = canonical_path(path.encode("ascii"))
    except UnicodeEncodeError:
        canonical = None
    if canonical is None or not _is_exact(canonical):
        raise _NoAsk(
            f"The path of {place} can be read in more than one way or has a * in it, so it can't be allowed exactly; "
            "ask for the host in `hosts` instead."
        )
    return place + canonical


def _is_exact(path: str) -> bool:
    """Whether `path` as a pattern is this path and no other."""
    if not path or "*" in path or len(path) > MAX_URL_PATH or not path.isascii():
        return False
    return canonical_path(path.encode("ascii")) == path == canonical_path_pattern(path)


def _host(text: str) -> str:
    shown = clean(text, 80)
    if text.startswith("*"):
        raise _NoAsk(f"{shown!r} stands for many hosts; name the exact ones that are needed.")
    host = canonical_host(text)
    if host is None:
        raise _NoAsk(f"{shown!r} can't be asked for: {REASONS[why_no_name(text)]}.")
    return host


def _place(host: str, protocol: str, port: int) -> str:
    usual = USUAL_PORTS.get(protocol) == port
    return f"{protocol}://{host}" if usual else f"{protocol}://{host}:{port}"


def _credential(given: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given.get("host"), str):
        raise _NoAsk("Name the host (`host`) that the credential is for.")
    return {"host": _host(given["host"]), "credential": _short(given, "credential")}


def _capability(given: dict[str, Any]) -> dict[str, Any]:
    packages, tools = (sorted(set(_cleaned(_texts(given, name)))) for name in ("packages", "tools"))
    change = _short(given, "change", 500)
    if not packages and not tools and not change:
        raise _NoAsk("Name the `packages` or `tools` that are needed, or describe the `change`.")
    return {"packages": packages, "tools": tools, "change": change}


def _git(given: dict[str, Any]) -> dict[str, Any]:
    operation = given.get("operation")
    if operation not in OPERATIONS:
        raise _NoAsk("`operation` must be push, fetch, force or delete.")
    found = {"remote": _short(given, "remote"), "ref": _short(given, "ref"), "operation": operation}
    if found["ref"]:
        found["ref"] = full_ref(found["ref"])
        if not found["ref"]:
            raise _NoAsk("`ref` must be one branch or tag by its name, such as main or refs/tags/v1.")
    if path := _short(given, "path", 400):
        if not is_exact_path(path):
            raise _NoAsk("`path` must be the one path that was refused, as the refusal spells it.")
        found["path"] = path
    if fingerprint := _short(given, "fingerprint"):
        if not is_fingerprint(fingerprint):
            raise _NoAsk("`fingerprint` must be the 20 digits and letters that the refusal names.")
        found["fingerprint"] = fingerprint
    return found


def _cleaned(texts: list[str]) -> list[str]:
    return [shown for text in texts if (shown := clean(text, FIELD))]


def _short(given: dict[str, Any], name: str, longest: int = FIELD) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise _NoAsk(f"`{name}` must be text.")
    return clean(value, longest)


def _texts(given: dict[str, Any], name: str) -> list[str]:
    value = given.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _NoAsk(f"`{name}` must be a list of texts.")
    if len(value) > MOST:
        raise _NoAsk(f"`{name}` can name at most {MOST}.")
    return value


def _is_port(port: object) -> bool:
    return type(port) is int and 0 < port < 65536


_MAKERS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "pipelock-block": (("hosts", "urls", "methods", "protocol", "port"), _egress),
    "credential-block": (("host", "credential"), _credential),
    "capability-block": (("packages", "tools", "change"), _capability),
    "git-block": (("remote", "ref", "path", "fingerprint", "operation"), _git),
}
