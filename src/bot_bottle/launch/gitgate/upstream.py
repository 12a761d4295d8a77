"""How git enters an upstream: which settings, which files, for each kind of address. Pure.

Everything that could lead elsewhere, ask somebody or use what is not this remote's is off: no configuration of the person's, no
agent, no other key, no other host key, no proxy command, no redirect.
"""

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from bot_bottle.plan.remotes import parse

FOLDER = "/tmp"  # noqa: S108 - the courier's own, in memory
_SSH = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "IdentityAgent=none",
    "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "PermitLocalCommand=no", "ProxyCommand=none", "ProxyJump=none",
    "UpdateHostKeys=no", "VerifyHostKeyDNS=no", "CheckHostIP=no", "CanonicalizeHostname=no", "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no", "HostbasedAuthentication=no", "GSSAPIAuthentication=no", "PKCS11Provider=none",
    "SecurityKeyProvider=none", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4", "LogLevel=ERROR",
    "RequestTTY=no", "EscapeChar=none", "ControlMaster=auto", "ControlPersist=60",
)  # fmt: skip


class Way(NamedTuple):
    """`url` as git is given it, `settings` for it, `files` with what they hold; both may hold secrets: never on a command line."""

    url: str
    settings: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, bytes], ...] = ()
    more: tuple[tuple[str, str], ...] = ()


def way(remote: Mapping[str, Any], *, ca: str = "", proxy: Mapping[str, str] | None = None) -> Way:
    """`remote` is the keeper's order for it: `name`, `url`, and of `key`, `known_host`, `authorization` what there is."""
    where = parse(remote["url"])
    if where.kind == "local":
        return Way(where.path, (("protocol.file.allow", "always"),))
    if where.kind == "ssh":
        return _ssh(remote)
    name = remote["name"]
    settings = [("protocol.https.allow", "always"), ("http.followRedirects", "false"), ("http.sslVerify", "true"),
                ("http.postBuffer", "1048576"), ("http.lowSpeedLimit", "1"), ("http.lowSpeedTime", "60")]  # fmt: skip
    files = []
    if ca:
        settings.append(("http.sslCAInfo", f"{FOLDER}/ca.pem"))
        files.append((f"{FOLDER}/ca.pem", ca.encode()))
    secret = ""
    if remote.get("authorization"):
        secret += f'[http "{remote["url"]}"]\n\textraHeader = {_quoted("Authorization: " + remote["authorization"])}\n'
    if proxy:
        secret += f"[http]\n\tproxy = {_quoted(proxy['url'])}\n\tproxyAuthMethod = basic\n"
        if proxy.get("authorization"):
            secret = secret.replace(
                _quoted(proxy["url"]), _quoted(_with_login(proxy["url"], proxy["authorization"]))
            )
    else:
        settings.append(("http.proxy", ""))
    if secret:
        files.append((f"{FOLDER}/{name}.config", secret.encode()))
    more = (("GIT_CONFIG_GLOBAL", f"{FOLDER}/{name}.config"),) if secret else ()
    return Way(remote["url"], tuple(settings), tuple(files), more)


def _ssh(remote: Mapping[str, Any]) -> Way:
    where = parse(remote["url"])
    known = f"{FOLDER}/{remote['name']}.known"
    name = f"[{where.host}]:{where.port}" if where.port not in (0, 22) else where.host
    options = (*_SSH, f"UserKnownHostsFile={known}", f"IdentityFile={remote['key']}",
               f"ControlPath={FOLDER}/{remote['name']}.ssh", f"HostKeyAlgorithms={_algorithms(remote['known_host'])}")  # fmt: skip
    command = "ssh -F none " + " ".join(f"-o {option}" for option in options)
    settings = (("core.sshCommand", command), ("ssh.variant", "ssh"), ("protocol.ssh.allow", "always"))
    return Way(remote["url"], settings, ((known, f"{name} {remote['known_host']}\n".encode()),))


def _algorithms(key: str) -> str:
    kind = key.split()[0]
    return "rsa-sha2-512,rsa-sha2-256" if kind == "ssh-rsa" else kind


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _with_login(url: str, authorization: str) -> str:
    """A proxy's URL with the login of a basic Authorization in it, as curl wants it."""
    from urllib.parse import quote

    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return url
    user, _, password = base64.b64decode(value).decode().partition(":")
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"
