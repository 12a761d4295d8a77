"""Whether one route allows all that another does, and whether an ask is a variant of what was refused. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bot_bottle.policy.approval import Ask
from bot_bottle.policy.hosts import matches
from bot_bottle.policy.model import Route
from bot_bottle.policy.paths import path_matches

_SECOND_LEVEL = frozenset("ac co com edu gob gov go gv ltd mil ne net nom or org plc sch".split())
"""Below a country's domain, these are registries' own (`co.uk`): what stands below them belongs to different people."""
_SHARED = frozenset(
    "amazonaws.com appspot.com azureedge.net azurewebsites.net blob.core.windows.net blogspot.com cloudfront.net core.windows.net "
    "firebaseapp.com fly.dev github.io githubusercontent.com gitlab.io googleapis.com googleusercontent.com herokuapp.com "
    "netlify.app onrender.com pages.dev r2.dev readthedocs.io run.app s3.amazonaws.com vercel.app web.app windows.net "
    "workers.dev".split()
)
"""Domains whose names below belong to different people."""

_REGISTRY = re.compile(
    r"(?:npm|pip|pypi|pypi\.org|apt|deb|debian|cargo|crates|gem|go|brew|conda|docker)[:/]+(?=[^/])"
)
_VERSION = re.compile(r"[\[<>=!~;:\s,^*]")
_DIVIDERS = re.compile(r"[-_.]+")
_GIT_URL = re.compile(
    r"(?:git\+)?(?:https?|ssh|git|git\+ssh)://(?:[^/@]*@)?(?P<host>[^/:@]+)(?::[0-9]*)?(?P<path>/.*)?"
)
_SCP = re.compile(r"(?:[^/@:]+@)(?P<host>[^/:@]+):(?P<path>.*)")
"""As scp writes a place: `user@host:path`."""


def covers(there: Route, wanted: Route) -> bool:
    """Whether `there` allows all that `wanted` does, with what it carries. False when in doubt."""
    if (there.port, there.protocol) != (wanted.port, wanted.protocol) or not _host_covers(
        there.host, wanted.host
    ):
        return False
    if wanted.credential is not None and there.credential != wanted.credential:
        return False
    if there.methods and not (wanted.methods and set(wanted.methods) <= set(there.methods)):
        return False
    if there.paths and not (wanted.paths and all(_path_covers(there.paths, path) for path in wanted.paths)):
        return False
    return set(there.headers) <= set(wanted.headers)


def _host_covers(there: str, wanted: str) -> bool:
    if wanted.startswith("*."):
        return there == wanted or (there.startswith("*.") and wanted.endswith(there[1:]))
    return matches(there, wanted)


def _path_covers(patterns: Sequence[str], wanted: str) -> bool:
    return wanted in patterns or ("*" not in wanted and any(path_matches(each, wanted) for each in patterns))


def variant(ask: Ask, routes: Iterable[Route], refused: Ask, refused_routes: Iterable[Route]) -> str:
    """What of `ask` is what was refused, or a variant of it: its name; empty when nothing is."""
    if ask.kind in ("egress", "request") and refused.kind in ("egress", "request"):
        for route in routes:
            if any(_same_owner(route.host, other.host) for other in refused_routes):
                return route.host
        return ""
    if ask.kind != refused.kind:
        return ""
    named, before = _things(ask.subject), _things(refused.subject)
    if ask.content() == refused.content():
        return ", ".join(sorted(named)) or ask.kind
    return ", ".join(sorted(named & before))


def _things(subject: Mapping[str, Any]) -> set[str]:
    """What a subject names, in one spelling and without how: packages, tools, a remote, a host. `change` is prose, no name."""
    found: set[str] = set()
    for key in ("packages", "tools"):
        found.update(package(str(each)) for each in subject.get(key, ()))
    exact = [key for key in ("ref", "path", "fingerprint") if subject.get(key)]
    if (remote := subject.get("remote")) and not exact:
        found.add(place(str(remote)))
    for key in exact if "remote" in subject and exact else ("host", "fingerprint"):
        if value := subject.get(key):
            found.add(str(value).lower())
    return found


def package(name: str) -> str:
    """A package or tool without its version, extras and the registry that it is said to come from; every spelling as one.

    Of registries that tell `_` from `-` two packages come out as one: a refusal then covers both.
    """
    name = name.strip().lower()
    if "://" in name or _SCP.fullmatch(name):
        return place(name)
    name = _REGISTRY.sub("", name)
    scope, at, rest = name.rpartition("@")
    while at and scope:  # the first @ of npm's scopes stands at the beginning
        name = scope
        scope, at, rest = name.rpartition("@")
    name = _VERSION.split(name, maxsplit=1)[0].strip()
    return _DIVIDERS.sub("-", name) or rest


def place(remote: str) -> str:
    """A git remote however its URL is written: host and path, without user, usual port and `.git`. A name stays one."""
    text = remote.strip().lower()
    match = _GIT_URL.fullmatch(text) or _SCP.fullmatch(text)
    if match is None:
        return text
    host, path = match["host"], match["path"]
    path = re.split(r"[?#@]", path or "", maxsplit=1)[0]
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join([host.rstrip("."), *parts]).removesuffix(".git")


def _same_owner(one: str, other: str) -> bool:
    """Whether two hosts of routes are the same, one below the other, or both below one domain that one owner registered."""
    one, other = one.removeprefix("*."), other.removeprefix("*.")
    if one == other or one.endswith("." + other) or other.endswith("." + one):
        return True
    return registered(one) == registered(other)


def registered(host: str) -> str:
    """The domain that the owner of the canonical `host` is likely to have registered; `host` itself where that is not known."""
    labels = host.split(".")
    for length in range(2, len(labels)):
        ending = ".".join(labels[-length:])
        if ending in _SHARED or (length == 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL):
            continue
        return ending
    return host
