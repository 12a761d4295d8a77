"""Whose connection it is: which user of this machine holds the other end of a connection over loopback."""

import socket
import struct

_ESTABLISHED = "01"
STRANGE = -1
"""Somebody's whose user can't be told any more, as they closed their end at once."""


def user_of(peer: tuple[str, int], here: tuple[str, int]) -> int | None:
    """The uid that opened the connection from `peer` to `here`; None when its other end is not on this machine, or unseen."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    table = "/proc/self/net/tcp6" if family == socket.AF_INET6 else "/proc/self/net/tcp"
    wanted = [_end(family, peer), _end(family, here)]
    try:
        with open(table, encoding="ascii") as file:
            for line in file:
                parts = line.split()
                if parts[1:3] == wanted:
                    return int(parts[7]) if parts[3] == _ESTABLISHED else STRANGE
    except (OSError, UnicodeError, ValueError, IndexError):
        return None
    return None


def _end(family: socket.AddressFamily, end: tuple[str, int]) -> str:
    """As the kernel writes it: words of 32 bits in the machine's order."""
    packed = socket.inet_pton(family, end[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
