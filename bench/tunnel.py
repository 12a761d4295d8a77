"""Measures the tunnel: kept-alive requests and one big download through CONNECT, beside direct connections.

Load generator, server and bundle are processes of their own. The generator and the server use sockets and epoll, so that what
is compared is the way between them and not two HTTP libraries. They speak TLS, as everything in this tunnel does (with
anonymous keys, so that no certificate is needed); `bare_…` is the same without, which costs the two ends next to nothing.
Run alone it prints what `measure` gives.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import ssl
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bot_bottle.bundle import main as bundle
from bot_bottle.bundle.model import BundleConfig
from bot_bottle.door.inside import open_listeners
from bot_bottle.door.model import PROXY_ADDRESS, PROXY_PORT, STANDARD
from bot_bottle.door.passing import send_listeners
from bot_bottle.policy.model import EgressPolicy, Route, Upstream

CONNECTIONS = 32
BODY = 1024
DOWNLOAD = 1 << 30
TLS_HOST, BARE_HOST = "tls.example", "bare.example"
_REQUEST = b"GET / HTTP/1.1\r\nhost: bench.example\r\n\r\n"
_BIG_REQUEST = b"GET /big HTTP/1.1\r\nhost: bench.example\r\n\r\n"
_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BODY + bytes(BODY)
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


class Ends(NamedTuple):
    """Where connections of one kind go: to the server itself, or by its name through the tunnel."""

    host: str
    port: int


def measure(*, rounds: int = 20, bare_rounds: int = 5, seconds: float = 0.4) -> dict[str, Any]:
    """Medians over `rounds`, direct and tunnel in turn; then one download of 1 GiB each way of going."""
    with contextlib.ExitStack() as stack:
        listening = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256)) for _ in range(2)
        ]
        tls = Ends(TLS_HOST, listening[0].getsockname()[1])
        bare = Ends(BARE_HOST, listening[1].getsockname()[1])
        stack.enter_context(forked(lambda: _server(listening[0], anonymous(server=True))))
        stack.enter_context(forked(lambda: _server(listening[1], None)))
        line, bundles_line = socket.socketpair()
        door, bundles_door = socket.socketpair()
        inside, generators = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (line, bundles_line, door, bundles_door, inside, generators):
            stack.enter_context(sock)
        config = _config(tls, bare)
        pid = stack.enter_context(
            forked(lambda: bundle.serve(config, door=bundles_door, keeper=bundles_line))
        )
        stack.enter_context(forked(lambda: _inside(door, generators)))
        if b'"ready"' not in line.recv(65536):
            raise RuntimeError("the bundle did not start")
        _ask(inside, "rate", tls, 0.2)
        found = _compare(inside, tls, rounds, seconds)
        found |= {f"bare_{key}": value for key, value in _compare(inside, bare, bare_rounds, seconds).items()}
        return found | _downloads(inside, pid, bare)


def _config(*ends: Ends) -> BundleConfig:
    routes = [
        Route(host=end.host, port=443, upstream=Upstream(host="127.0.0.1", port=end.port)) for end in ends
    ]
    policy = EgressPolicy(routes=tuple(routes))
    return BundleConfig(
        run="bench", keeper=os.getpid(), policy=policy, listeners=STANDARD, uid=65534, gid=65534
    )


def _compare(inside: socket.socket, ends: Ends, rounds: int, seconds: float) -> dict[str, Any]:
    direct: list[float] = []
    tunnel: list[float] = []
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(_connect(ends)) for _ in range(CONNECTIONS)]
            direct.append(_rate(opened, seconds))
        tunnel.append(_ask(inside, "rate", ends, seconds))
    return {
        "rounds": rounds,
        "direct_requests_per_second": round(statistics.median(direct)),
        "tunnel_requests_per_second": round(statistics.median(tunnel)),
        "ratio": round(statistics.median(t / d for t, d in zip(tunnel, direct, strict=True)), 3),
    }


def _downloads(inside: socket.socket, pid: int, ends: Ends) -> dict[str, Any]:
    before = _memory(pid, "VmRSS")
    through = _ask(inside, "download", ends, 0)
    peak = _memory(pid, "VmHWM")
    with _connect(ends) as sock:
        straight = _download(sock)
    return {
        "direct_megabytes_per_second": round(straight),
        "tunnel_megabytes_per_second": round(through),
        "bundle_kib_before_download": before,
        "bundle_kib_peak": peak,
    }


@contextlib.contextmanager
def forked(run: Callable[[], None]) -> Iterator[int]:
    """Runs `run` in a forked process, which is gone afterwards."""
    pid = os.fork()
    if not pid:
        try:
            run()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def _ask(inside: socket.socket, what: str, ends: Ends, seconds: float) -> float:
    inside.send(json.dumps([what, list(ends), seconds]).encode())
    answer = inside.recv(1000)
    if not answer:
        raise RuntimeError("the load generator ended")
    return float(json.loads(answer))


def _inside(door: socket.socket, asked: socket.socket) -> None:
    """The generator in the bottle's place: a network namespace with nothing but the door."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK | (_NEW_USER if os.geteuid() else 0)):
        raise OSError(ctypes.get_errno(), "unshare")
    listeners = open_listeners(STANDARD)
    send_listeners(door, listeners)
    for sock in listeners:
        sock.close()
    while request := asked.recv(1000):
        what, ends, seconds = json.loads(request)
        with contextlib.ExitStack() as stack:
            count = CONNECTIONS if what == "rate" else 1
            opened = [stack.enter_context(_connect_through(Ends(*ends))) for _ in range(count)]
            answer = _rate(opened, seconds) if what == "rate" else _download(opened[0])
        asked.send(json.dumps(answer).encode())


def anonymous(*, server: bool) -> ssl.SSLContext:
    """TLS with anonymous keys: the cheapest handshake there is, so that what lies between the ends weighs most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if not server:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
    return context


def _connect(ends: Ends) -> socket.socket:
    return _begin(socket.create_connection(("127.0.0.1", ends.port)), ends)


def _connect_through(ends: Ends) -> socket.socket:
    sock = socket.create_connection((PROXY_ADDRESS, PROXY_PORT))
    authority = f"{ends.host}:443"
    sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    if not sock.recv(1000).startswith(b"HTTP/1.1 200 "):
        raise RuntimeError("CONNECT was refused")
    return _begin(sock, ends)


def _begin(sock: socket.socket, ends: Ends) -> socket.socket:
    """TLS; or the bare hello that the bundle wants to see first, which the bare server skips."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if ends.host == TLS_HOST:
        return anonymous(server=False).wrap_socket(sock, server_hostname=ends.host)
    sock.sendall(_hello(ends.host.encode()))
    return sock


def _hello(host: bytes) -> bytes:
    name = struct.pack("!HBH", 3 + len(host), 0, len(host)) + host
    extensions = struct.pack("!HH", 0, len(name)) + name
    body = b"\3\3" + bytes(33) + b"\0\2\x13\1\1\0" + struct.pack("!H", len(extensions)) + extensions
    return b"\x16\3\1" + struct.pack("!HBBH", 4 + len(body), 1, 0, len(body)) + body


def _rate(connections: list[socket.socket], seconds: float) -> float:
    """Requests a second over `connections`, each with one request under way."""
    by_number = {sock.fileno(): sock for sock in connections}
    missing = dict.fromkeys(by_number, len(_RESPONSE))
    ready = select.epoll()
    for number, sock in by_number.items():
        ready.register(number, select.EPOLLIN)
        sock.sendall(_REQUEST)
    done = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for number, _ in ready.poll(1.0):
            left = missing[number] - len(by_number[number].recv(65536))
            if not left:
                done += 1
                by_number[number].sendall(_REQUEST)
            missing[number] = left or len(_RESPONSE)
    return done / (time.perf_counter() - began)


def _download(sock: socket.socket) -> float:
    """MB/s of one big download."""
    buffer = bytearray(1 << 18)
    began = time.perf_counter()
    sock.sendall(_BIG_REQUEST)
    left = DOWNLOAD
    while left > 0:
        left -= sock.recv_into(buffer)
    return DOWNLOAD / 1e6 / (time.perf_counter() - began)


def _server(listening: socket.socket, context: ssl.SSLContext | None) -> None:
    """Answers every request that ends in an empty line, whatever stands before it."""
    ready = select.epoll()
    ready.register(listening.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for number, _ in ready.poll():
            if number == listening.fileno():
                sock, _ = listening.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                connections[sock.fileno()] = sock
                ready.register(sock.fileno(), select.EPOLLIN)
                continue
            sock = connections[number]
            try:
                data = sock.recv(65536)
                if data.endswith(_BIG_REQUEST):
                    _send_big(sock)
                elif data.endswith(b"\r\n\r\n"):
                    sock.sendall(_RESPONSE)
            except OSError:
                data = b""
            if not data:
                ready.unregister(number)
                connections.pop(number).close()


def _send_big(sock: socket.socket) -> None:
    piece = bytes(1 << 18)
    for _ in range(DOWNLOAD // len(piece)):
        sock.sendall(piece)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
