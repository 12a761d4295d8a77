"""Certificates for the tests' TLS servers, made once a session."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

_CONFIG = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = test
[extensions]
subjectAltName = DNS:ok.test,DNS:other.test,DNS:*.wild.test,DNS:api.test,DNS:localhost
basicConstraints = critical,CA:true
"""


class Certificate(NamedTuple):
    certificate: str
    key: str


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate that is its own authority, readable by every user."""
    folder = tmp_path_factory.mktemp("tls")
    config, certificate, key = folder / "config", folder / "certificate.pem", folder / "key.pem"
    config.write_text(_CONFIG)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config", config, "-keyout", key,
         "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    for path in (certificate, *folder.parents):
        if path.is_relative_to(Path(tmp_path_factory.getbasetemp().parent)):
            path.chmod(path.stat().st_mode | 0o055)
    return Certificate(str(certificate), str(key))
