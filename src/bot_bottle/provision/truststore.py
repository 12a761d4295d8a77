"""Certificates in the shapes in which programs look for them: PEM lists, OpenSSL's hashed names, Java's store. Pure.

Written here because the keeper of a bottle has no other use for a library of cryptography, and would carry it for as long as
the bottle lives; nothing here checks or signs anything.
"""

import binascii
import struct

from bot_bottle.errors import SandboxError

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
LARGEST = 256 * 1024
_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n\r")
_SEQUENCE, _SET, _OID, _UTF8 = 0x30, 0x31, 0x06, 0x0C
_COMMON_NAME = bytes((0x55, 0x04, 0x03))
_JAVA_MAGIC, _JAVA_VERSION, _JAVA_CERTIFICATE = 0xFEEDFEED, 2, 2
_JAVA_PASSWORD = "changeit"  # noqa: S105 - Java's own for every public store; it protects nothing
_JAVA_SALT = b"Mighty Aphrodite"


def authorities(text: str) -> list[bytes]:
    """The DER of the certificates that `text` is in PEM, one at least. Raises SandboxError for anything else, be it beside them.

    Whoever sends it is not trusted: what goes on is written anew from this.
    """
    before, *blocks = text.split(BEGIN) if len(text) <= LARGEST else [text]
    found = [_authority(block) for block in blocks]
    if before.strip() or not found:
        raise SandboxError("The bundle's certificate authority is no certificate")
    return found


def _authority(block: str) -> bytes:
    """The DER of what stands behind a BEGIN."""
    inner, end, after = block.partition(END)
    der = b""
    if end and not after.strip() and _CHARACTERS.issuperset(inner):
        try:
            der = binascii.a2b_base64(inner)
        except binascii.Error:
            der = b""
    if der[:2] != bytes((_SEQUENCE, 0x82)) or int.from_bytes(der[2:4], "big") != len(der) - 4:
        raise SandboxError("The bundle's certificate authority is no certificate")
    return der


def pem(der: bytes) -> bytes:
    """A certificate in PEM, in lines of 64 characters."""
    text = binascii.b2a_base64(der, newline=False).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([BEGIN, *lines, END, ""]).encode()


def certificates(text: bytes) -> list[bytes]:
    """The DER of every certificate in a PEM list; what else stands there is left out."""
    found = []
    for part in text.split(BEGIN.encode())[1:]:
        inner = part.partition(END.encode())[0]
        try:
            found.append(binascii.a2b_base64(inner))
        except binascii.Error:
            continue  # the host's own list: a program inside would pass over it, too
    return found


def hashed_name(common_name: str) -> str:
    """By which file name OpenSSL looks for an authority whose whole name is this common name (X509_NAME_hash), without `.N`."""
    text = " ".join(common_name.lower().split()).encode()
    attribute = _der(_SEQUENCE, _der(_OID, _COMMON_NAME) + _der(_UTF8, text))
    digest = _sha1(_der(_SET, attribute))
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _der(tag: int, content: bytes) -> bytes:
    if len(content) > 0x7F:
        raise ValueError("a name that is longer than any of ours")
    return bytes((tag, len(content))) + content


class JavaStore:
    """Java's JKS format, which every version of it reads, and without being told a password."""

    def __init__(self) -> None:
        self._count = 0
        self._entries = bytearray()

    def add(self, alias: str, der: bytes) -> None:
        """Adds a certificate that is trusted."""
        self._entries += _java_entry(alias, der)
        self._count += 1

    def content(self, *last: tuple[str, bytes]) -> bytes:
        """The whole file, with `last` (aliases and certificates) at its end."""
        head = struct.pack(">III", _JAVA_MAGIC, _JAVA_VERSION, self._count + len(last))
        body = b"".join((head, self._entries, *(_java_entry(*entry) for entry in last)))
        return body + _sha1(_JAVA_PASSWORD.encode("utf-16-be") + _JAVA_SALT + body)


def _java_entry(alias: str, der: bytes) -> bytes:
    name = alias.encode()
    start = struct.pack(f">IH{len(name)}sQ", _JAVA_CERTIFICATE, len(name), name, 0)
    return start + struct.pack(">H5sI", 5, b"X.509", len(der)) + der


def _sha1(data: bytes) -> bytes:
    """SHA-1, as the formats have it; without OpenSSL where CPython brings its own (see `digest.py`)."""
    try:
        from _sha1 import sha1  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from hashlib import sha1
    digest: bytes = sha1(data).digest()  # noqa: S324 - what a file is called, and a checksum that nobody relies on
    return digest
