"""Which resolved addresses an agent's connection may go to: those of the public internet, and no others.

The tables are IANA's special-purpose registries, and the addresses at which clouds serve secrets to their machines.
Addresses that carry another one inside (v4-mapped, NAT64, 6to4, Teredo) are refused as a whole: who wants to reach the
inner address can name it.
"""

import socket

_NOT_PUBLIC_V4 = (
    "0.0.0.0/8",  # "this network"; Linux takes 0.0.0.0 for itself
    "10.0.0.0/8",
    "100.64.0.0/10",  # carrier-grade NAT; cloud metadata at 100.100.100.200
    "127.0.0.0/8",
    "168.63.129.16/32",  # a public number, but the host's own agent on Azure
    "169.254.0.0/16",  # link-local, metadata
    "172.16.0.0/12",
    "192.0.0.0/24",  # IETF assignments; metadata at 192.0.0.192
    "192.0.2.0/24",
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarking, and the pool of the bottle's own DNS
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_PUBLIC_V6 = "2000::/3"
_NOT_PUBLIC_V6 = (
    "2001::/23",  # IETF assignments: Teredo, benchmarking, ORCHID
    "2001:db8::/32",
    "2002::/16",  # 6to4
    "3fff::/20",
)


def _network(text: str) -> tuple[int, int]:
    """Network and mask as integers."""
    address, _, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    bits = 8 * len(packed)
    return int.from_bytes(packed, "big"), ((1 << bits) - 1) ^ ((1 << (bits - int(length))) - 1)


_V4 = tuple(map(_network, _NOT_PUBLIC_V4))
_V6 = tuple(map(_network, _NOT_PUBLIC_V6))
_V6_NET, _V6_MASK = _network(_PUBLIC_V6)


def address_is_public(ip: str) -> bool:
    """Whether `ip` (a numeric address as `getaddrinfo` gives it) is one of the public internet; False when in doubt."""
    try:
        if ":" in ip:
            number = int.from_bytes(socket.inet_pton(socket.AF_INET6, ip), "big")
            return number & _V6_MASK == _V6_NET and not any(number & mask == net for net, mask in _V6)
        number = int.from_bytes(socket.inet_pton(socket.AF_INET, ip), "big")
    except (OSError, ValueError):  # a scope id ("fe80::1%eth0"), a NUL, or no address at all
        return False
    return not any(number & mask == net for net, mask in _V4)


_PRIVATE_ENDS = (
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
)
"""RFC 6761, 6762 (with its appendix G) and 8375: names that are never those of a public server."""


def name_is_private(host: str) -> bool:
    """Whether the canonical `host` can be told by its spelling not to be a public server's; a name without a dot is one's own."""
    return "." not in host or any(host == end or host.endswith("." + end) for end in _PRIVATE_ENDS)
