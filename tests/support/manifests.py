"""Checked manifests as planning gets them, for tests that need no files."""

from typing import Any

from bot_bottle.manifest.document import (
    CredentialDocument,
    EgressDocument,
    GitRemoteDocument,
    ImageDocument,
    ManifestDocument,
    ResourcesDocument,
    RouteDocument,
)


def route(host: str, **keys: Any) -> RouteDocument:
    """A route with every default."""
    base: RouteDocument = {
        "host": host, "port": 443, "protocol": "https", "methods": [], "paths": [], "headers": {}, "scan": True, "on_match": None,
        "credential": None, "upstream": None,
    }  # fmt: skip
    return {**base, **keys}  # type: ignore[typeddict-item]


def egress(*routes: RouteDocument, **keys: Any) -> EgressDocument:
    """What may be reached, with every default."""
    base: EgressDocument = {
        "engine": "builtin", "mode": "enforce", "routes": list(routes), "ask": [], "secrets": None,
        "upstream": {"ca": None, "proxy": None, "credential": None},
    }  # fmt: skip
    return {**base, **keys}  # type: ignore[typeddict-item]


def remote(url: str = "ssh://git@example.org/me/repo.git", **keys: Any) -> GitRemoteDocument:
    """A remote over ssh, with every default."""
    base: GitRemoteDocument = {
        "name": "origin", "url": url, "key": "/home/me/.ssh/bot", "known_host": "ssh-ed25519 AAAA", "credential": None,
        "local": False, "push": ["bot/*"], "tags": [], "force": [], "delete": [], "paths": [], "authors": [],
        "gitleaks": True, "max_file": 100 << 20, "max_push": 1 << 30,
    }  # fmt: skip
    return {**base, **keys}  # type: ignore[typeddict-item]


def credential(source: str, **keys: Any) -> CredentialDocument:
    """A credential that goes out as x-api-key, with every default."""
    base: CredentialDocument = {
        "source": source, "scheme": "header", "name": "x-api-key", "prefix": "", "user": "", "variable": None,
    }  # fmt: skip
    return {**base, **keys}  # type: ignore[typeddict-item]


def resources(**keys: Any) -> ResourcesDocument:
    """Limits, none by default."""
    return {"cpus": None, "memory": None, "pids": None, "disk": None, **keys}  # type: ignore[typeddict-item]


def image(**keys: Any) -> ImageDocument:
    """What a bottle is made from, with every default."""
    base: ImageDocument = {
        "reference": None, "dockerfile": None, "context": None, "target": None, "args": {}, "ca": None,
    }  # fmt: skip
    return {**base, **keys}  # type: ignore[typeddict-item]


def manifest(
    *, bottle: dict[str, Any] | None = None, agent: dict[str, Any] | None = None
) -> ManifestDocument:
    """A manifest with every default; `bottle` and `agent` replace keys."""
    return {
        "agent": {
            "name": "fixer", "file": "/home/me/.bot-bottle/agents/fixer.md", "from_repository": False,
            "provider": "command", "bottle": "default", "command": ["true"], "model": None,
            "base_url": None, "skills": [], "env": {}, "prompt": "",
            **(agent or {}),
        },
        "bottle": {
            "name": "default", "file": "/home/me/.bot-bottle/bottles/default.md", "backend": "namespace",
            "image": None, "runtime": None, "bundle": None,
            "workspace": None, "resources": resources(),
            "egress": egress(), "credentials": {}, "sensitive": {},
            "git": {"user_name": None, "user_email": None, "signing": None, "remotes": []}, "env": {}, "supervise": False,
            **(bottle or {}),
        },
    }  # type: ignore[typeddict-item]  # fmt: skip
