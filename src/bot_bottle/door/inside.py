"""Opening the door's listeners. Runs inside the bottle's network namespace, which the backend has entered.

Every IPv4 address is made local there, so that a client that ignores proxy variables still lands on a listener and
`getsockname()` tells which address it meant. Only light imports: this runs in a freshly forked process.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from bot_bottle.door.model import Listener

BACKLOG = 1024
IP_PKTINFO = 8  # socket.IP_PKTINFO exists from Python 3.12 on
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_RTM_NEWROUTE, _REQUEST_CREATE_EXCLUSIVE_ACK, _NLMSG_ERROR = 24, 0x1 | 0x400 | 0x200 | 0x4, 2
_RT_TABLE_LOCAL, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL, _RTA_OIF = 255, 4, 254, 2, 4
_EEXIST = 17


def open_listeners(listeners: Sequence[Listener]) -> list[socket.socket]:
    """Opens `listeners`, in order: non-blocking, not inherited by programs. Raises OSError, and then leaves none open."""
    _raise_loopback()
    _make_every_ipv4_address_local()
    opened: list[socket.socket] = []
    try:
        for listener in listeners:
            opened.append(_open(listener))
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _open(listener: Listener) -> socket.socket:
    datagrams = listener.kind == "dns-udp"
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if datagrams:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        else:
            # Not for datagrams: there it would let the agent bind the same port and take the queries.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((listener.address, listener.port))
        if not datagrams:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _raise_loopback() -> None:
    """`ip link set lo up`, unless it is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
        if not flags & _IFF_UP:
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _make_every_ipv4_address_local() -> None:
    """`ip route add local default dev lo` by netlink, so that no program is needed inside."""
    route = struct.pack(
        "BBBBBBBBI", socket.AF_INET, 0, 0, 0, _RT_TABLE_LOCAL, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL, 0
    )
    device = struct.pack("HHI", 8, _RTA_OIF, socket.if_nametoindex("lo"))
    length = 16 + len(route) + len(device)
    header = struct.pack("IHHII", length, _RTM_NEWROUTE, _REQUEST_CREATE_EXCLUSIVE_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(header + route + device)
        answer = netlink.recv(4096)
    if len(answer) < 20 or struct.unpack_from("H", answer, 4)[0] != _NLMSG_ERROR:
        raise OSError("the kernel gave no answer to the route request")
    error = -struct.unpack_from("i", answer, 16)[0]
    if error not in (0, _EEXIST):
        raise OSError(error, f"every IPv4 address could not be made local: {os.strerror(error)}")
