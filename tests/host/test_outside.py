"""What the host says of its way out: its certificate stores in every distribution's layout, and its proxies."""

import base64
import os
from pathlib import Path

import pytest

from bot_bottle.errors import HostError
from bot_bottle.host import proxies, stores
from support.authorities import Authority


def lay_out(root: Path, files: tuple[str, ...], links: dict[str, str]) -> None:
    for path in files:
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).write_text(path)
    for path, target in links.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(root / target.lstrip("/"), place.parent))


DEBIAN = (("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/java/cacerts"), {})
FEDORA = (
    (
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/java/cacerts",
        "/etc/pki/tls/certs/README",
    ),
    {
        "/etc/pki/tls/certs/ca-bundle.crt": "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/tls/cert.pem": "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/java/cacerts": "/etc/pki/ca-trust/extracted/java/cacerts",
        "/etc/ssl/certs": "/etc/pki/tls/certs",
    },
)
SUSE = (
    (
        "/var/lib/ca-certificates/ca-bundle.pem",
        "/var/lib/ca-certificates/java-cacerts",
        "/var/lib/ca-certificates/pem/a.pem",
    ),
    {
        "/etc/ssl/certs": "/var/lib/ca-certificates/pem",
        "/etc/ssl/ca-bundle.pem": "/var/lib/ca-certificates/ca-bundle.pem",
    },
)
ARCH = (
    ("/etc/ca-certificates/extracted/tls-ca-bundle.pem", "/etc/ca-certificates/extracted/java-cacerts.jks"),
    {
        "/etc/ssl/certs/ca-certificates.crt": "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem": "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
        "/etc/ssl/certs/java/cacerts": "/etc/ca-certificates/extracted/java-cacerts.jks",
    },
)


@pytest.mark.parametrize(
    ("layout", "lists", "javas", "folders"),
    [
        (
            DEBIAN,
            {"/etc/ssl/certs/ca-certificates.crt"},
            {"/etc/ssl/certs/java/cacerts"},
            [{"/etc/ssl/certs"}],
        ),
        (
            FEDORA,
            {"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"},
            {"/etc/pki/ca-trust/extracted/java/cacerts"},
            [{"/etc/ssl/certs", "/etc/pki/tls/certs"}],
        ),
        (
            SUSE,
            {"/var/lib/ca-certificates/ca-bundle.pem"},
            {"/var/lib/ca-certificates/java-cacerts"},
            [{"/etc/ssl/certs", "/var/lib/ca-certificates/pem"}],
        ),
        (
            ARCH,
            {"/etc/ca-certificates/extracted/tls-ca-bundle.pem"},
            {"/etc/ca-certificates/extracted/java-cacerts.jks"},
            [{"/etc/ssl/certs"}],
        ),
        (((), {}), set(), set(), []),
    ],
    ids=["debian", "fedora", "suse", "arch", "nothing"],
)
def test_the_stores_of_every_distribution_are_found(tmp_path, layout, lists, javas, folders) -> None:
    lay_out(tmp_path, *layout)
    found = stores.look(str(tmp_path))
    assert set(found.lists) == lists
    assert set(found.javas) == javas
    assert [set(folder.places) for folder in found.folders] == folders
    assert found.list == (str(tmp_path) + min(lists, key=len) if lists and layout is not ARCH else found.list)


def test_a_store_that_changed_has_another_mark(tmp_path) -> None:
    lay_out(tmp_path, *DEBIAN)
    before = stores.look(str(tmp_path)).folders[0].mark
    (tmp_path / "etc/ssl/certs/new.pem").write_text("x")
    assert stores.look(str(tmp_path)).folders[0].mark != before


def test_of_a_file_of_authorities_only_the_certificates_are_taken(tmp_path) -> None:
    one, two = Authority("One"), Authority("Two")
    key = "-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----\n"
    (tmp_path / "ca.pem").write_text(f"# Company\n{one.pem}{key}{two.pem}")
    assert stores.authorities(str(tmp_path / "ca.pem")) == one.pem + two.pem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n",
        Authority().pem + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_said_by_its_file(tmp_path, text: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(text)
    with pytest.raises(HostError) as failed:
        stores.authorities(str(path))
    assert str(path) in failed.value.brief


def test_a_file_of_authorities_that_is_not_there_is_said(tmp_path) -> None:
    with pytest.raises(HostError, match=r"egress\.upstream\.ca"):
        stores.authorities(str(tmp_path / "none.pem"))


@pytest.fixture
def environment(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


def test_without_variables_there_is_no_proxy(environment) -> None:
    environment("NO_PROXY", "a.test")
    assert proxies.find() == proxies.HostProxies()


def test_the_small_spelling_counts_and_no_login_is_in_the_facts(environment) -> None:
    environment("HTTPS_PROXY", "http://other:1")
    environment("https_proxy", "http://me:pa55%3Aword@proxy.test:3128")
    environment("NO_PROXY", "a.test,.B.test")
    found = proxies.find()
    assert found.https == ("http://proxy.test:3128", "https_proxy")
    assert (found.http, found.direct, found.wrong) == (None, ("a.test", ".b.test"), ())
    assert "pa55" not in str(found)
    login = proxies.login("https_proxy")
    assert login is not None
    assert login.reveal() == "Basic " + base64.b64encode(b"me:pa55:word").decode()
    assert proxies.login("HTTPS_PROXY") is None


def test_a_variable_that_names_no_http_proxy_is_told(environment) -> None:
    environment("HTTP_PROXY", "socks5://me:pa55@proxy.test:1080")
    assert proxies.find().wrong == ("HTTP_PROXY",)
