"""The bundle lives exactly as long as its keeper, and serves nothing before it is confined and has its door."""

import os
import signal
import socket

import pytest

from bot_bottle.door.model import STANDARD
from bot_bottle.policy.model import EgressPolicy, Route
from tests.bundle.harness import Bundle, Holder, read_all, served, until

POLICY = EgressPolicy(routes=(Route(host="ok.test", port=443),))


def test_it_says_which_policy_it_enforces_once_it_is_confined() -> None:
    with served(POLICY) as (_, bundle):
        assert bundle.ready["policy"] == POLICY.fingerprint()
        assert bundle.ready["confined"]["seccomp"] is True


def test_when_the_keepers_line_ends_the_way_out_is_gone() -> None:
    with served(POLICY) as (holder, bundle):
        with holder.connect("127.0.0.1", 3128) as sock:
            bundle.line.close()
            until(bundle.is_gone)
            try:
                assert read_all(sock) == b""
            except ConnectionResetError:
                pass
        with pytest.raises(ConnectionRefusedError):
            holder.connect("127.0.0.1", 3128)


def test_when_the_keeper_is_killed_the_bundle_dies_with_it() -> None:
    with served(POLICY) as (_, bundle):
        bundle.keeper.send_signal(signal.SIGKILL)
        until(bundle.is_gone)


def test_a_bundle_that_is_killed_leaves_no_way_out() -> None:
    with served(POLICY) as (holder, bundle):
        os.kill(bundle.pid, signal.SIGKILL)
        until(bundle.is_gone)
        for address, port in (("127.0.0.1", 3128), ("192.0.2.1", 443), ("192.0.2.1", 80)):
            with pytest.raises(ConnectionRefusedError):
                holder.connect(address, port)


def test_told_to_stop_it_ends_after_its_last_events() -> None:
    with served(POLICY) as (holder, bundle):
        for _ in range(3):
            with holder.connect("127.0.0.1", 3128) as sock:
                sock.sendall(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n\r\n")
                read_all(sock)
        bundle.line.sendall(b'{"stop": true}\n')
        folded = bundle.hear(lambda message: message.get("data", {}).get("count"))
        assert folded["data"]["count"] == 2
        until(bundle.is_gone)


def test_ctrl_c_does_not_reach_it() -> None:
    with served(POLICY) as (holder, bundle):
        os.kill(bundle.pid, signal.SIGINT)
        os.kill(bundle.pid, signal.SIGHUP)
        with holder.connect("127.0.0.1", 3128) as sock:
            sock.sendall(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 403 ")


def test_what_it_does_not_understand_it_says_so() -> None:
    with served(POLICY) as (_, bundle):
        for line in (b"nonsense\n", b"[]\n", b'{"unknown": 1}\n', b"\xff\n"):
            bundle.messages.clear()
            bundle.line.sendall(line)
            assert bundle.hear(lambda message: "error" in message)


def test_a_door_that_closes_without_listeners_is_a_failure() -> None:
    bundle = Bundle(POLICY, None)
    bundle.door.close()
    said = bundle.hear(lambda message: "failed" in message)
    assert "0 of 5 listeners" in said["failed"]
    until(bundle.is_gone)
    bundle.close()


def test_other_listeners_than_planned_are_a_failure() -> None:
    holder = Holder()
    bundle = Bundle(POLICY, None)
    holder.pass_listeners(STANDARD[:2], bundle.door)
    assert "2 of 5 listeners" in bundle.hear(lambda message: "failed" in message)["failed"]
    bundle.close()
    holder.close()


def test_without_a_keeper_it_does_not_wait_for_the_door() -> None:
    bundle = Bundle(POLICY, None)
    bundle.line.shutdown(socket.SHUT_RDWR)
    until(bundle.is_gone)
    bundle.close()
