"""Measures interception: requests that get a credential, new connections, and one big download, beside direct TLS connections.

Load generator, server and bundle are processes of their own, as in `tunnel.py`, whose parts are used. Both sides speak TLS 1.3
with certificates that are verified. Run alone it prints what `measure` gives.
"""

import contextlib
import ctypes
import datetime
import json
import os
import select
import socket
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import tunnel
from bot_bottle.bundle import main as bundle
from bot_bottle.bundle.model import BundleConfig, Injection
from bot_bottle.door.inside import open_listeners
from bot_bottle.door.model import STANDARD
from bot_bottle.door.passing import send_listeners
from bot_bottle.policy.model import EgressPolicy, Route, Upstream
from bot_bottle.secret import Secret

HOST = "bench.example"
ADDRESS = "192.0.2.1"
"""Every address is the door's in there; the name is in the hello."""

_BIG_HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % tunnel.DOWNLOAD


def measure(*, rounds: int = 10, seconds: float = 0.5, connections: int = 100) -> dict[str, Any]:
    """Medians over `rounds`, direct and intercepted in turn; `connections` new ones each; one download of 1 GiB each."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        certificate = _certificate(folder)
        os.environ["SSL_CERT_FILE"] = certificate
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        port = listening.getsockname()[1]
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, folder / "key.pem")
        stack.enter_context(tunnel._child(lambda: _server(listening, server)))
        line, bundles_line = socket.socketpair()
        door, bundles_door = socket.socketpair()
        inside, generators = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (line, bundles_line, door, bundles_door, inside, generators):
            stack.enter_context(sock)
        config = _config(port)
        pid = stack.enter_context(
            tunnel._child(lambda: bundle.serve(config, door=bundles_door, keeper=bundles_line))
        )
        authority = folder / "authority.pem"
        stack.enter_context(tunnel._child(lambda: _inside(door, generators, str(authority))))
        told = line.makefile("r")
        for said in map(json.loads, told):
            if "authority" in said:
                authority.write_text(said["authority"])
            if "failed" in said:
                raise RuntimeError(said["failed"])
            if "ready" in said:
                break
        time.sleep(0.5)  # it tidies up once it has said that it is ready
        idle = _pss(pid)
        direct = ssl.create_default_context(cafile=certificate)
        _ask(inside, "rate", 0.2)
        found = {"idle_pss_kib": idle} | _rates(inside, pid, direct, port, rounds, seconds)
        found |= _new_connections(inside, direct, port, connections)
        return found | _downloads(inside, pid, direct, port) | {"pss_kib_after": _pss(pid)}


def _config(port: int) -> BundleConfig:
    upstream = Upstream(host="127.0.0.1", port=port)
    route = Route(host=HOST, port=443, upstream=upstream, credential="key", methods=("GET",), paths=("/**",))
    return BundleConfig(
        run="bench",
        keeper=os.getpid(),
        policy=EgressPolicy(routes=(route,)),
        listeners=STANDARD,
        uid=65534,
        gid=65534,
        credentials={
            "key": Injection("header", "authorization", Secret("Bearer " + "k" * 40), Secret("k" * 40))
        },
    )


def _rates(
    inside: socket.socket, pid: int, context: ssl.SSLContext, port: int, rounds: int, seconds: float
) -> dict[str, Any]:
    direct: list[float] = []
    through: list[float] = []
    cpu: list[float] = []
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(_connect(context, port)) for _ in range(tunnel.CONNECTIONS)]
            direct.append(tunnel._rate(opened, seconds))
        before = _cpu(pid)
        rate = _ask(inside, "rate", seconds)
        through.append(rate)
        cpu.append((_cpu(pid) - before) * 1000 / (rate * seconds))
    return {
        "rounds": rounds,
        "direct_requests_per_second": round(statistics.median(direct)),
        "intercepted_requests_per_second": round(statistics.median(through)),
        "cpu_milliseconds_per_request": round(statistics.median(cpu), 3),
    }


def _new_connections(inside: socket.socket, context: ssl.SSLContext, port: int, count: int) -> dict[str, Any]:
    through = _ask(inside, "new", count)
    direct = _new(lambda: _connect(context, port), count)
    return {"direct_connection_ms_p50": round(direct, 2), "intercepted_connection_ms_p50": round(through, 2)}


def _downloads(inside: socket.socket, pid: int, context: ssl.SSLContext, port: int) -> dict[str, Any]:
    before = tunnel._memory(pid, "VmRSS")
    used = _cpu(pid)
    through = _ask(inside, "download", 0)
    used = _cpu(pid) - used
    peak = tunnel._memory(pid, "VmHWM")
    with _connect(context, port) as sock:
        straight = _download(sock)
    return {
        "direct_megabytes_per_second": round(straight),
        "intercepted_megabytes_per_second": round(through),
        "bundle_cpu_seconds_per_gib": round(used, 2),
        "bundle_kib_before_download": before,
        "bundle_kib_peak": peak,
    }


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ask(inside: socket.socket, what: str, number: float) -> float:
    inside.send(json.dumps([what, number]).encode())
    answer = inside.recv(1000)
    if not answer:
        raise RuntimeError("the load generator ended")
    return float(json.loads(answer))


def _inside(door: socket.socket, asked: socket.socket, authority: str) -> None:
    """The generator in the bottle's place."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(tunnel._NEW_NETWORK | (tunnel._NEW_USER if os.geteuid() else 0)):
        raise OSError(ctypes.get_errno(), "unshare")
    listeners = open_listeners(STANDARD)
    send_listeners(door, listeners)
    for sock in listeners:
        sock.close()
    context = None
    while request := asked.recv(1000):
        what, number = json.loads(request)
        context = context or ssl.create_default_context(cafile=authority)
        asked.send(json.dumps(_do(what, number, context)).encode())


def _do(what: str, number: float, context: ssl.SSLContext) -> float:
    if what == "new":
        return _new(lambda: _connect(context, 443, ADDRESS), int(number))
    with contextlib.ExitStack() as stack:
        count = tunnel.CONNECTIONS if what == "rate" else 1
        opened = [stack.enter_context(_connect(context, 443, ADDRESS)) for _ in range(count)]
        return tunnel._rate(opened, number) if what == "rate" else _download(opened[0])


def _new(connect: Any, count: int) -> float:
    """The median of milliseconds from nothing to a whole response."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        with connect() as sock:
            sock.sendall(tunnel._REQUEST)
            left = len(tunnel._RESPONSE)
            while left > 0:
                left -= len(sock.recv(65536))
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def _connect(context: ssl.SSLContext, port: int, address: str = "127.0.0.1") -> socket.socket:
    sock = socket.create_connection((address, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname=HOST)


def _download(sock: socket.socket) -> float:
    """MB/s of one big download."""
    buffer = bytearray(1 << 18)
    began = time.perf_counter()
    sock.sendall(tunnel._BIG_REQUEST)
    left = tunnel.DOWNLOAD + len(_BIG_HEAD)
    while left > 0:
        got = sock.recv_into(buffer)
        if not got:
            raise RuntimeError("the download broke off")
        left -= got
    return tunnel.DOWNLOAD / 1e6 / (time.perf_counter() - began)


def _server(listening: socket.socket, context: ssl.SSLContext) -> None:
    """Answers every request that ends in an empty line; those for `/big` with a big body."""
    ready = select.epoll()
    ready.register(listening.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for number, _ in ready.poll():
            if number == listening.fileno():
                sock, _ = listening.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):
                    sock = context.wrap_socket(sock, server_side=True)
                    connections[sock.fileno()] = sock
                    ready.register(sock.fileno(), select.EPOLLIN)
                continue
            try:
                data = connections[number].recv(65536)
                if data.startswith(b"GET /big "):
                    _send_big(connections[number])
                elif data.endswith(b"\r\n\r\n"):
                    connections[number].sendall(tunnel._RESPONSE)
            except OSError:
                data = b""
            if not data:
                ready.unregister(number)
                connections.pop(number).close()


def _send_big(sock: socket.socket) -> None:
    sock.sendall(_BIG_HEAD)
    piece = bytes(1 << 18)
    for _ in range(tunnel.DOWNLOAD // len(piece)):
        sock.sendall(piece)


def _certificate(folder: Path) -> str:
    """A certificate that is its own authority, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return str(folder / "certificate.pem")


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    sys.stdout.write(json.dumps(measure(rounds=rounds), indent=2) + "\n")
