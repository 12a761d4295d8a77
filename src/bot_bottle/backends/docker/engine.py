"""The engine that bottles run on: found, connected, asked what it is. The only module that makes a client of the Docker SDK.

Whatever goes wrong on the way is a HostError that says which engine was meant, who meant it, and what to do.
"""

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bot_bottle.backends.docker import endpoint
from bot_bottle.errors import HostError

if TYPE_CHECKING:
    from docker import DockerClient

OLDEST_API = (1, 40)
"""Docker 19.03."""
ANSWER_WITHIN = 60.0
"""Seconds for an ordinary answer of the engine; what takes longer by its nature sets its own."""


class Engine(NamedTuple):
    """One engine, connected. `version` is its answer to /version."""

    client: "DockerClient"
    endpoint: endpoint.Endpoint
    local: bool
    """Whether it runs on this kernel: descriptors and folders of the host can be shared with its containers."""
    version: Mapping[str, Any]

    def describe(self) -> str:
        """In one line, for people."""
        name = _product(self.version)
        place = "here" if self.local else "elsewhere"
        return f"{name} {self.version.get('Version', '?')} at {self.endpoint.host} ({self.endpoint.source}), {place}"


def connect(environ: Mapping[str, str], *, timeout: float = ANSWER_WITHIN) -> Engine:
    """The engine that `environ` means, once it has answered. Raises HostError."""
    meant = endpoint.find(environ)
    if meant.scheme == "unix":
        _look(meant)
    client = _over_ssh(meant, environ, timeout) if meant.scheme == "ssh" else _client(meant, timeout)
    try:
        version = client.api.version(api_version=False)
        api = str(version["ApiVersion"])
        if tuple(int(part) for part in api.split(".")) < OLDEST_API:
            wanted = ".".join(map(str, OLDEST_API))
            raise HostError(
                f"The engine at {meant.host} is too old", details=f"It speaks API {api}; {wanted} is needed."
            )
    except HostError:
        client.close()
        raise
    except Exception as error:
        said = client.api._custom_adapter.dialer.said() if meant.scheme == "ssh" else ""
        client.close()
        raise (ssh_trouble(meant, said) if said else trouble(meant, error)) from error
    client.api._version = api  # the SDK would ask once more
    return Engine(client, meant, _is_local(meant, version), version)


def _look(meant: endpoint.Endpoint) -> None:
    """Whether anybody listens there: the SDK leaves a socket open where nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(meant.host.removeprefix("unix://"))
        except OSError as error:
            raise trouble(meant, error) from error


def _client(meant: endpoint.Endpoint, timeout: float) -> "DockerClient":
    import docker
    from docker.errors import DockerException
    from docker.tls import TLSConfig

    tls: Any = False
    if meant.tls:
        ca, cert, key, verify = meant.tls
        missing = [path for path in (ca, cert, key) if not os.path.isfile(path)]
        if missing and verify:
            raise HostError(
                f"The certificates for the engine at {meant.host} are not there", details="\n".join(missing),
                resolution="DOCKER_CERT_PATH names a folder with ca.pem, cert.pem and key.pem.",
            )  # fmt: skip
        tls = TLSConfig(client_cert=None if missing else (cert, key), ca_cert=ca, verify=verify)
    try:
        client = docker.DockerClient(base_url=meant.host, version="1.40", timeout=timeout, tls=tls)
    except DockerException as error:
        raise trouble(meant, error) from error
    client.api.trust_env = False  # neither a proxy nor a .netrc is meant for it
    return client


def _over_ssh(meant: endpoint.Endpoint, environ: Mapping[str, str], timeout: float) -> "DockerClient":
    """The SDK has its own way, which needs a library for it or gives sockets that are none."""
    import docker

    from bot_bottle.backends.docker import ssh

    dialer = ssh.Dialer(ssh.read(meant.host), environ)
    client = docker.DockerClient(base_url="http://localhost:1", version="1.40", timeout=timeout)
    api = client.api
    api._custom_adapter = ssh.Adapter(dialer, timeout=timeout)
    api.base_url = "http+docker://localhost"
    api.mount("http+docker://", api._custom_adapter)
    api._unmount("http://", "https://")
    api.trust_env = False
    return client


def ssh_trouble(meant: endpoint.Endpoint, said: str) -> HostError:
    """What ssh said, and what to do about it."""
    host = meant.host.removeprefix("ssh://")
    if "docker" in said and "not found" in said:
        return HostError(
            f"There is no docker command on {host}", details=said, resolution="Install Docker's there."
        )
    return HostError(
        f"The engine at {meant.host} can't be reached by ssh", details=said,
        resolution="ssh -o BatchMode=yes HOST docker version has to work: with a key, and a known host key.",
    )  # fmt: skip


def _is_local(meant: endpoint.Endpoint, version: Mapping[str, Any]) -> bool:
    """A unix socket can lead into a virtual machine (Docker Desktop, Colima): then it has a kernel of its own."""
    return meant.scheme == "unix" and version.get("KernelVersion") == os.uname().release


def _product(version: Mapping[str, Any]) -> str:
    parts = [str(part.get("Name", "")) for part in version.get("Components") or () if isinstance(part, dict)]
    return "Podman" if any("podman" in part.lower() for part in parts) else "Docker"


def trouble(meant: endpoint.Endpoint, error: BaseException, *, what: str = "") -> HostError:
    """What went wrong with the engine, by kind; `what` is said of an answer that is a refusal."""
    causes = list(_causes(error))
    details = str(causes[-1]) or type(causes[-1]).__name__
    if any(isinstance(cause, PermissionError) for cause in causes):
        return HostError(
            f"The engine at {meant.host} refuses this user", details=details,
            resolution="Join the group that owns its socket (usually `docker`), or use a rootless engine (DOCKER_HOST).",
        )  # fmt: skip
    explanation = next(
        (str(getattr(one, "explanation", "")) for one in causes if getattr(one, "explanation", "")), ""
    )
    if explanation or what:
        return HostError(
            what or f"The engine at {meant.host} refused", details=str(explanation or details),
            resolution="bot-bottle doctor shows what the engine offers." if not what else "",
        )  # fmt: skip
    return HostError(
        f"No engine answers at {meant.host}", details=f"{details}\nIt was chosen by {meant.source}.",
        resolution="Start Docker, or say by DOCKER_HOST or DOCKER_CONTEXT where the engine is.",
    )  # fmt: skip


def _causes(error: BaseException | None) -> "list[BaseException]":
    """`error` and what led to it, innermost last; urllib3 keeps some of it in its arguments."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        inside = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = error.__cause__ or error.__context__ or inside or getattr(error, "reason", None)
        error = error if isinstance(error, BaseException) else None
    return found
