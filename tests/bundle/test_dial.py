"""Dialling: every resolved address is checked, the checked one is dialled, and a name is resolved exactly once."""

import asyncio
import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from bot_bottle.bundle.egress import dial
from bot_bottle.bundle.egress.dial import Dialer, DialFailed
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.model import Route, Upstream

ROUTE = Route(host="name.test", port=443)


class Resolver:
    """Answers each time with the next of its answers: a rebinding attacker's server."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0)


def dialled(resolver: Resolver, route: Route = ROUTE, *, port: int = 443) -> socket.socket:
    async def run() -> socket.socket:
        with ThreadPoolExecutor(1) as executor:
            limits = BundleLimits(dial_seconds=1.0, resolve_seconds=1.0)
            return await Dialer(limits, executor, resolve=resolver).dial(route, route.host, port)

    return asyncio.run(run())


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "198.18.0.1"]
)
@pytest.mark.parametrize("others", [[], ["1.1.1.1"]])
def test_one_address_that_is_not_public_condemns_the_name(
    address: str, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*arguments: object) -> None:
        raise AssertionError("dialled")

    monkeypatch.setattr(dial, "connect", never)
    for addresses in ([*others, address], [address, *others]):
        with pytest.raises(DialFailed) as failed:
            dialled(Resolver(addresses))
        assert failed.value.refused
        assert failed.value.reason == "address_not_public"


def test_the_checked_address_is_dialled_and_the_name_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled_to: list[object] = []

    async def connect(sock: socket.socket, address: str, port: int, seconds: float) -> None:
        dialled_to.append((address, port))

    monkeypatch.setattr(dial, "connect", connect)
    resolver = Resolver(["1.1.1.1"], ["127.0.0.1"])
    dialled(resolver).close()
    assert dialled_to == [("1.1.1.1", 443)]
    assert resolver.asked == [("name.test", 443)]


def test_a_public_address_of_the_host_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "_is_own", lambda address: address == "1.1.1.1")
    with pytest.raises(DialFailed) as failed:
        dialled(Resolver(["1.1.1.1"]))
    assert failed.value.reason == "address_of_host"


def test_where_no_descriptor_is_free_nothing_is_dialled_unchecked() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(DialFailed) as failed:
            dial._is_own("1.1.1.1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed.value.reason == "connect_failed"


def test_the_hosts_own_addresses_are_known() -> None:
    assert dial._is_own("127.0.0.1")
    assert not dial._is_own("192.0.2.1")


def test_an_upstream_of_the_bottle_file_may_be_private() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        route = Route(host="name.test", port=80, upstream=Upstream(host="127.0.0.1", port=port))
        resolver = Resolver()
        dialled(route=route, resolver=resolver).close()
        assert resolver.asked == []
        named = Route(host="name.test", port=80, upstream=Upstream(host="model.internal", port=port))
        dialled(route=named, resolver=Resolver(["127.0.0.1"])).close()


def test_the_next_address_is_tried_when_one_does_not_accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        named = Route(host="name.test", port=80, upstream=Upstream(host="model.internal", port=port))
        with dialled(route=named, resolver=Resolver(["127.0.0.7", "127.0.0.1"])) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)


def test_names_that_do_not_resolve_are_reported() -> None:
    def failing(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    for resolver, reason in ((failing, "not_resolved"), (Resolver([]), "not_resolved")):
        with pytest.raises(DialFailed) as failed:
            dialled(resolver)  # type: ignore[arg-type]
        assert failed.value.reason == reason
        assert not failed.value.refused
