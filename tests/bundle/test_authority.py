"""The bottle's authority: what its certificates are good for, and what takes them."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.bundle.egress import authority as module
from bot_bottle.bundle.egress.authority import AUTHORITY_DAYS, LEAVES, Authority, NotCovered

DAY = 86400.0
NAMES = ("ok.test", "*.wild.test")


class Clock:
    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def authority() -> Authority:
    return Authority(NAMES)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Both sides' handshakes in memory; the client's side of it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(20):
        for side in list(waiting):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                waiting.remove(side)
        if not waiting:
            return ours
    raise AssertionError("the handshake has no end")


def strict(pem: str) -> ssl.SSLContext:
    """As Python 3.13 verifies by default."""
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@pytest.mark.parametrize("host", ["ok.test", "a.wild.test", "a.b.c.wild.test", "xn--bcher-kva.wild.test"])
def test_a_leaf_is_good_for_its_name_by_the_strictest_rules(authority: Authority, host: str) -> None:
    shown = shake(authority.context(host), strict(authority.pem), host).getpeercert()
    assert shown is not None
    assert shown["subjectAltName"] == (("DNS", host),)


def test_a_leaf_is_good_for_no_other_name(authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(authority.context("a.wild.test"), strict(authority.pem), "b.wild.test")


@pytest.mark.parametrize("host", ["other.test", "wild.test", "okk.test", "a.ok.test", "test", ""])
def test_there_is_no_leaf_for_a_name_that_no_route_has(authority: Authority, host: str) -> None:
    with pytest.raises(NotCovered):
        authority.context(host)


def test_a_stolen_key_of_the_authority_is_good_for_no_name_outside_the_policy(authority: Authority) -> None:
    stolen = authority._issuers[0]
    forged = authority._load(authority._issue(stolen, "bank.test"))
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        shake(forged, strict(authority.pem), "bank.test")


def test_a_stolen_key_of_the_authority_is_good_for_no_address(authority: Authority) -> None:
    import ipaddress

    stolen = authority._issuers[0]
    good = x509.load_pem_x509_certificate(authority._issue(stolen, "ok.test"))
    forged = module._builder(
        good.subject, good.issuer, authority._key, authority._clock() - DAY, authority._clock() + DAY
    ).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
    )
    pem = forged.sign(stolen.key, hashes.SHA256()).public_bytes(module.serialization.Encoding.PEM)
    client = ssl.create_default_context(cadata=authority.pem)
    with pytest.raises(ssl.SSLCertVerificationError, match="subtree violation"):
        shake(authority._load(pem), client, "127.0.0.1")


def test_a_leaf_can_sign_no_further_certificate(authority: Authority) -> None:
    leaf = x509.load_pem_x509_certificate(authority._issue(authority._issuers[0], "ok.test"))
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    root = x509.load_pem_x509_certificate(authority.pem.encode())
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_certificates_are_short_lived_and_begin_before_a_clock_that_is_late(authority: Authority) -> None:
    root = x509.load_pem_x509_certificate(authority.pem.encode())
    leaf = x509.load_pem_x509_certificate(authority._issue(authority._issuers[0], "ok.test"))
    for certificate, days in ((root, AUTHORITY_DAYS), (leaf, module.LEAF_DAYS)):
        lives = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert lives.total_seconds() == (days + 1) * DAY


def test_a_name_costs_a_signature_once() -> None:
    clock = Clock()
    authority = Authority(NAMES, clock=clock)
    first = authority.context("ok.test")
    assert authority.context("ok.test") is first
    clock.now += module.LEAF_DAYS * DAY
    assert authority.context("ok.test") is not first


def test_the_contexts_kept_are_bounded_and_the_least_used_go_first(authority: Authority) -> None:
    kept = authority.context("ok.test")
    for number in range(LEAVES + 5):
        authority.context(f"n{number}.wild.test")
        authority.context("ok.test")
    assert len(authority._leaves) == LEAVES
    assert authority.context("ok.test") is kept


def test_an_authority_that_nears_its_end_gets_a_successor_in_time() -> None:
    clock = Clock()
    authority = Authority(NAMES, clock=clock)
    told: list[str] = []
    authority.changed = told.append
    clock.now += (AUTHORITY_DAYS - 3) * DAY
    authority.context("ok.test")
    assert told == [authority.pem]
    assert authority.pem.count("BEGIN CERTIFICATE") == 2
    clock.now += 4 * DAY
    authority._add()
    assert authority.pem.count("BEGIN CERTIFICATE") == 2  # what has ended is not told any more


def test_a_policy_with_further_names_gets_a_further_authority_and_known_names_stay_with_the_first(
    authority: Authority,
) -> None:
    first = authority.pem
    told: list[str] = []
    authority.changed = told.append
    authority.cover(("ok.test", "new.test"))
    assert told == [authority.pem]
    shake(
        authority.context("ok.test"), strict(first), "ok.test"
    )  # what runs already knows no other authority
    shake(authority.context("new.test"), strict(authority.pem), "new.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(authority.context("new.test"), strict(first), "new.test")


def test_a_policy_with_fewer_names_needs_no_further_authority_and_opens_less(authority: Authority) -> None:
    told: list[str] = []
    authority.changed = told.append
    authority.context("a.wild.test")
    authority.cover(("ok.test",))
    assert not told
    with pytest.raises(NotCovered):
        authority.context("a.wild.test")


_LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(labels=st.lists(_LABELS, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_every_name_below_a_wildcard_gets_a_leaf_that_is_taken(labels: list[str]) -> None:
    authority = _shared()
    host = ".".join([*labels, "wild.test"])
    shake(authority.context(host), strict(authority.pem), host)


_made: list[Authority] = []


def _shared() -> Authority:
    if not _made:
        _made.append(Authority(NAMES))
    return _made[0]


# Real programs


@pytest.fixture
def listening(authority: Authority, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server with a leaf for `ok.test`, and a file with the authority."""
    (tmp_path / "authority.pem").write_text(authority.pem)
    context = authority.context("ok.test")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
                    tls.recv(65536)
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
                    tls.unwrap()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], tmp_path / "authority.pem"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


_NODE = """
const tls = require('tls'), fs = require('fs');
const socket = tls.connect({port: @PORT, host: '127.0.0.1', servername: 'ok.test', ca: fs.readFileSync('@CA')}, () => {
  socket.write('GET / HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n');
});
socket.on('data', data => process.stdout.write(data));
"""
_GO = """package main
import ("crypto/tls"; "crypto/x509"; "fmt"; "os")
func main() {
	pem, _ := os.ReadFile("@CA")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	conn, err := tls.Dial("tcp", "127.0.0.1:@PORT", &tls.Config{ServerName: "ok.test", RootCAs: pool})
	if err != nil { fmt.Println(err); os.Exit(1) }
	fmt.Fprint(conn, "GET / HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n")
	buffer := make([]byte, 1000)
	n, _ := conn.Read(buffer)
	fmt.Println(string(buffer[:n]))
}
"""
_JAVA = """
import java.io.*; import java.security.*; import java.security.cert.*; import javax.net.ssl.*;
public class Client {
  public static void main(String[] given) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null, null);
    store.setCertificateEntry("bottle", CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream("@CA")));
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    java.net.Socket plain = new java.net.Socket("127.0.0.1", @PORT);
    SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(plain, "ok.test", @PORT, true);
    SSLParameters parameters = socket.getSSLParameters();
    parameters.setEndpointIdentificationAlgorithm("HTTPS");
    socket.setSSLParameters(parameters);
    socket.getOutputStream().write("GET / HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n".getBytes());
    System.out.println(new BufferedReader(new InputStreamReader(socket.getInputStream())).lines().toList());
  }
}
"""


def filled(text: str, port: int, authority: Path) -> str:
    return text.replace("@PORT", str(port)).replace("@CA", str(authority))


@pytest.mark.parametrize(
    "program",
    ["curl", "openssl", "gnutls-cli", "node", pytest.param("go", marks=pytest.mark.slow), "java"],
)
def test_this_program_takes_the_bottles_certificates(
    listening: tuple[int, Path], tmp_path: Path, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    port, pem = listening
    (tmp_path / "Client.java").write_text(filled(_JAVA, port, pem))
    (tmp_path / "client.go").write_text(filled(_GO, port, pem))
    request = b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n"
    argv = {
        "curl": ["curl", "-sS", "--cacert", str(pem), "--resolve", f"ok.test:{port}:127.0.0.1", f"https://ok.test:{port}/"],
        "openssl": ["openssl", "s_client", "-quiet", "-x509_strict", "-verify_return_error", "-verify_hostname", "ok.test",
                    "-servername", "ok.test", "-CAfile", str(pem), "-connect", f"127.0.0.1:{port}"],
        "gnutls-cli": ["gnutls-cli", "--x509cafile", str(pem), "--verify-hostname", "ok.test", "--sni-hostname", "ok.test",
                       "-p", str(port), "127.0.0.1"],
        "node": ["node", "-e", filled(_NODE, port, pem)],
        "go": ["go", "run", "client.go"],
        "java": ["java", "Client.java"],
    }[program]  # fmt: skip
    environment = {"PATH": "/usr/local/go/bin:/usr/bin:/bin", "HOME": str(tmp_path), "GOFLAGS": "-mod=mod"}
    asked = subprocess.run(
        argv, input=request, capture_output=True, cwd=tmp_path, env=environment, timeout=100
    )
    assert b"fine" in asked.stdout, asked
