"""A bottle whose TLS is opened, for tests of what is spoken inside: clients that trust its authority, upstreams that speak TLS."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from typing import Any, NamedTuple

from bot_bottle.policy.model import EgressPolicy
from tests.bundle.conftest import Certificate
from tests.bundle.harness import Bundle, Holder, read_head, served

PROXY = ("127.0.0.1", 3128)
ANYWHERE = ("192.0.2.9", 443)


class Opened(NamedTuple):
    """`trusted` is a file with the bottle's authority."""

    holder: Holder
    bundle: Bundle
    trusted: str

    def connect(
        self, name: str = "ok.test", *protocols: str, proxy: bool = False, inner: str = ""
    ) -> ssl.SSLSocket:
        """TLS as a program opens it that offers `protocols`, transparently or through CONNECT."""
        context = ssl.create_default_context(cafile=self.trusted)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        sock = self.holder.connect(*(PROXY if proxy else ANYWHERE))
        if proxy:
            sock.sendall(f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode())
            assert read_head(sock)[0].startswith(b"HTTP/1.1 200 ")
        try:
            return context.wrap_socket(sock, server_hostname=inner or name)
        except BaseException:
            sock.close()
            raise


@contextlib.contextmanager
def opened(policy: EgressPolicy, certificate: Certificate, folder: Path, **more: Any) -> Iterator[Opened]:
    """The bottle, whose upstreams have `certificate`."""
    with served(policy, env={"SSL_CERT_FILE": certificate.certificate}, **more) as (holder, bundle):
        told = bundle.hear(lambda message: "authority" in message)["authority"]
        for path in (folder, *folder.parents[:2]):
            path.chmod(path.stat().st_mode | 0o055)
        (folder / "authority.pem").write_text(told)
        (folder / "authority.pem").chmod(0o644)
        yield Opened(holder, bundle, str(folder / "authority.pem"))


def with_tls(
    certificate: Certificate, handle: Callable[[ssl.SSLSocket], None], *protocols: str
) -> Callable[[socket], None]:
    """A `Server`'s handler that speaks TLS, offering `protocols`, and gives the inside to `handle`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if protocols:
        context.set_alpn_protocols(list(protocols))

    def serve(sock: socket) -> None:
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            context.wrap_socket(sock, server_side=True) as wrapped,
        ):
            handle(wrapped)

    return serve
