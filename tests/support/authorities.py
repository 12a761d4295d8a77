"""Certificate authorities of the tests' own, and a TLS server that serves a folder with what one of them signed."""

import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """A certificate authority; `pem` is its certificate."""

    def __init__(self, common_name: str = "bot-bottle 0") -> None:
        self._name, self._key = named(common_name), ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(self._name, self._key.public_key(), None)
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.der = certificate.public_bytes(serialization.Encoding.DER)

    def leaf(self, folder: Path, *hosts: str) -> Path:
        """A certificate for `hosts` with its key, in one file below `folder`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(named(hosts[0]), key.public_key(), hosts)
        form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path = folder / f"leaf-{certificate.serial_number:x}.pem"
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, *form)
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def _sign(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, hosts: tuple[str, ...] | None
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if hosts is not None:
            names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            made = made.add_extension(names, critical=False).add_extension(issuer, critical=False)
        return made.sign(self._key, hashes.SHA256())


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        """Nothing."""


class _TlsServer(ThreadingHTTPServer):
    """Shakes hands in the connection's own thread, so that one that never does so holds up no other."""

    daemon_threads = True
    context: ssl.SSLContext

    def finish_request(self, request, client_address) -> None:
        try:
            request.settimeout(20)
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except (OSError, ssl.SSLError):
            return  # who does not trust us leaves

    def handle_error(self, request, client_address) -> None:
        """Nothing: clients that leave are what some of the tests are about."""


class Served:
    """A running server."""

    def __init__(self, server: _TlsServer) -> None:
        self._server = server
        self.port: int = server.server_address[1]

    def present(self, certificate: Path) -> None:
        """Presents `certificate` (with its key) from the next connection on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.context = context


@contextmanager
def serving(folder: Path, certificate: Path, handler: type = _Handler) -> Iterator[Served]:
    """Serves the files of `folder` over TLS on the host's loopback."""
    server = _TlsServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    served = Served(server)
    served.present(certificate)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
