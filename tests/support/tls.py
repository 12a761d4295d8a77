"""A TLS server's certificate for tests, its own authority."""

import ssl
import subprocess
from pathlib import Path


def make_certificate(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """The certificate (readable by everybody) for 127.0.0.1 and `names`, and the context that serves it."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    alternatives = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in names)])
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext",
         f"subjectAltName={alternatives}", "-addext", "basicConstraints=critical,CA:true", "-keyout", key, "-out",
         certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate.chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
