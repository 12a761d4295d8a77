"""The bottle's own certificate authority: made here, its key never outside this process, good for the policy's names only.

Every leaf has the same key, so a new name costs one signature. When a policy opens names that the authority was not made for,
a second one is made beside it: names that the first covers stay with the first, since programs that run already know no other.
Imported only by bundles that open TLS, and used for the first time before confinement.
"""

import datetime
import ipaddress
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bot_bottle.bundle.egress.tls import HTTP_1, harden
from bot_bottle.bundle.model import authority_name
from bot_bottle.policy.egress import matches

_DAY = 86400.0
AUTHORITY_DAYS, LEAF_DAYS = 30, 7
_EARLIER = 1.0
"""Days by which certificates begin in the past, for clocks that differ."""
LEAVES = 256
"""Names whose contexts are kept."""
_EVERY_ADDRESS = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class NotCovered(Exception):
    """There is no authority for this name."""


class _Issuer(NamedTuple):
    """One authority: `names` are route hosts, `ends` is in seconds since 1970."""

    names: frozenset[str]
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    ends: float

    def covers(self, host: str) -> bool:
        return any(matches(name, host) for name in self.names)


class _Leaf(NamedTuple):
    context: ssl.SSLContext
    until: float


class Authority:
    """`changed` is called with all the authorities (PEM) whenever one has been added."""

    def __init__(
        self,
        names: Iterable[str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.changed: Callable[[str], object] = lambda _: None
        self._clock = clock
        self._names: frozenset[str] = frozenset()
        self._issuers: list[_Issuer] = []
        self._made = 0
        self._leaves: OrderedDict[str, _Leaf] = OrderedDict()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        # OpenSSL takes certificates from files only. This one has no name and is in memory.
        self._file = os.memfd_create("leaf")
        self.cover(names)

    @property
    def pem(self) -> str:
        """The certificates of all authorities: what programs in the bottle are to trust."""
        encoded = (issuer.certificate.public_bytes(serialization.Encoding.PEM) for issuer in self._issuers)
        return b"".join(encoded).decode()

    def cover(self, names: Iterable[str]) -> None:
        """From now on it is for `names` (hosts of routes) and no others."""
        self._names = frozenset(names)
        self._leaves.clear()
        if self._names and not all(any(name in one.names for one in self._valid()) for name in self._names):
            self._add()

    def context(self, host: str) -> ssl.SSLContext:
        """What the TLS of `host` is accepted with. Raises NotCovered."""
        now = self._clock()
        kept = self._leaves.get(host)
        if kept is not None and now < kept.until:
            self._leaves.move_to_end(host)
            return kept.context
        context = self._load(self._issue(self._issuer(host), host))
        self._leaves[host] = _Leaf(context, now + LEAF_DAYS / 2 * _DAY)
        self._leaves.move_to_end(host)
        while len(self._leaves) > LEAVES:
            self._leaves.popitem(last=False)
        return context

    def _valid(self) -> list[_Issuer]:
        """Those that will outlast a leaf."""
        soon = self._clock() + (LEAF_DAYS + _EARLIER) * _DAY
        return [issuer for issuer in self._issuers if issuer.ends > soon]

    def _issuer(self, host: str) -> _Issuer:
        if not any(matches(name, host) for name in self._names):
            raise NotCovered(host)
        for issuer in self._valid():
            if issuer.covers(host):
                return issuer
        return self._add()

    def _add(self) -> _Issuer:
        now = self._clock()
        key = ec.generate_private_key(ec.SECP256R1())
        ends = now + AUTHORITY_DAYS * _DAY
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority_name(self._made))])
        self._made += 1
        roots = sorted({name.removeprefix("*.") for name in self._names})
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key, now - _EARLIER * _DAY, ends)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(
                x509.NameConstraints(
                    [x509.DNSName(root) for root in roots],
                    [x509.IPAddress(network) for network in _EVERY_ADDRESS],
                ),
                critical=True,
            )
            .sign(key, hashes.SHA256())
        )
        issuer = _Issuer(self._names, certificate, key, ends)
        self._issuers = [old for old in self._issuers if old.ends > now] + [issuer]
        self.changed(self.pem)
        return issuer

    def _issue(self, issuer: _Issuer, host: str) -> bytes:
        now = self._clock()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bot-bottle")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            _builder(
                name, issuer.certificate.subject, self._key, now - _EARLIER * _DAY, now + LEAF_DAYS * _DAY
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(identifier, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
            )
            .sign(issuer.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _load(self, certificate: bytes) -> ssl.SSLContext:
        data = certificate + self._key_pem
        end = os.lseek(self._file, 0, os.SEEK_END)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, data.ljust(end, b"\n"))
        context = harden(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.set_alpn_protocols([HTTP_1, "h2"])  # in this order: only who offers nothing else gets HTTP/2
        context.num_tickets = 1
        context.load_cert_chain(f"/proc/self/fd/{self._file}")
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: float, ends: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(begins, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(ends, datetime.UTC))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
