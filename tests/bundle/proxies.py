"""Proxies that a company might have: a real one (tinyproxy), and a small one that does whatever a test wants."""

import contextlib
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bundle.harness import Server, read_head, until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def tinyproxy(folder: Path, *names: str, login: str = "") -> Iterator[int]:
    """A real proxy on the loopback, for which `names` are this host; `login` is what it asks for (`USER PASSWORD`)."""
    port, hosts, config = free_port(), folder / "hosts", folder / "tinyproxy.conf"
    hosts.write_text(f"127.0.0.1 localhost {' '.join(names)}\n")
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 50", "LogLevel Critical"]
    config.write_text("\n".join([*lines, *([f"BasicAuth {login}"] if login else []), ""]))
    program = shutil.which("tinyproxy") or "tinyproxy"
    argv = [
        "bwrap",
        "--dev-bind",
        "/",
        "/",
        "--ro-bind",
        hosts,
        "/etc/hosts",
        "--die-with-parent",
        program,
        "-d",
        "-c",
        config,
    ]
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.defpath}
    )
    try:
        until(lambda: answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(20)


class Forwarder:
    """A proxy that sends every CONNECT to `port` of this host; `heads` are the requests that it saw."""

    def __init__(self, port: int, *, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.port = port
        self.answer = answer
        self.heads: list[bytes] = []

    def __call__(self, sock: socket.socket) -> None:
        head, _ = read_head(sock)
        self.heads.append(head)
        if not head.startswith(b"CONNECT "):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
            return
        with socket.create_connection(("127.0.0.1", self.port)) as upstream:
            sock.sendall(self.answer)
            relay(sock, upstream)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Until both directions have ended."""
    peers = {one: other, other: one}
    while peers:
        # TLS may hold bytes that the socket does not show any more.
        held = [sock for sock in peers if getattr(sock, "pending", int)()]
        for sock in held or select.select(list(peers), [], [], 20)[0]:
            data = sock.recv(65536)
            peer = other if sock is one else one
            if data:
                peer.sendall(data)
                continue
            del peers[sock]
            with contextlib.suppress(OSError):
                (peer.unwrap() if hasattr(peer, "unwrap") else peer).shutdown(socket.SHUT_WR)


def serving(handle: Callable[[socket.socket], None]) -> Server:
    return Server(handle)
