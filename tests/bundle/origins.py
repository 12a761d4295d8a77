"""TLS servers for tests, on the host's loopback."""

import contextlib
import datetime
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bundle.harness import read_head


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def make_certificate(folder: Path, *names: str, ends: float = 1.0) -> tuple[str, str]:
    """A certificate for `names` that is its own authority and ends in `ends` days; its file, and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"origin {folder.name}")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(private)
    return str(folder / "certificate.pem"), str(folder / "key.pem")


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
