"""Bottle files into one checked bottle: `extends:` flattened, maps merged, lists joined, defaults filled in.

Later wins. Each file counts once, at its first place, so a base that two parents share can't undo what they
say. Routes and remotes are joined; nothing is ever made up that no file states.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from bot_bottle.manifest.credentials import document as credential_document
from bot_bottle.manifest.credentials import source
from bot_bottle.manifest.document import (
    BottleDocument,
    CredentialDocument,
    EgressDocument,
    EgressUpstreamDocument,
    GitDocument,
    GitRemoteDocument,
    GitSigningDocument,
    ImageDocument,
    ResourcesDocument,
    RouteDocument,
    SecretsDocument,
    UpstreamDocument,
)
from bot_bottle.manifest.frontmatter import FrontMatter
from bot_bottle.manifest.hosts import canonical_host, parse_upstream
from bot_bottle.manifest.model import Bottle, Egress, Git, Resources, Route
from bot_bottle.manifest.source import Reading


class Part(NamedTuple):
    """One bottle file that was checked."""

    file: str
    bottle: Bottle
    front: FrontMatter


class _Placed(NamedTuple):
    """A route and where it stands."""

    route: RouteDocument
    file: str
    line: int


def compose(name: str, parts: Sequence[Part], reading: Reading) -> BottleDocument:
    """The bottle that `parts` make together, the last being its own file; contradictions are reported."""
    bottles = [part.bottle for part in parts]
    stated = [bottle.egress for bottle in bottles if bottle.egress is not None]
    credentials = {
        key: credential_document(one) for bottle in bottles for key, one in bottle.credentials.items()
    }
    placed = _routes(parts, reading)
    _check(placed, credentials, reading)
    _check_login(parts, credentials, reading)
    egress: EgressDocument = {
        "engine": _last(stated, "engine", "builtin"),
        "mode": _last(stated, "mode", "enforce"),
        "routes": [one.route for one in placed],
        "ask": list(dict.fromkeys(canonical_host(host) for egress in stated for host in egress.ask)),
        "secrets": _secrets(stated),
        "upstream": _egress_upstream(stated),
    }
    return {
        "name": name,
        "file": parts[-1].file,
        "backend": _last(bottles, "backend", "namespace"),
        "image": _image(parts),
        "runtime": _last(bottles, "runtime", None),
        "bundle": _last(bottles, "bundle", None),
        "workspace": _last(bottles, "workspace", None),
        "resources": _resources([bottle.resources for bottle in bottles if bottle.resources is not None]),
        "egress": egress,
        "credentials": credentials,
        "sensitive": {key: source(one) for bottle in bottles for key, one in bottle.sensitive.items()},
        "git": _git([bottle.git for bottle in bottles if bottle.git is not None]),
        "env": {key: value for bottle in bottles for key, value in bottle.env.items()},
        "supervise": _last(bottles, "supervise", False),
    }


def _last(models: Sequence[Any], key: str, default: Any) -> Any:
    """What the last of `models` that states `key` says."""
    return next((getattr(model, key) for model in reversed(models) if key in model.model_fields_set), default)


def _image(parts: Sequence[Part]) -> ImageDocument | None:
    """What the last file that names an image says of it: one image is one file's to describe."""
    part = next((part for part in reversed(parts) if part.bottle.image is not None), None)
    if part is None or part.bottle.image is None:
        return None
    stated = part.bottle.image
    dockerfile = _beside(part.file, stated.dockerfile) if stated.dockerfile else None
    context = _beside(part.file, stated.context) if stated.context else None
    return {
        "reference": stated.reference,
        "dockerfile": dockerfile,
        "context": context or (os.path.dirname(dockerfile) if dockerfile else None),
        "target": stated.target,
        "args": dict(sorted(stated.args.items())),
        "ca": os.path.expanduser(stated.ca) if stated.ca else None,
    }


def _beside(file: str, path: str) -> str:
    """A path is relative to the file that states it, so it is not the repository's to choose."""
    full = os.path.expanduser(path) if path.startswith("~/") else path
    return os.path.normpath(os.path.join(os.path.dirname(file), full))


def _secrets(stated: Sequence[Egress]) -> SecretsDocument | None:
    secrets = [egress.secrets for egress in stated if egress.secrets is not None]
    if not secrets:
        return None
    return {
        "on_match": _last(secrets, "on_match", secrets[0].on_match),
        "oversize": _last(secrets, "oversize", secrets[0].oversize),
        "limit": _last(secrets, "limit", secrets[0].limit),
    }


def _egress_upstream(stated: Sequence[Egress]) -> EgressUpstreamDocument:
    upstreams = [egress.upstream for egress in stated if egress.upstream is not None]
    ca = _last(upstreams, "ca", None)
    return {
        "ca": None if ca is None else os.path.expanduser(ca),
        "proxy": _last(upstreams, "proxy", None),
        "credential": next((one.credential for one in reversed(upstreams) if one.proxy is not None), None),
    }


def _resources(stated: Sequence[Resources]) -> ResourcesDocument:
    return {
        "cpus": _last(stated, "cpus", None),
        "memory": _last(stated, "memory", None),
        "pids": _last(stated, "pids", None),
        "disk": _last(stated, "disk", None),
    }


def _git(stated: Sequence[Git]) -> GitDocument:
    users = [git.user for git in stated if git.user is not None]
    remotes: dict[str, GitRemoteDocument] = {}
    for git in stated:
        for remote in git.remotes:
            key = None if remote.key is None else os.path.expanduser(remote.key)
            remotes[remote.name] = {
                "name": remote.name,
                "url": remote.url,
                "key": key,
                "known_host": remote.known_host,
                "credential": remote.credential,
                "local": remote.local,
                "push": remote.push,
                "tags": remote.tags,
                "force": remote.force,
                "delete": remote.delete,
                "paths": remote.paths,
                "authors": remote.authors,
                "gitleaks": remote.gitleaks,
                "max_file": remote.max_file,
                "max_push": remote.max_push,
            }
    return {
        "user_name": _last(users, "name", None),
        "user_email": _last(users, "email", None),
        "signing": _signing(stated),
        "remotes": list(remotes.values()),
    }


def _signing(stated: Sequence[Git]) -> GitSigningDocument | None:
    found = next((git.signing for git in reversed(stated) if git.signing is not None), None)
    return None if found is None else {"key": os.path.expanduser(found.key), "public": found.public}


def route_document(route: Route) -> RouteDocument:
    """One route with everything filled in and in its one spelling."""
    upstream: UpstreamDocument | None = None
    if route.upstream is not None:
        parts = parse_upstream(route.upstream)
        upstream = {"host": parts.host, "port": parts.port, "tls": parts.tls}
    return {
        "host": canonical_host(route.host),
        "port": route.port,
        "protocol": route.protocol,
        "methods": sorted(set(route.methods)),
        "paths": sorted(set(route.paths)),
        "headers": dict(sorted(route.headers.items())),
        "scan": route.scan,
        "on_match": route.on_match,
        "credential": route.credential,
        "upstream": upstream,
    }


def _routes(parts: Sequence[Part], reading: Reading) -> list[_Placed]:
    """All routes; of two that allow the same the later file's is kept; within one file they must agree."""
    kept: dict[tuple[Any, ...], _Placed] = {}
    for part in parts:
        for index, stated in enumerate(part.bottle.egress.routes if part.bottle.egress else ()):
            route = route_document(stated)
            placed = _Placed(route, part.file, part.front.line(("egress", "routes", index)))
            key = _scope(route)
            before = kept.get(key)
            if before is not None and before.file == part.file and before.route != route:
                what = f"`{route['host']}` is on line {before.line} already, with another upstream, credential, scan or on_match"
                reading.wrong(part.file, placed.line, f"egress.routes[{index}]: {what}; keep one")
            kept[key] = placed
    return list(kept.values())


def _scope(route: RouteDocument) -> tuple[Any, ...]:
    """What a route allows."""
    return (
        route["host"],
        route["port"],
        route["protocol"],
        tuple(route["methods"]),
        tuple(route["paths"]),
        tuple(route["headers"].items()),
    )


def _check_login(parts: Sequence[Part], credentials: dict[str, CredentialDocument], reading: Reading) -> None:
    """Reports a login at a proxy that is not there."""
    for part in parts:
        upstream = part.bottle.egress.upstream if part.bottle.egress else None
        if (
            upstream is not None
            and upstream.credential is not None
            and upstream.credential not in credentials
        ):
            line = part.front.line(("egress", "upstream", "credential"))
            what = f"`{upstream.credential}` is not in `credentials:`; add it there"
            reading.wrong(part.file, line, f"egress.upstream.credential: {what}")


def _check(routes: Sequence[_Placed], credentials: dict[str, CredentialDocument], reading: Reading) -> None:
    """Reports routes whose credential is not there, and those that can't both hold for one connection."""
    first: dict[tuple[str, int], _Placed] = {}
    for placed in routes:
        route = placed.route
        name = route["credential"]
        if name is not None and name not in credentials:
            known = ", ".join(sorted(credentials)) or "there is none"
            what = f"names credential `{name}`, which is not in `credentials:` (known: {known}); add it there"
            reading.wrong(placed.file, placed.line, f"route to {route['host']} {what}")
        other = first.setdefault((route["host"], route["port"]), placed)
        here, there = ((one["protocol"], one["upstream"]) for one in (route, other.route))
        if here != there:
            what = (
                f"contradicts {other.file}:{other.line}: one host and port has one protocol and one upstream"
            )
            reading.wrong(
                placed.file,
                placed.line,
                f"route to {route['host']}:{route['port']} {what}; change one of them",
            )
