"""The remotes of the git gate: what their URLs mean, what the agent's git may call them, and what of them can't be kept. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

from bot_bottle.digest import sha256_hex
from bot_bottle.manifest.document import BottleDocument, CredentialDocument, GitRemoteDocument
from bot_bottle.plan.model import Credential, GitGate, GitRemote
from bot_bottle.policy.git import BRANCHES, TAGS, GitRules
from bot_bottle.policy.ports import GIT_URL
from bot_bottle.typed import NamedTuple

_WORD = r"\w[\w.-]*"
_SSH = re.compile(rf"ssh://(?:({_WORD})@)?({_WORD})(?::(\d{{1,5}}))?/(.+)", re.ASCII)
_SHORT = re.compile(rf"({_WORD})@({_WORD}):(.+)", re.ASCII)
_HTTP = re.compile(rf"(https?)://({_WORD})(?::(\d{{1,5}}))?/(.+)", re.ASCII)


class Address(NamedTuple):
    """A remote's URL taken apart. `kind` is `ssh`, `https`, `http` or `local`; `port` 0 is the usual one; `path` has no first slash
    and no `.git`, but a local one is as it was written."""

    kind: str
    host: str
    path: str
    user: str = ""
    port: int = 0
    absolute: bool = True
    """Whether an ssh path begins at the server's root; else in the user's folder."""


def parse(url: str) -> Address:
    """What `url` means; it was checked when the manifest was."""
    if url.startswith("/"):
        return Address("local", "", url)
    if match := _HTTP.fullmatch(url):
        return Address(match[1], match[2].lower(), _bare(match[4]), port=int(match[3] or 0))
    if match := _SSH.fullmatch(url):
        return Address("ssh", match[2].lower(), _bare(match[4]), match[1] or "git", int(match[3] or 0))
    if match := _SHORT.fullmatch(url):
        path = match[3]
        return Address(
            "ssh", match[2].lower(), _bare(path.lstrip("/")), match[1], absolute=path.startswith("/")
        )
    raise ValueError(url)


def _bare(path: str) -> str:
    return path.rstrip("/").removesuffix(".git")


def gate_url(name: str) -> str:
    """Where the agent's git finds the remote, inside."""
    return f"{GIT_URL}/{name}.git"


def spellings(url: str) -> tuple[str, ...]:
    """What people and tools write for the same repository: over ssh, scp-like, over https; with and without `.git`."""
    where = parse(url)
    if where.kind == "local":
        return (url, f"file://{url}")
    user = where.user or "git"
    port = f":{where.port}" if where.port else ""
    hosts = [where.host + port, *([where.host] if port else [])]
    found = [url]
    for host in hosts:
        found += [f"{scheme}://{host}/{where.path}" for scheme in ("https", "http", "ssh", "git")]
        found += [f"{scheme}://{user}@{host}/{where.path}" for scheme in ("ssh", "https")]
    if not port and where.kind == "ssh":
        found.append(f"ssh://{user}@{where.host}:22/{where.path}")
    found += [f"{user}@{where.host}:{where.path}", f"{where.host}:{where.path}"]
    plain = dict.fromkeys(_bare(one) for one in found)
    return tuple(one + end for one in plain for end in (".git", ""))


def gate(bottle: BottleDocument, *, data_root: str, state: str) -> GitGate | None:
    """What the git gate serves; None when the bottle has no remote."""
    items = bottle["git"]["remotes"]
    if not items:
        return None
    return GitGate(
        remotes=tuple(_remote(item, bottle["credentials"], data_root) for item in items),
        folder=f"{state}/git",
        signing_key=signing["key"] if (signing := bottle["git"]["signing"]) else "",
    )


def _remote(
    item: GitRemoteDocument, credentials: Mapping[str, CredentialDocument], data_root: str
) -> GitRemote:
    found = credentials.get(item["credential"] or "")
    credential = None
    if found and item["credential"]:
        credential = Credential(
            item["credential"],
            found["source"],
            found["scheme"],
            found["name"],
            found["prefix"],
            found["user"],
        )
    access = (item["url"], item["key"] or "", item["known_host"] or "", *(credential or ()))
    return GitRemote(
        name=item["name"],
        url=item["url"],
        mirror=f"{data_root}/git/{sha256_hex(repr(access).encode())[:32]}.git",
        key=item["key"] or "",
        known_host=item["known_host"] or "",
        credential=credential,
        rules=rules(item),
    )


def rules(item: GitRemoteDocument) -> GitRules:
    """What the bottle may do with the remote."""
    return GitRules(
        push=tuple(item["push"]),
        tags=tuple(item["tags"]),
        force=_full(item["force"]),
        delete=_full(item["delete"]),
        paths=tuple(item["paths"]),
        gitleaks=item["gitleaks"],
        authors=tuple(item["authors"]),
        max_file=item["max_file"],
        max_push=item["max_push"],
    )


def _full(patterns: Sequence[str]) -> tuple[str, ...]:
    """A short pattern means a branch or a tag of that name."""
    return tuple(
        full
        for pattern in patterns
        for full in ((pattern,) if pattern.startswith("refs/") else (BRANCHES + pattern, TAGS + pattern))
    )


def problems(bottle: BottleDocument) -> Iterator[str]:
    """What of the remotes can't be kept, one sentence each."""
    taken: dict[str, str] = {}
    if bottle["git"]["signing"] and not bottle["git"]["remotes"]:
        yield "git.signing: the git gate signs, and there is none without `git.remotes`"
    for item in bottle["git"]["remotes"]:
        where = f"git.remotes: {item['name']}"
        yield from (f"{where}: {wrong}" for wrong in _wrong(item, bottle["credentials"]))
        for spelling in spellings(item["url"]):
            other = taken.setdefault(spelling, item["name"])
            if other != item["name"]:
                yield f"{where}: the agent's git could not tell it from {other} ({spelling})"
                break


def _wrong(item: GitRemoteDocument, credentials: Mapping[str, CredentialDocument]) -> Iterator[str]:
    kind = parse(item["url"]).kind
    if kind == "local" and not item["local"]:
        yield "its url is a folder of this host; that takes `local: true`"
    if kind != "local" and item["local"]:
        yield "`local: true` is for folders of this host"
    if kind == "http":
        yield "http:// is not taken: what is fetched could be anybody's; write https://"
    if kind == "ssh":
        for key, what in (("key", "the private key's file"), ("known_host", "the server's public key")):
            if not item[key]:  # type: ignore[literal-required]
                yield f"ssh needs `{key}:`, {what}"
    elif item["key"] or item["known_host"]:
        yield "`key` and `known_host` are for ssh"
    yield from _wrong_credential(item["credential"], kind, credentials)


def _wrong_credential(
    name: str | None, kind: str, credentials: Mapping[str, CredentialDocument]
) -> Iterator[str]:
    if not name:
        return
    found = credentials.get(name)
    if kind != "https":
        yield "`credential` is for https"
    elif found is None:
        yield f"`{name}` is not in `credentials:`; add it there"
    elif found["source"].startswith("oauth:"):
        yield f"`{name}` is a login that is renewed; a token or a password is what the gate can use"
    elif found["scheme"] == "query" or (
        found["scheme"] == "header" and found["name"].lower() != "authorization"
    ):
        yield f"`{name}` goes out as {found['name']}; git servers take `basic: USER` or `bearer: true`"
