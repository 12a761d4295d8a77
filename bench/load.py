"""A lean load generator and a lean server, the same for everything that is compared: TLS over sockets and epoll, no HTTP library.

Where connections go is a `Way`: straight to the server, or by CONNECT through some proxy. The generator is a process of its own,
if need be in a network namespace with nothing but a bottle's door.
"""

import contextlib
import ctypes
import json
import os
import select
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tunnel import anonymous, forked

CONNECTIONS = 32
AT_ONCE = 4
"""Processes that make new connections, one after the other each."""
BODY = 1024
DOWNLOAD = 1 << 30
_PIECE = 1 << 18
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
Answer = dict[str, float]


class Way(NamedTuple):
    """To `host`:`port`, through `proxy` where there is one. `authority` is a file that is trusted; without, no certificates."""

    host: str
    port: int
    proxy: tuple[str, int] | None = None
    authority: str = ""


class Generator:
    """Asks for load, and gets figures. `enter` runs first in its process."""

    def __init__(self, stack: contextlib.ExitStack, enter: Callable[[], None] = lambda: None) -> None:
        self._asked, answering = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(self._asked)
        stack.enter_context(answering)
        stack.enter_context(forked(lambda: _generate(answering, enter)))

    def ask(self, what: str, way: Way, number: float, size: int = 0) -> Answer:
        """`rate`, `new`: seconds; `first`, `post`: how often; `download`: nothing."""
        self._asked.send(json.dumps([what, way, number, size]).encode())
        answer = self._asked.recv(4000)
        if not answer:
            raise RuntimeError(f"the load generator ended: {what} to {way.host}")
        found: Answer = json.loads(answer)
        return found


def leave_network() -> None:
    """Into a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK | (_NEW_USER if os.geteuid() else 0)):
        raise OSError(ctypes.get_errno(), "unshare")


def _generate(answering: socket.socket, enter: Callable[[], None]) -> None:
    enter()
    contexts: dict[str, ssl.SSLContext] = {}
    while request := answering.recv(1000):
        what, where, number, size = json.loads(request)
        way = Way(*where)
        if way.authority not in contexts:
            trusts = (
                ssl.create_default_context(cafile=way.authority) if way.authority else anonymous(server=False)
            )
            contexts[way.authority] = trusts
        answering.send(json.dumps(_KINDS[what](way, contexts[way.authority], number, size)).encode())


def _connect(way: Way, context: ssl.SSLContext) -> ssl.SSLSocket:
    where = tuple(way.proxy) if way.proxy else ("127.0.0.1", way.port)
    sock = socket.create_connection(where, timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if way.proxy:
        authority = f"{way.host}:{way.port}"
        sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        said = sock.recv(4096)
        if b" 200 " not in said.partition(b"\r\n")[0]:
            raise RuntimeError(f"CONNECT was refused: {said[:100]!r}")
    return context.wrap_socket(sock, server_hostname=way.host)


def _request(way: Way, path: str = "/", body: bytes = b"") -> bytes:
    host = way.host if way.port == 443 else f"{way.host}:{way.port}"
    if not body:
        return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Reader:
    """Counts off responses of one connection."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self._head = b""
        self._left = 0
        self.began = 0.0

    def read(self) -> bool:
        """Reads what is there; whether a response is whole."""
        data = self.sock.recv(_PIECE)
        if not data:
            raise RuntimeError("a connection ended")
        if not self._left:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return False
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise RuntimeError(f"not served: {head[:200]!r} {rest[:300]!r}")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self._left, self._head = int(length[15:]), b""
            data = rest
        self._left -= len(data)
        return not self._left


def _once(reader: _Reader, request: bytes) -> None:
    reader.sock.sendall(request)
    while not reader.read():
        pass


def _rate(way: Way, context: ssl.SSLContext, seconds: float, _size: int) -> Answer:
    """Requests a second over kept-alive connections, each with one under way, and how long they took."""
    with contextlib.ExitStack() as stack:
        readers = [_Reader(stack.enter_context(_connect(way, context))) for _ in range(CONNECTIONS)]
        request = _request(way)
        for reader in readers:
            _once(reader, request)  # so that what is made for the first one is there
        by_number = {reader.sock.fileno(): reader for reader in readers}
        ready = stack.enter_context(contextlib.closing(select.epoll()))
        times: list[float] = []
        clock = time.perf_counter
        began = clock()
        for number, reader in by_number.items():
            ready.register(number, select.EPOLLIN)
            reader.began = clock()
            reader.sock.sendall(request)
        while (now := clock()) - began < seconds:
            for number, _ in ready.poll(5.0):
                reader = by_number[number]
                if reader.read():
                    now = clock()
                    times.append(now - reader.began)
                    reader.began = now
                    reader.sock.sendall(request)
        taken = clock() - began
    return {"rate": len(times) / taken, "p50": statistics.median(times) * 1000, "count": len(times)}


def _new(way: Way, context: ssl.SSLContext, seconds: float, _size: int) -> Answer:
    """New connections a second, a request on each, by several processes at once."""
    request = _request(way)

    def make(result: int) -> None:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            with _connect(way, context) as sock:
                _once(_Reader(sock), request)
            count += 1
        os.write(result, b"%f\n" % (count / (time.perf_counter() - began)))

    read, write = os.pipe()
    workers = []
    for _ in range(AT_ONCE):
        pid = os.fork()
        if not pid:
            try:
                make(write)
            finally:
                os._exit(0)
        workers.append(pid)
    os.close(write)
    with open(read, "rb") as results:
        rates = [float(line) for line in results]
    for pid in workers:
        os.waitpid(pid, 0)
    if len(rates) < AT_ONCE:
        raise RuntimeError("a connection failed")
    return {"rate": sum(rates)}


def _first(way: Way, context: ssl.SSLContext, count: float, _size: int) -> Answer:
    """Milliseconds from nothing to a whole response, one after the other."""
    times = []
    request = _request(way)
    for _ in range(int(count)):
        began = time.perf_counter()
        with _connect(way, context) as sock:
            _once(_Reader(sock), request)
            times.append(time.perf_counter() - began)
    return {"p50": statistics.median(times) * 1000}


def _post(way: Way, context: ssl.SSLContext, count: float, size: int) -> Answer:
    """Milliseconds for a request with a body of `size` bytes, on one connection."""
    times = []
    request = _request(way, "/", text(size))
    with _connect(way, context) as sock:
        reader = _Reader(sock)
        _once(reader, request)
        for _ in range(int(count)):
            began = time.perf_counter()
            _once(reader, request)
            times.append(time.perf_counter() - began)
    return {"p50": statistics.median(times) * 1000}


def text(size: int) -> bytes:
    """A body as agents send them: JSON with prose, code and identifiers in it, and no secret."""
    line = (
        '{"role":"user","id":"msg_%06d","content":"def handle_%d(self, request: Request) -> Response:\\n    # the key is looked'
        " up by name, see /usr/share/doc/item-%d.html\\n    return self.table[request.name]  # 0x%08x, "
        '550e8400-e29b-41d4-a716-%012d"},\n'
    )
    made = "".join(
        line % (number, number, number, number * 2654435761 % 2**32, number)
        for number in range(size // 200 + 1)
    )
    return made.encode()[:size]


def _download(way: Way, context: ssl.SSLContext, _number: float, _size: int) -> Answer:
    """MB/s of one big download."""
    buffer = bytearray(_PIECE)
    with _connect(way, context) as sock:
        began = time.perf_counter()
        sock.sendall(_request(way, "/big"))
        left = DOWNLOAD
        while left > 0:
            got = sock.recv_into(buffer)
            if not got:
                raise RuntimeError("the download broke off")
            left -= got
        return {"rate": DOWNLOAD / 1e6 / (time.perf_counter() - began)}


_KINDS: dict[str, Callable[[Way, ssl.SSLContext, float, int], Answer]] = {
    "rate": _rate,
    "new": _new,
    "first": _first,
    "post": _post,
    "download": _download,
}


@contextlib.contextmanager
def server(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that answers everything with 200 and 1 KiB, `/big` with 1 GiB."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        with forked(lambda: _serve(listening, context)):
            yield listening.getsockname()[1]


class _Served:
    """One connection at the server."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self._shaken = False
        self._data = b""
        self._left = 0

    def go_on(self) -> bool:
        """Does what can be done; False at the end."""
        try:
            if not self._shaken:
                self.sock.do_handshake()
                self._shaken = True
                return True
            data = self.sock.recv(_PIECE)  # once, so that every connection has its turn
            while data:
                self._take(data)
                if not self.sock.pending():
                    return True
                data = self.sock.recv(_PIECE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            pass
        return False

    def _take(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._data += data
            head, end, body = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._data = b""
            if head.startswith(b"GET /big "):
                self._send_big()
                return
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self._left = (int(length[0][15:]) if length else 0) - len(body)
        if not self._left:
            self.sock.sendall(_RESPONSE)

    def _send_big(self) -> None:
        self.sock.setblocking(True)
        self.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DOWNLOAD)
        piece = bytes(_PIECE)
        for _ in range(DOWNLOAD // len(piece)):
            self.sock.sendall(piece)
        self.sock.setblocking(False)


_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % BODY + bytes(BODY)


def _serve(listening: socket.socket, context: ssl.SSLContext) -> None:
    ready = select.epoll()
    ready.register(listening.fileno(), select.EPOLLIN)
    connections: dict[int, _Served] = {}
    while True:
        for number, _ in ready.poll():
            if number == listening.fileno():
                sock, _ = listening.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                connections[wrapped.fileno()] = _Served(wrapped)
                ready.register(wrapped.fileno(), select.EPOLLIN)
            elif not connections[number].go_on():
                ready.unregister(number)
                connections.pop(number).sock.close()
