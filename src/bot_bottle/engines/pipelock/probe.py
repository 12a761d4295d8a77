"""Whether what listens on the port is our pipelock, and whether it refuses what nobody allowed: asked before it is relied on."""

import os
import socket

from bot_bottle.errors import HostError
from bot_bottle.host import files

HOST = "bot-bottle-probe.invalid"
"""A name that can't exist (RFC 2606) and that no policy can name: every request for it has to be refused."""

_REQUESTS = (
    f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n",
    f"GET http://{HOST}/health HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n",
)
"""The second asks, as a plain request for another host, for a page that pipelock has itself."""
REFUSALS = len(_REQUESTS)
_SECONDS = 5.0
_LISTENING = "0A"


def accepts(port: int) -> bool:
    """Whether anything accepts on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def check_owner(port: int, uid: int) -> None:
    """Raises HostError unless the one listener on the port is a process of `uid`: another user may have been quicker."""
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in files.read("/proc/net/tcp").decode("ascii", "replace").splitlines()[1:]]
    owners = [int(line[7]) for line in lines if line[1] == wanted and line[3] == _LISTENING]
    if owners != [uid]:
        raise HostError(
            "Another program took the port of pipelock",
            details=f"port {port} belongs to {', '.join(map(str, owners)) or 'nobody'}, not to user {uid}",
        )


def check_refusals(port: int) -> None:
    """Raises HostError unless every request of the probe is refused with 403."""
    for request in _REQUESTS:
        status = _ask(port, request)
        if status != "403":
            line = request.partition("\r\n")[0]
            raise HostError(
                "Pipelock does not refuse what nobody allowed",
                details=f"{line}: it answered {status or 'nothing'}, not 403",
                resolution="Use the version that bot-bottle doctor names.",
            )


def _ask(port: int, request: str) -> str:
    """The status of the answer; empty when there is none."""
    heard = b""
    try:
        with socket.create_connection(("127.0.0.1", port), _SECONDS) as sock:
            sock.sendall(request.encode("ascii"))
            while b"\r\n" not in heard and len(heard) < 4096 and (data := sock.recv(4096)):
                heard += data
    except OSError:
        return ""
    words = heard.partition(b"\r\n")[0].split(b" ")
    return words[1].decode("ascii", "replace") if len(words) > 1 and words[0].startswith(b"HTTP/1.") else ""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def own_uid(uid: int) -> int:
    """Who a child is that was to become `uid`: only root can make it somebody else."""
    return uid if os.geteuid() == 0 else os.geteuid()
