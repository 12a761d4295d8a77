"""ClientHellos for tests, from their parts."""

import struct


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def server_name(name: bytes) -> bytes:
    return vector(2, b"\0" + vector(2, name))


def client_hello(
    name: str | bytes | None,
    *,
    encrypted: bool = False,
    fragment: int = 1 << 14,
    extensions: list[tuple[int, bytes]] | None = None,
) -> bytes:
    """A hello of a TLS 1.3 client, in records of `fragment` bytes."""
    if extensions is None:
        extensions = [(10, vector(2, b"\0\x1d")), (43, vector(1, b"\3\4"))]
        if name is not None:
            extensions.insert(0, (0, server_name(name.encode() if isinstance(name, str) else name)))
        if encrypted:
            extensions.append((0xFE0D, b"\0" + bytes(60)))
    listed = b"".join(struct.pack("!H", kind) + vector(2, data) for kind, data in extensions)
    body = (
        b"\3\3"
        + bytes(32)
        + vector(1, bytes(32))
        + vector(2, b"\x13\1\x13\2")
        + vector(1, b"\0")
        + vector(2, listed)
    )
    return records(b"\1" + vector(3, body), fragment)


def records(message: bytes, fragment: int = 1 << 14) -> bytes:
    parts = [message[at : at + fragment] for at in range(0, len(message), fragment)]
    return b"".join(b"\x16\3\1" + vector(2, part) for part in parts)
