"""Reading the name out of a TLS ClientHello, and nothing else. Pure; every input gives a hello, "more, please" or a refusal.

Stricter than TLS: one handshake message and nothing behind it in its records, no extension twice, exactly one name.
"""

from bot_bottle.typed import NamedTuple

MAX_HELLO = 16 * 1024
"""Of the message; with post-quantum key shares and tickets real ones have about 2 KiB."""
_HANDSHAKE, _CLIENT_HELLO, _HOST_NAME = 22, 1, 0
_SERVER_NAME, _PROTOCOLS, _ENCRYPTED_HELLO, _ENCRYPTED_NAME = 0x0000, 0x0010, 0xFE0D, 0xFFCE
_MAX_FRAGMENT = 1 << 14
_MAX_RECORDS = 256


class Hello(NamedTuple):
    """`server_name` is the raw text of SNI (None: none was sent); `encrypted`: an inner hello may stand behind it.

    `protocols` are those that ALPN offers; none when it was not sent.
    """

    server_name: str | None
    encrypted: bool
    protocols: tuple[bytes, ...] = ()


class BadHello(Exception):
    """These bytes begin no ClientHello that could be judged."""


class _Bytes:
    """A cursor that refuses to read past its end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise BadHello("a length points past the end")
        part, self.at = self.data[self.at : end], end
        return part

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))

    @property
    def left(self) -> int:
        return len(self.data) - self.at


def read_hello(received: bytes) -> Hello | None:
    """What the bytes received so far say; None while the hello isn't whole. Raises BadHello."""
    message = _reassemble(received)
    return None if message is None else _parse(_Bytes(message))


def _reassemble(received: bytes) -> bytes | None:
    """The handshake message's body out of its records."""
    message = b""
    at = 0
    for _ in range(_MAX_RECORDS):
        if at >= len(received):
            return None
        if received[at] != _HANDSHAKE:
            raise BadHello("not a TLS handshake")
        header = received[at : at + 5]
        if len(header) > 1 and header[1] != 3:
            raise BadHello("not a TLS version")
        if len(header) < 5:
            return None
        size = int.from_bytes(header[3:5], "big")
        if not 0 < size <= _MAX_FRAGMENT:
            raise BadHello("a record of impossible size")
        message += received[at + 5 : at + 5 + size]
        if message and message[0] != _CLIENT_HELLO:
            raise BadHello("not a ClientHello")
        if len(message) >= 4:
            whole = 4 + int.from_bytes(message[1:4], "big")
            if whole > MAX_HELLO:
                raise BadHello("a ClientHello of impossible size")
            if len(message) > whole or (len(message) == whole and len(received) < at + 5 + size):
                raise BadHello("something follows the ClientHello in its record")
            if len(message) == whole:
                return message[4:]
        at += 5 + size
    raise BadHello("a ClientHello in too many records")


def _parse(hello: _Bytes) -> Hello:
    hello.take(2 + 32)
    if len(hello.vector(1)) > 32:
        raise BadHello("a session id of impossible size")
    ciphers = hello.vector(2)
    if not ciphers or len(ciphers) % 2 or not hello.vector(1):
        raise BadHello("no list of ciphers or compressions")
    if not hello.left:
        return Hello(None, False)
    extensions = _Bytes(hello.vector(2))
    if hello.left:
        raise BadHello("something follows the extensions")
    found: dict[int, bytes] = {}
    while extensions.left:
        kind = extensions.number(2)
        if kind in found:
            raise BadHello("an extension stands twice")
        found[kind] = extensions.vector(2)
    encrypted = _ENCRYPTED_HELLO in found or _ENCRYPTED_NAME in found
    return Hello(
        _name(found[_SERVER_NAME]) if _SERVER_NAME in found else None,
        encrypted,
        _protocols(found[_PROTOCOLS]) if _PROTOCOLS in found else (),
    )


def _name(extension: bytes) -> str:
    outer = _Bytes(extension)
    names = _Bytes(outer.vector(2))
    kind, name = names.number(1), names.vector(2)
    if outer.left or names.left or kind != _HOST_NAME or not name:
        raise BadHello("not exactly one server name")
    if not name.isascii():
        raise BadHello("a server name that is not ASCII")
    return name.decode("ascii")


def _protocols(extension: bytes) -> tuple[bytes, ...]:
    outer = _Bytes(extension)
    offered = _Bytes(outer.vector(2))
    found = []
    while offered.left:
        found.append(offered.vector(1))
    if outer.left or not all(found) or not found:
        raise BadHello("a malformed list of protocols")
    return tuple(found)


def alert(description: int) -> bytes:
    """A fatal TLS alert record."""
    return bytes((21, 3, 3, 0, 2, 2, description))


ACCESS_DENIED = alert(49)
UNRECOGNIZED_NAME = alert(112)
DECODE_ERROR = alert(50)
INTERNAL_ERROR = alert(80)
NO_APPLICATION_PROTOCOL = alert(120)
