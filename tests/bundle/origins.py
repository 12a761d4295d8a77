"""TLS servers for tests, on the host's loopback."""

import contextlib
import socket
import ssl
from collections.abc import Callable

from tests.bundle.harness import read_head


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def over_tls(
    context: ssl.SSLContext, handle: Callable[[ssl.SSLSocket], None]
) -> Callable[[socket.socket], None]:
    """A `Server`'s handler that speaks TLS and gives the inside to `handle`."""

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            context.wrap_socket(sock, server_side=True) as wrapped,
        ):
            handle(wrapped)

    return serve


def answer(sock: socket.socket, body: bytes, *fields: bytes) -> None:
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields, b"", body]
    sock.sendall(b"\r\n".join(lines))


def echo_heads(sock: socket.socket) -> None:
    """Answers each request with its head."""
    while True:
        answer(sock, read_head(sock)[0])
