"""Reading the name out of a TLS ClientHello, and nothing else. Pure; every input gives a hello, "more, please" or a refusal.

Stricter than TLS: one handshake message and nothing behind it in its records, no extension twice, exactly one name.
"""

from bot_bottle.typed import NamedTuple

MAX_HELLO = 16 * 1024
"""Of the message; with post-quantum key shares and tickets real ones have about 2 KiB."""
_HANDSHAKE, _CLIENT_HELLO, _HOST_NAME = 22, 1, 0
_SERVER_NAME, _PROTOCOLS = b"\x00\x00", b"\x00\x10"
_ENCRYPTED_HELLO, _ENCRYPTED_NAME = b"\xfe\x0d", b"\xff\xce"
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


def _vector(data: bytes, at: int, width: int, end: int) -> tuple[int, int]:
    """Where the vector at `at`, whose length has `width` bytes, begins and ends. Raises BadHello when that is behind `end`."""
    start = at + width
    stop = start + int.from_bytes(data[at:start], "big")
    if stop > end:
        raise BadHello("a length points past the end")
    return start, stop


def read_hello(received: bytes) -> Hello | None:
    """What the bytes received so far say; None while the hello isn't whole. Raises BadHello."""
    message = _reassemble(received)
    return None if message is None else _parse(message)


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


def _parse(hello: bytes) -> Hello:
    end = len(hello)
    start, at = _vector(hello, 2 + 32, 1, end)
    if at - start > 32:
        raise BadHello("a session id of impossible size")
    start, at = _vector(hello, at, 2, end)
    ciphers = at - start
    start, at = _vector(hello, at, 1, end)
    if not ciphers or ciphers % 2 or at == start:
        raise BadHello("no list of ciphers or compressions")
    if at == end:
        return Hello(None, False)
    at, stop = _vector(hello, at, 2, end)
    if stop != end:
        raise BadHello("something follows the extensions")
    found: dict[bytes, bytes] = {}
    while at < end:
        kind = hello[at : at + 2]
        if kind in found:
            raise BadHello("an extension stands twice")
        start, at = _vector(hello, at + 2, 2, end)
        found[kind] = hello[start:at]
    encrypted = _ENCRYPTED_HELLO in found or _ENCRYPTED_NAME in found
    return Hello(
        _name(found[_SERVER_NAME]) if _SERVER_NAME in found else None,
        encrypted,
        _protocols(found[_PROTOCOLS]) if _PROTOCOLS in found else (),
    )


def _name(extension: bytes) -> str:
    end = len(extension)
    at, stop = _vector(extension, 0, 2, end)
    start, last = _vector(extension, at + 1, 2, end)
    if stop != end or last != end or extension[at] != _HOST_NAME or start == last:
        raise BadHello("not exactly one server name")
    name = extension[start:]
    if not name.isascii():
        raise BadHello("a server name that is not ASCII")
    return name.decode("ascii")


def _protocols(extension: bytes) -> tuple[bytes, ...]:
    end = len(extension)
    at, stop = _vector(extension, 0, 2, end)
    found = []
    while at < end:
        start, at = _vector(extension, at, 1, end)
        found.append(extension[start:at])
    if stop != end or not all(found) or not found:
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
