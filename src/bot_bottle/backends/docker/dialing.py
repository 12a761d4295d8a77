"""The engine that is meant, as `wire.Engine` speaks to it: over its socket here, by TLS, or through ssh."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping

from bot_bottle.backends.docker import endpoint
from bot_bottle.backends.docker.wire import PATIENCE, Engine
from bot_bottle.errors import HostError
from bot_bottle.host import files, paths
from bot_bottle.typed import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from bot_bottle.backends.docker.ssh import Dialer

_TLS_PORT, _PLAIN_PORT = 2376, 2375


def engine_at(meant: endpoint.Endpoint, environ: Mapping[str, str], *, folder: str = "") -> Engine:
    """Nothing is connected yet. `folder` is of the caller's own, for what is shared by connections.

    Raises HostError when it can't be spoken to at all.
    """
    if meant.scheme == "unix":
        return Engine(meant.host.removeprefix("unix://"))
    if meant.scheme == "tcp":
        return _OverTcp(meant)
    from bot_bottle.backends.docker import ssh

    return _OverSsh(meant, ssh.Dialer(ssh.read(meant.host), environ, folder=folder))


class Traits(NamedTuple):
    """What of an engine decides how bottles are made on it.

    `local`: folders and descriptors can be shared with its containers, as it is on this kernel, and its users are this host's. A
    unix socket can lead into a virtual machine, too. In the containers of a rootless engine, or of one that maps users, none but
    root could be the owner of a folder of the operator's. `limits` are those that it keeps.
    """

    local: bool
    limits: tuple[str, ...]
    podman: bool = False
    """It is Podman's service, which is told some things otherwise: see decision 0041."""


LIMITS: Final = (("MemoryLimit", "memory"), ("CpuCfsQuota", "cpus"), ("PidsLimit", "pids"))
"""What an engine says of each limit, and what the bottle's file calls it."""


def traits(engine: Engine) -> Traits:
    """What `engine` is. Raises HostError, EngineRefusal.

    An engine starts two programs to say this, so the answer is remembered for the socket: another has another inode, or
    another time. One that was wrong would fail to hand over what it can't, and let nothing through; then it is forgotten,
    since an engine that was set up anew may have its old socket (systemd holds Docker's).
    """
    here = type(engine) is Engine
    mark, path = _mark(engine.path) if here else "", _memory()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(files.read(path))
        if mark and known["mark"] == mark:
            return Traits(known["local"] is True, tuple(map(str, known["limits"])), known["podman"] is True)
    info: Any = engine.call("GET", "/info", what="say what it is")
    found = read(info if isinstance(info, Mapping) else {}, here=here)
    if mark:
        with contextlib.suppress(OSError):
            os.makedirs(paths.cache_root(), mode=0o700, exist_ok=True)
            files.write(path, json.dumps({"mark": mark, **found._asdict()}).encode())
    return found


def forget() -> None:
    """A bottle could not be made: the next one asks its engine anew."""
    with contextlib.suppress(OSError):
        os.unlink(_memory())


def _memory() -> str:
    return os.path.join(paths.cache_root(), "engine.json")


def read(info: Mapping[str, Any], *, here: bool) -> Traits:
    """What an engine's answer to /info means; `here`: it is spoken to over a socket of this machine. Pure."""
    options = " ".join(map(str, info.get("SecurityOptions") or ()))
    maps = "name=rootless" in options or "name=userns" in options
    local = here and not maps and info.get("KernelVersion") == os.uname().release
    limits = tuple(name for key, name in LIMITS if info.get(key))
    return Traits(local, limits, podman="BuildahVersion" in info)


PODMAN_FAR = "Podman's service holds bottles only as root, on this machine"


def refuse_far_podman(found: Traits, bundle: str) -> None:
    """Raises HostError where a bundle would have to be a container of Podman's: for a rootless one, one elsewhere, or by wish."""
    if found.podman and (not found.local or bundle == "container"):
        raise HostError(
            PODMAN_FAR, details="What is needed where sockets can't be shared was not made for it.",
            resolution="Use root's (DOCKER_HOST=unix:///run/podman/podman.sock) without `bundle: container`, a Docker engine, or "
            "backend: namespace.",
        )  # fmt: skip


def _mark(path: str) -> str:
    """What tells this socket, since this start of the machine, from any other; empty where that can't be told."""
    try:
        found = os.stat(path)
        boot = files.read("/proc/sys/kernel/random/boot_id").decode().strip()
    except OSError:
        return ""
    return f"{boot} {path} {found.st_dev} {found.st_ino} {found.st_ctime_ns}"


class _OverTcp(Engine):
    def __init__(self, meant: endpoint.Endpoint) -> None:
        super().__init__(meant.host)
        host, _, port = meant.host.removeprefix("tcp://").rstrip("/").rpartition(":")
        if not host:
            host, port = port, ""
        if port and not port.isdigit():
            raise HostError(f"{meant.host!r} is no Docker host", resolution="It is tcp://HOST:PORT.")
        self._host = host.strip("[]")
        self._port = int(port or (_TLS_PORT if meant.tls else _PLAIN_PORT))
        self._meant = meant

    def dial(self) -> socket.socket:
        try:
            sock = socket.create_connection((self._host, self._port), timeout=PATIENCE)
            return self._wrapped(sock, self._meant.tls) if self._meant.tls else sock
        except OSError as error:
            raise self.trouble(error) from error

    def _wrapped(self, sock: socket.socket, tls: endpoint.Tls) -> socket.socket:
        import ssl  # 15 ms, and only here

        try:
            context = ssl.create_default_context(cafile=tls.ca if os.path.isfile(tls.ca) else None)
            if not tls.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if os.path.isfile(tls.cert):
                context.load_cert_chain(tls.cert, tls.key)
            return context.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise

    def trouble(self, error: OSError) -> HostError:
        silent = isinstance(error, TimeoutError)
        return HostError(
            f"The engine at {self.path} does not answer" if silent else f"No engine answers at {self.path}",
            details=f"{error}\nIt was chosen by {self._meant.source}.",
            resolution="See whether it runs there, and whether DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are right.",
        )


class _OverSsh(Engine):
    def __init__(self, meant: endpoint.Endpoint, dialer: "Dialer") -> None:
        super().__init__(meant.host)
        self._meant = meant
        self._dialer = dialer

    def dial(self) -> socket.socket:
        try:
            sock = self._dialer.dial()
        except OSError as error:
            raise self.trouble(error) from error
        sock.settimeout(PATIENCE)
        return sock

    def trouble(self, error: OSError) -> HostError:
        from bot_bottle.backends.docker.engine import ssh_trouble

        said = self._dialer.said()
        return ssh_trouble(self._meant, said or str(error))

    def close(self) -> None:
        self._dialer.close()
