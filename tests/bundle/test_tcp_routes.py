"""tcp routes: the address that DNS gave a name leads to that name on the route's port, and nothing else leads anywhere."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.door.model import listeners_for
from bot_bottle.policy.model import EgressPolicy, Route, Upstream
from support.servers import PostgresServer, SshServer, free_port
from tests.bundle.harness import Bundle, Holder, Server, read_all, read_head, served
from tests.bundle.hellos import client_hello

PROXY = ("127.0.0.1", 3128)


def greet(sock: socket.socket) -> None:
    """Speaks first, as databases and ssh do, then says everything back."""
    sock.sendall(b"hello\n")
    while data := sock.recv(65536):
        sock.sendall(data.upper())
    sock.sendall(b"bye\n")


def tcp(server: Server, host: str, port: int) -> Route:
    return Route(host=host, port=port, protocol="tcp", upstream=server.upstream())


@pytest.fixture(scope="module")
def bottle() -> Iterator[tuple[Holder, Bundle, Server]]:
    server = Server(greet)
    policy = EgressPolicy(
        (
            tcp(server, "db.test", 5432),
            tcp(server, "*.db.test", 5432),
            tcp(server, "other.test", 6432),
            tcp(server, "ssh.test", 443),
            tcp(server, "plain.test", 80),
            server.https("web.test"),
            server.http("web.test"),
            server.https("mixed.test", 6432),
            Route(host="localhost", port=5432, protocol="tcp"),
            Route(host="dead.test", port=5432, protocol="tcp", upstream=Upstream("127.0.0.1", free_port())),
        )
    )
    with served(policy, listeners=listeners_for(policy)) as (holder, bundle):
        yield holder, bundle, server
    server.close()


def address_of(holder: Holder, name: str) -> str:
    """What the bottle's DNS says."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    with holder.new_socket(socket.SOCK_DGRAM) as sock:
        sock.sendto(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1", ("127.0.0.53", 53))
        answer = sock.recv(4096)
    assert answer[3] & 15 == 0, f"{name} is not known"
    return socket.inet_ntoa(answer[-4:])


def is_refused(holder: Holder, address: str, port: int) -> bool:
    """Whether a connection there ends without a byte."""
    try:
        with holder.connect(address, port) as sock:
            return sock.recv(100) == b""
    except (ConnectionResetError, ConnectionRefusedError):
        return True


@pytest.mark.parametrize(
    ("name", "port"),
    [("db.test", 5432), ("a.b.db.test", 5432), ("other.test", 6432), ("ssh.test", 443), ("plain.test", 80)],
)
def test_a_name_is_reached_by_its_address_on_its_port(
    bottle: tuple[Holder, Bundle, Server], name: str, port: int
) -> None:
    holder, bundle, _ = bottle
    with holder.connect(address_of(holder, name), port) as sock:
        assert sock.recv(100) == b"hello\n"
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"bye\n"
    bundle.event("egress.allowed", via="tcp", host=name, port=port, protocol="tcp")
    closed = bundle.event("egress.closed", via="tcp", host=name, port=port)
    assert (closed["up"], closed["down"], closed["reason"]) == (18, 28, "done")


@pytest.mark.parametrize(
    ("name", "port", "reason"),
    [
        ("db.test", 6432, "port_not_allowed"),
        ("other.test", 5432, "port_not_allowed"),
        ("web.test", 5432, "port_not_allowed"),
        ("a.db.test", 6432, "port_not_allowed"),
    ],
)
def test_a_name_is_not_reached_on_another_port(
    bottle: tuple[Holder, Bundle, Server], name: str, port: int, reason: str
) -> None:
    holder, bundle, server = bottle
    address, before = address_of(holder, name), server.accepted
    if port == 6432:  # also some host's TLS, so it is read as that: only a hello says who was meant
        with holder.connect(address, port) as sock:
            sock.sendall(client_hello(name))
            assert b"hello" not in read_all(sock)
    else:
        assert is_refused(holder, address, port)
    bundle.event("egress.refused", host=name, port=port, reason=reason)
    assert server.accepted == before


@pytest.mark.parametrize(
    "address", ["203.0.113.9", "127.0.0.1", "10.0.0.1", "198.18.200.200", "198.18.0.0", "198.19.255.255"]
)
def test_an_address_that_stands_for_no_name_leads_nowhere(
    bottle: tuple[Holder, Bundle, Server], address: str
) -> None:
    holder, bundle, server = bottle
    before = server.accepted
    assert is_refused(holder, address, 5432)
    bundle.event("egress.refused", via="tcp", host=address, port=5432, reason="no_name")
    assert server.accepted == before


def test_a_port_that_no_route_names_refuses_at_once(bottle: tuple[Holder, Bundle, Server]) -> None:
    with pytest.raises(ConnectionRefusedError):
        bottle[0].connect(address_of(bottle[0], "db.test"), 22)


def test_on_a_shared_port_the_address_tells_tcp_from_tls(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, bundle, server = bottle
    web, ssh, before = address_of(holder, "web.test"), address_of(holder, "ssh.test"), server.accepted
    with holder.connect(web, 443) as sock:
        sock.sendall(b"SSH-2.0-x\r\n")
        assert b"hello" not in read_all(sock)
    bundle.event("egress.refused", via="tls", reason="not_tls")
    with holder.connect(web, 443) as sock:
        sock.sendall(client_hello("ssh.test"))
        assert b"hello" not in read_all(sock)
    bundle.event("egress.refused", via="tls", host="ssh.test", reason="protocol_not_allowed")
    with holder.connect("203.0.113.9", 443) as sock:
        sock.sendall(client_hello("ssh.test"))
        assert b"hello" not in read_all(sock)
    assert server.accepted == before
    with holder.connect(ssh, 443) as sock:
        assert sock.recv(100) == b"hello\n"
    with holder.connect(ssh, 80) as sock:  # the same name on a port that is not its own
        sock.sendall(b"GET / HTTP/1.1\r\nHost: ssh.test\r\n\r\n")
        assert b"port_not_allowed" in sock.recv(1000)


def test_connect_reaches_it_and_no_tls_is_asked_for(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, bundle, _ = bottle
    with holder.connect(*PROXY) as sock:
        sock.sendall(b"CONNECT DB.test:5432 HTTP/1.1\r\nHost: DB.test:5432\r\n\r\nearly")
        head, rest = read_head(sock)
        assert head.startswith(b"HTTP/1.1 200 ")
        sock.shutdown(socket.SHUT_WR)
        assert rest + read_all(sock) in (b"hello\nEARLYbye\n", b"EARLYhello\nbye\n")
    bundle.event("egress.closed", via="connect", host="db.test", port=5432, protocol="tcp", up=5)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("db.test:6432", "port_not_allowed"),
        ("other.test:5432", "port_not_allowed"),
        ("evil.test:5432", "host_not_allowed"),
        ("127.0.0.1:5432", "address_literal"),
        ("0x7f.1:5432", "address_literal"),
        ("198.18.0.1:5432", "address_literal"),
        ("db.test%00.evil.test:5432", "bad_target"),
        ("localhost:5432", "address_not_public"),
    ],
)
def test_connect_reaches_nothing_else(
    bottle: tuple[Holder, Bundle, Server], target: str, reason: str
) -> None:
    holder, _, server = bottle
    before = server.accepted
    with holder.connect(*PROXY) as sock:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert reason.encode() in read_all(sock)
    assert server.accepted == before


def test_plain_http_to_a_tcp_route_is_not_what_was_allowed(bottle: tuple[Holder, Bundle, Server]) -> None:
    holder, _, server = bottle
    before = server.accepted
    with holder.connect(*PROXY) as sock:
        sock.sendall(b"GET http://db.test:5432/ HTTP/1.1\r\nHost: db.test:5432\r\nConnection: close\r\n\r\n")
        assert b"protocol_not_allowed" in read_all(sock)
    assert server.accepted == before


def test_a_name_that_resolves_to_a_private_address_is_not_dialled(
    bottle: tuple[Holder, Bundle, Server],
) -> None:
    holder, bundle, _ = bottle
    assert is_refused(holder, "198.18.0.7", 5432)  # localhost's; DNS says something else of that one
    bundle.event("egress.refused", via="tcp", host="localhost", reason="address_not_public")


def test_an_upstream_that_is_not_there_ends_the_connection_and_is_recorded(
    bottle: tuple[Holder, Bundle, Server],
) -> None:
    holder, bundle, _ = bottle
    assert is_refused(holder, address_of(holder, "dead.test"), 5432)
    bundle.event("egress.failed", via="tcp", host="dead.test", reason="connect_failed")


def test_a_connection_on_which_nobody_speaks_ends() -> None:
    server = Server(lambda sock: read_all(sock) and None)
    policy = EgressPolicy((tcp(server, "db.test", 5432),))
    limits = BundleLimits(idle_seconds=0.2)
    with served(policy, listeners=listeners_for(policy), limits=limits) as (holder, bundle):
        assert is_refused(holder, address_of(holder, "db.test"), 5432)
        bundle.event("egress.closed", via="tcp", reason="idle")
    server.close()


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if not SshServer.program():
        pytest.skip("OpenSSH's server is not installed")
    with SshServer(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def test_ssh_and_its_tools_work_unchanged(ssh: SshServer, tmp_path: Path) -> None:
    route = Route(host="git.test", port=22, protocol="tcp", upstream=Upstream("127.0.0.1", ssh.port))
    policy = EgressPolicy((route,))
    with served(policy, listeners=listeners_for(policy)) as (holder, bundle):
        done = holder.run(["ssh", *ssh.options("git.test"), f"{ssh.user}@git.test", "echo from outside"])
        assert done.stdout == b"from outside\n", done.stderr
        refused = holder.run(
            ["ssh", *ssh.options("git.test"), "-o", "ConnectTimeout=5", f"{ssh.user}@203.0.113.9", "true"]
        )
        assert refused.returncode == 255
        bundle.event("egress.refused", host="203.0.113.9", port=22, reason="no_name")
        large = tmp_path / "large"
        large.write_bytes(os.urandom(3_000_000))
        back = holder.run(["ssh", *ssh.options("git.test"), f"{ssh.user}@git.test", f"cat {large}"])
        assert back.stdout == large.read_bytes()


def test_a_database_works_unchanged() -> None:
    if not PostgresServer.is_installed():
        pytest.skip("PostgreSQL is not installed")
    with PostgresServer() as server:
        route = Route(host="db.test", port=5432, protocol="tcp", upstream=Upstream("127.0.0.1", server.port))
        policy = EgressPolicy((route,))
        with served(policy, listeners=listeners_for(policy)) as (holder, _):
            ask = ["psql", "-At", "-h", "db.test", "-U", "me", "-d", "postgres", "-c"]
            done = holder.run([*ask, "select sum(n) from generate_series(1, 10000) n"])
            assert done.stdout == b"50005000\n", done.stderr
            ask[3] = "203.0.113.9"
            assert holder.run([*ask, "select 1"]).returncode == 2
