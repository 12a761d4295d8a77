"""TLS servers for tests, on the host's loopback."""

import ssl
from pathlib import Path

from bot_bottle.testing import certificates


def make_certificate(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """The certificate (readable by everybody) for 127.0.0.1 and `names`, and the context that serves it."""
    certificate, key = certificates.make_certificate(folder, "127.0.0.1", *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return Path(certificate), context
