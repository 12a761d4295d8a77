"""The door: listeners opened inside a network namespace and passed out of it, all of them or none."""

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot_bottle.door import inside
from bot_bottle.door.model import STANDARD, Listener, listeners_for
from bot_bottle.door.passing import MAX_LISTENERS, receive_listeners, send_listeners
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.policy.ports import MOST_FURTHER, unreachable
from tests.bundle.harness import Holder


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    held = Holder()
    yield held
    held.close()


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_every_address_leads_to_the_listeners(
    holder: Holder, channel: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = channel
    holder.pass_listeners(STANDARD, theirs)
    sockets = receive_listeners(ours, len(STANDARD), 5)
    tls = sockets[2]
    tls.settimeout(30)
    for address in ("127.0.0.1", "192.0.2.77", "8.8.8.8", "169.254.169.254", "198.18.0.9"):
        with holder.connect(address, 443):
            accepted, _ = tls.accept()
            assert accepted.getsockname() == (address, 443)
            accepted.close()
    with pytest.raises(ConnectionRefusedError):
        holder.connect("192.0.2.77", 25)
    with holder.new_socket(family=socket.AF_INET6) as v6, pytest.raises(OSError, match="unreachable"):
        v6.connect(("2001:db8::1", 443))
    for sock in sockets:
        assert not os.get_inheritable(sock.fileno())
        sock.close()


def test_passed_listeners_are_non_blocking(channel: tuple[socket.socket, socket.socket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        send_listeners(channel[0], [server])
        (received,) = receive_listeners(channel[1], 1, 5)
        with received, pytest.raises(BlockingIOError):
            received.accept()


def test_when_one_cannot_be_opened_none_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_raise_loopback", lambda: None)
    monkeypatch.setattr(inside, "_make_every_ipv4_address_local", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = descriptors()
        wanted = [Listener("proxy", "127.0.0.1", 0), Listener("tls", "127.0.0.1", taken.getsockname()[1])]
        with pytest.raises(OSError, match="in use"):
            inside.open_listeners(wanted)
        assert descriptors() == before


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_than_expected_leaves_no_descriptor(
    channel: tuple[socket.socket, socket.socket], count: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        send_listeners(channel[0], [server, server])
        before = descriptors()
        with pytest.raises(OSError, match="2 of"):
            receive_listeners(channel[1], count, 5)
        assert descriptors() == before


def test_too_many_descriptors_leave_none(channel: tuple[socket.socket, socket.socket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(OSError, match="can't be passed"):
            send_listeners(channel[0], [server] * (MAX_LISTENERS + 1))
        numbers = array.array("i", [server.fileno()] * (MAX_LISTENERS + 20))
        channel[0].sendmsg([b"door"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        before = descriptors()
        with pytest.raises(OSError, match="listeners came through"):
            receive_listeners(channel[1], MAX_LISTENERS, 5)
        assert descriptors() == before


def test_what_is_no_socket_is_refused(channel: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "file").open("wb") as file:
        numbers = array.array("i", [server.fileno(), file.fileno()])
        channel[0].sendmsg([b"door"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        before = descriptors()
        with pytest.raises(OSError, match="socket"):
            receive_listeners(channel[1], 2, 5)
        assert descriptors() == before


def test_nothing_in_time_is_an_error(channel: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        receive_listeners(channel[1], 1, 0.01)


def test_further_ports_of_routes_get_a_listener_of_their_own() -> None:
    routes = [
        (8443, "https"),
        (8080, "http"),
        (9000, "http"),
        (9000, "https"),
        (443, "https"),
        (3128, "http"),
        (53, "https"),
    ]
    policy = EgressPolicy(
        routes=tuple(Route(host="ok.test", port=port, protocol=kind) for port, kind in routes)  # type: ignore[arg-type]
    )
    further = [(listener.kind, listener.port) for listener in listeners_for(policy)[len(STANDARD) :]]
    assert further == [("http", 8080), ("tls", 8443), ("tls", 9000)]
    assert listeners_for(EgressPolicy()) == STANDARD


def test_tcp_routes_get_their_listeners_first_and_a_shared_port_is_the_others() -> None:
    routes = [Route(host="web.test", port=port) for port in range(8000, 8040)]
    routes += [Route(host="db.test", port=port, protocol="tcp") for port in (9000, 8001, 443, 80)]
    further = listeners_for(EgressPolicy(tuple(routes)))[len(STANDARD) :]
    assert len(further) == MOST_FURTHER
    assert Listener("tcp", "0.0.0.0", 9000) in further
    assert Listener("tls", "0.0.0.0", 8001) in further
    assert unreachable(EgressPolicy(tuple(routes))) == {}
    tcp = tuple(Route(host="db.test", port=port, protocol="tcp") for port in (*range(1000, 1040), 53, 3128))
    assert list(unreachable(EgressPolicy(tcp))) == [53, *range(1032, 1040), 3128]
