"""The files by which a bottle trusts its authority, as OpenSSL and Java read them."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.model import AUTHORITY_PLACES, authority_name
from bot_bottle.errors import SandboxError
from bot_bottle.plan import trust as planning
from bot_bottle.plan.facts import StoreFolder, Stores
from bot_bottle.provision import truststore
from bot_bottle.provision.trust import TrustStore, forget_copies
from support.authorities import Authority


@pytest.fixture
def host(tmp_path):
    """A host's store with one authority, in a folder of its own."""
    certs = tmp_path / "certs"
    (certs / "java").mkdir(parents=True)
    one = Authority("Host")
    (certs / "ca-certificates.crt").write_text(one.pem)
    (certs / "host.pem").write_text(one.pem)
    (certs / "12345678.0").symlink_to("host.pem")
    (certs / "elsewhere.pem").symlink_to(tmp_path / "company.pem")
    (tmp_path / "company.pem").write_text(one.pem)
    (certs / "usr.pem").symlink_to("/usr/share/ca-certificates/x.crt")
    (certs / "private.pem").write_text("for root")
    (certs / "private.pem").chmod(0o600)
    (certs / "nowhere.pem").symlink_to("/nonexistent")
    return Stores(
        list=str(certs / "ca-certificates.crt"),
        lists=(planning.LIST,),
        java="",
        javas=(planning.JAVA,),
        folders=(StoreFolder(str(certs), (planning.CERTIFICATES,), "mark"),),
    )


@pytest.fixture
def made(host, tmp_path):
    """A bottle's stores, made from that."""
    (tmp_path / "run").mkdir()
    (tmp_path / "data").mkdir()
    plan = planning.trust(
        host, run=str(tmp_path / "run"), data=str(tmp_path / "data"), ca="", intercepts=True
    )
    store = TrustStore(plan)
    store.prepare()
    return store, tmp_path / "run" / "trust", tmp_path / "data" / "trust" / f"mark-{planning.LAYOUT}"


WEEK = 7 * 24 * 3600


def test_a_copy_that_no_run_can_use_is_forgotten_a_week_after_it_was_last_used(made, host, tmp_path):
    _, _, copy = made
    used = copy.stat().st_mtime
    data = str(tmp_path / "data")

    def forget(later: float, oldest_run: float | None = None) -> list[str]:
        now = used + later
        return forget_copies(data, now=now, oldest_run=now if oldest_run is None else oldest_run)

    assert forget(WEEK - 60) == []
    assert forget(3 * WEEK, oldest_run=used - 1) == []  # that run may have it
    assert forget(3 * WEEK, oldest_run=used + 60) == []
    assert copy.is_dir()
    os.utime(copy, (used - WEEK, used - WEEK))
    (tmp_path / "again").mkdir()
    TrustStore(planning.trust(host, run=str(tmp_path / "again"), data=data, ca="", intercepts=True)).prepare()
    assert copy.stat().st_mtime >= used  # it was used again
    assert len(forget(WEEK + 3600)) == 1
    assert list(copy.parent.iterdir()) == []
    assert forget(WEEK) == []


def test_the_copy_of_the_hosts_folder_has_what_everybody_may_read(made, tmp_path):
    _, _, copy = made
    assert os.readlink(copy / "12345678.0") == "host.pem"
    assert os.readlink(copy / "usr.pem") == "/usr/share/ca-certificates/x.crt"
    assert (copy / "elsewhere.pem").read_text() == (tmp_path / "company.pem").read_text()
    assert not os.path.lexists(copy / "private.pem")
    assert not os.path.lexists(copy / "nowhere.pem")
    for place in planning.FILES.values():
        assert (copy / os.path.relpath(place, planning.CERTIFICATES)).read_bytes() == b""


def test_authorities_are_found_by_the_hash_of_their_names(made):
    _, _, copy = made
    for number in (0, 1, AUTHORITY_PLACES - 1):
        (copy.parent / "one.pem").write_text(Authority(authority_name(number)).pem)
        argv = ["openssl", "x509", "-hash", "-noout", "-in", copy.parent / "one.pem"]
        said = subprocess.run(argv, capture_output=True, check=True)
        assert os.readlink(copy / f"{said.stdout.decode().strip()}.0") == "bot-bottle.pem"


def test_openssl_takes_the_list_and_java_its_store(made):
    store, files, _ = made
    one, two = Authority(authority_name(0)), Authority(authority_name(1))
    digest = store.accept(one.pem)
    assert digest == hashlib.sha256(one.der).hexdigest()
    store.accept(one.pem + two.pem)
    mounted = (files / "list.pem").open()
    for authority in (one, two):
        leaf = authority.leaf(files.parent, "a.test")
        subprocess.run(
            ["openssl", "verify", "-CAfile", files / "list.pem", leaf], check=True, capture_output=True
        )
    store.accept(two.pem)
    argv = ["openssl", "verify", "-CAfile", files / "list.pem", one.leaf(files.parent, "a.test")]
    refused = subprocess.run(argv, capture_output=True)
    assert refused.returncode != 0
    with mounted:
        assert one.pem not in mounted.read(), "a mount would show the old file"
    if shutil.which("keytool"):
        argv = ["keytool", "-list", "-keystore", files / "cacerts", "-storepass", "changeit"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert "contains 2 entries" in said.stdout
        assert "bot-bottle 0" in said.stdout


def test_only_certificates_are_in_the_files_whatever_is_sent(made):
    store, files, _ = made
    key = "-----BEGIN PRIVATE KEY-----\nMIG=\n-----END PRIVATE KEY-----\n"
    good = Authority().pem
    store.accept(good)
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    for bad in (
        key,
        good + key,
        key + good,
        "x" + good,
        good + "x",
        good[:-30],
        good.replace("M", "\0", 1),
        "",
        good * 900,
    ):
        with pytest.raises(SandboxError):
            store.accept(bad)
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: truststore.pem(data).decode()))
def test_no_text_breaks_the_reader_of_authorities(text):
    try:
        found = truststore.authorities(text)
    except SandboxError:
        return
    assert all(der[0] == 0x30 for der in found)


def test_until_there_is_an_authority_node_is_given_one_that_it_knows(made, host):
    _, files, _ = made
    assert (files / "added.pem").read_bytes() == truststore.pem(
        truststore.certificates(Path(host.list).read_bytes())[0]
    )


def test_a_copy_that_is_there_already_is_taken_as_it_is(made, host, tmp_path):
    _, _, copy = made
    (copy / "mark").write_text("kept")
    (tmp_path / "other").mkdir()
    plan = planning.trust(
        host, run=str(tmp_path / "other"), data=str(tmp_path / "data"), ca="", intercepts=False
    )
    TrustStore(plan).prepare()
    assert (copy / "mark").read_text() == "kept"


# What is planned


def test_the_mounts_and_variables_are_these():
    stores = Stores(
        list="/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        lists=("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",),
        java="/etc/pki/java/cacerts",
        javas=("/etc/pki/ca-trust/extracted/java/cacerts",),
        folders=(StoreFolder("/etc/pki/tls/certs", ("/etc/pki/tls/certs", "/etc/ssl/certs"), "m"),),
    )
    made = planning.trust(stores, run="/run/r", data="/data", ca="", intercepts=True)
    assert {mount.target: mount.source for mount in made.mounts} == {
        "/etc/ssl/certs": f"/data/trust/m-{planning.LAYOUT}",
        "/etc/pki/tls/certs": f"/data/trust/m-{planning.LAYOUT}",
        "/etc/ssl/certs/ca-certificates.crt": "/run/r/trust/list.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": "/run/r/trust/list.pem",
        "/etc/ssl/certs/bot-bottle.pem": "/run/r/trust/authority.pem",
        "/etc/ssl/certs/bot-bottle-added.pem": "/run/r/trust/added.pem",
        "/etc/ssl/certs/java/cacerts": "/run/r/trust/cacerts",
        "/etc/pki/ca-trust/extracted/java/cacerts": "/run/r/trust/cacerts",
    }
    assert not any(mount.writable for mount in made.mounts)


def test_what_a_person_sets_is_kept_and_java_gets_both():
    env = (("JAVA_TOOL_OPTIONS", "-Xmx1g"), ("SSL_CERT_FILE", "/mine.pem"))
    made = dict(planning.environment(env, intercepts=True))
    assert made["SSL_CERT_FILE"] == "/mine.pem"
    assert made["JAVA_TOOL_OPTIONS"] == "-Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts -Xmx1g"
    assert made["NODE_EXTRA_CA_CERTS"] == "/etc/ssl/certs/bot-bottle-added.pem"
    quiet = dict(planning.environment((), intercepts=False))
    assert "JAVA_TOOL_OPTIONS" not in quiet
