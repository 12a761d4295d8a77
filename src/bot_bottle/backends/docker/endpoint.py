"""Which engine is meant, by the rules of Docker's own command line: `DOCKER_HOST`, a context, else a socket that is there.

Nothing is connected here. A context's files are read, and whether a socket exists; `environ` says all the rest.
"""

import json
import os
from collections.abc import Iterator, Mapping

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import HostError
from bot_bottle.typed import Any, NamedTuple

DEFAULT_SOCKET = "/var/run/docker.sock"


class Tls(NamedTuple):
    """Paths of PEM files; `verify` is whether the engine's own certificate has to be right."""

    ca: str
    cert: str
    key: str
    verify: bool = True


class Endpoint(NamedTuple):
    """`host` as `DOCKER_HOST` would say it; `source` is where that comes from, in words."""

    host: str
    source: str
    tls: Tls | None = None

    @property
    def scheme(self) -> str:
        """`unix`, `tcp`, `ssh`, …"""
        return self.host.partition("://")[0]


def find(environ: Mapping[str, str]) -> Endpoint:
    """The endpoint that is meant. Raises HostError when it can't be told."""
    if host := environ.get("DOCKER_HOST"):
        return Endpoint(_spelled(host), "DOCKER_HOST", _tls_of(environ, host))
    name = environ.get("DOCKER_CONTEXT") or _current_context(environ)
    if name and name != "default":
        return _context(environ, name)
    for path, whose in sockets(environ):
        if os.path.exists(path):
            return Endpoint(f"unix://{path}", whose)
    return Endpoint(f"unix://{DEFAULT_SOCKET}", "Docker's own socket")


def again(host: str, environ: Mapping[str, str]) -> Endpoint:
    """The endpoint at which a run was made before, with the certificates that are for it now. Raises HostError."""
    meant = find(environ)
    return meant if meant.host == host else Endpoint(host, "the bottle's record", _tls_of(environ, host))


def sockets(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where an engine listens when nobody has said otherwise, and whose that is; the first that exists is taken."""
    yield DEFAULT_SOCKET, "Docker's own socket"
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "docker.sock"), "the rootless Docker's socket"
    if home := environ.get("HOME"):
        yield os.path.join(home, ".docker/run/docker.sock"), "Docker Desktop's socket"
        yield os.path.join(home, ".docker/desktop/docker.sock"), "Docker Desktop's socket"
    if runtime:
        yield os.path.join(runtime, "podman/podman.sock"), "Podman's socket"
    yield "/run/podman/podman.sock", "Podman's socket"


def _spelled(host: str) -> str:
    if "://" not in host:
        return f"unix://{host}" if host.startswith("/") else f"tcp://{host}"
    scheme, _, rest = host.partition("://")
    if scheme in ("http", "https"):
        return f"tcp://{rest}"
    if scheme not in ("unix", "tcp", "ssh") or not rest:
        raise HostError(
            f"{host!r} is no Docker host",
            resolution="DOCKER_HOST is unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST.",
        )
    return host


def _tls_of(environ: Mapping[str, str], host: str) -> Tls | None:
    """What `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` say: set, and not empty, means on."""
    asked, folder = bool(environ.get("DOCKER_TLS_VERIFY")), environ.get("DOCKER_CERT_PATH", "")
    on = asked or (folder and host.startswith(("tcp://", "https://")))
    if not on or host.startswith(("unix://", "/", "ssh://")):
        return None
    folder = folder or _config_folder(environ)
    return _certificates(folder, verify=asked)


def _certificates(folder: str, *, verify: bool) -> Tls:
    ca, cert, key = (os.path.join(folder, name) for name in ("ca.pem", "cert.pem", "key.pem"))
    return Tls(ca, cert, key, verify)


def _config_folder(environ: Mapping[str, str]) -> str:
    return environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or "/nonexistent", ".docker")


def _current_context(environ: Mapping[str, str]) -> str:
    path = os.path.join(_config_folder(environ), "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise HostError(f"{path} can't be read", details=str(error)) from error
    return str(config.get("currentContext") or "") if isinstance(config, dict) else ""


def _context(environ: Mapping[str, str], name: str) -> Endpoint:
    """The context called `name`, from the files in which `docker context` keeps it."""
    folder = os.path.join(_config_folder(environ), "contexts")
    digest = sha256_hex(name.encode())
    try:
        with open(os.path.join(folder, "meta", digest, "meta.json"), encoding="utf-8") as file:
            docker: Any = json.load(file)["Endpoints"]["docker"]
        host, verify = str(docker["Host"]), not docker.get("SkipTLSVerify", False)
    except FileNotFoundError as error:
        raise HostError(
            f"There is no Docker context {name!r}",
            resolution="docker context ls shows those that there are; DOCKER_CONTEXT or docker context use chooses.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(f"The Docker context {name!r} can't be read", details=str(error)) from error
    files = os.path.join(folder, "tls", digest, "docker")
    tls = None
    if os.path.isdir(files):
        tls = _certificates(files, verify=verify)
    return Endpoint(_spelled(host), f"the Docker context {name!r}", tls)
