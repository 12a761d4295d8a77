"""Ways out that are no HTTP or TLS through the door: other ports, datagrams, other networks, this machine under its many names."""

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_response, served
from tests.bundle.hellos import client_hello

HERE = ("localhost", "127.0.0.1", "127.1", "0", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "host.docker.internal",
        "gateway.docker.internal", "host.containers.internal", "169.254.169.254", "metadata.google.internal", "0251.0376.0251.0376",
        "ip6-localhost", "localhost.localdomain", "ok.test.localhost")  # fmt: skip


@pytest.fixture(scope="module")
def secret() -> Iterator[Server]:
    """A service of this machine that nobody allowed."""
    server = Server(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def bottle() -> Iterator[tuple[Holder, Bundle]]:
    server = Server(read_all)
    policy = EgressPolicy(routes=(server.https("ok.test"), server.http("ok.test"), Route("*.wild.test", 443)))
    with served(policy) as found:
        yield found
    server.close()


@pytest.mark.parametrize("port", [853, 5353, 25, 22, 8443, 4443])
def test_a_port_that_no_route_names_takes_nothing(port: int, bottle: tuple[Holder, Bundle]) -> None:
    """DNS over TLS, and whatever else could be on a port of its own."""
    with pytest.raises(ConnectionRefusedError):
        bottle[0].connect("192.0.2.53", port)


@pytest.mark.parametrize("name", ["dns.example.net", "one.one.one.one", None, "1.1.1.1"])
def test_dns_over_https_is_a_host_like_any_other(name: str | None, bottle: tuple[Holder, Bundle]) -> None:
    holder, bundle = bottle
    with holder.connect("1.1.1.1", 443) as sock:
        sock.sendall(client_hello(name))
        assert read_all(sock)[0] == 21  # an alert
    bundle.hear(lambda message: message.get("event") == "egress.refused")


@pytest.mark.parametrize("port", [443, 80, 123, 500, 4500])
def test_datagrams_go_nowhere(port: int, bottle: tuple[Holder, Bundle]) -> None:
    """QUIC and the like: nobody listens, and the kernel says so."""
    with bottle[0].new_socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.9", port))
        sock.send(b"\xc0\0\0\0\1" + bytes(1200))
        with pytest.raises(ConnectionRefusedError):
            sock.recv(10)


def test_ipv6_has_no_way_at_all(bottle: tuple[Holder, Bundle]) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with bottle[0].new_socket(kind, socket.AF_INET6) as sock:
            reached = sock.connect_ex(("2001:db8::1", 443))
        assert reached in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)


def test_there_is_no_interface_that_leads_anywhere(bottle: tuple[Holder, Bundle]) -> None:
    """So that pings, and any protocol that the kernel knows, end where they began."""
    asked = bottle[0].run(["cat", "/proc/net/dev", "/proc/net/route", "/proc/net/ipv6_route"])
    names = {line.split(":")[0].strip() for line in asked.stdout.decode().splitlines() if ":" in line}
    assert names == {"lo"}
    routes = asked.stdout.decode().split("Iface\t")[1].splitlines()[1:]
    assert all(line.split()[-1] == "lo" or line.split()[0] == "lo" for line in routes if line)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("via", ["connect", "proxy", "transparent"])
def test_this_machine_is_reached_under_no_name(
    via: str, name: str, secret: Server, bottle: tuple[Holder, Bundle]
) -> None:
    holder, _ = bottle
    before = secret.accepted
    place = f"{name}:{secret.port}"
    with holder.connect(
        "127.0.0.1" if via != "transparent" else "192.0.2.1", 3128 if via != "transparent" else 80
    ) as sock:
        if via == "connect":
            sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        elif via == "proxy":
            sock.sendall(f"GET http://{place}/ HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        else:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        head, body = read_response(sock)
        assert head.split()[1] in (b"400", b"403", b"421"), head
        assert b"secret" not in body
    assert secret.accepted == before


def test_this_machine_s_loopback_is_not_the_bottles(secret: Server, bottle: tuple[Holder, Bundle]) -> None:
    for address in ("127.0.0.1", "127.0.0.2", "0.0.0.0"):
        with pytest.raises(ConnectionRefusedError):
            bottle[0].connect(address, secret.port)


@pytest.mark.parametrize(
    "name", ["host.docker.internal", "metadata.google.internal", "evil.test", "a" * 60 + ".evil.test"]
)
def test_a_name_that_is_not_allowed_is_asked_of_nobody(name: str, bottle: tuple[Holder, Bundle]) -> None:
    """DNS tunnels: the answer is made here, at once, and says that there is no such name."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    query = b"\xab\xcd\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", 16, 1)
    with bottle[0].new_socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.53", 53))
        sock.send(query)
        reply = sock.recv(1000)
    assert reply[3] & 15 == 3
    assert len(reply) == len(query)


def test_plain_http_beside_an_allowed_https_host_is_not_allowed(bottle: tuple[Holder, Bundle]) -> None:
    with bottle[0].connect("192.0.2.1", 80) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x.wild.test\r\n\r\n")
        head, body = read_response(sock)
    assert head.split()[1] == b"403"
    assert b"port_not_allowed" in body or b"protocol_not_allowed" in body


@pytest.mark.parametrize(
    "name",
    ["ok.test\0.evil.test", "ok.test%00.evil.test", "evil.test\0ok.test", "ok.test.evil.test", "evilok.test"],
)
def test_a_host_that_looks_like_an_allowed_one_is_not(name: str, bottle: tuple[Holder, Bundle]) -> None:
    holder, _ = bottle
    with holder.connect("192.0.2.1", 443) as sock:
        sock.sendall(client_hello(name))
        assert read_all(sock)[0] == 21
    with holder.connect("127.0.0.1", 3128) as sock:
        sock.sendall(f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode())
        assert read_response(sock)[0].split()[1] in (b"400", b"403")
