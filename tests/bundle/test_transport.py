"""TLS as a transport, without a network: what its ends, errors and buffers look like to whoever uses it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bot_bottle.bundle.egress import tls
from bot_bottle.bundle.egress.authority import Authority
from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.bundle.egress.tls import TlsBroken, TlsTransport
from bot_bottle.bundle.egress.wire import SocketTransport, Wire

GARBAGE = b"\x17\x03\x03\x00\x20" + bytes(32)


class Peer:
    """The other side, in memory; `sock` carries what it says."""

    def __init__(self, sock: socket.socket, authority: Authority) -> None:
        self.sock = sock
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=authority.pem)
        self.tls = context.wrap_bio(self.inside, self.outside, server_hostname="ok.test")

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.push()
                await self.pull()
            else:
                return await self.push()

    async def push(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self.outside.read())

    async def pull(self) -> None:
        self.inside.write(await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18))


def exhaust(peer: Peer) -> None:
    """Reads whatever it was sent, and what comes behind it."""
    while True:
        peer.tls.read()


def together(scene: Callable[[Peer, TlsTransport], Awaitable[None]]) -> None:
    """Plays `scene` with both ends of a connection whose handshake is done."""

    async def play(selector: DirectSelector) -> None:
        authority = Authority(("ok.test",))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        with ours, theirs:
            peer = Peer(theirs, authority)
            transport = TlsTransport(ours, selector, authority.context("ok.test"))
            await asyncio.gather(transport.handshake(10), peer.shake())
            await scene(peer, transport)
            transport.close()

    selector = DirectSelector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        loop.run_until_complete(asyncio.wait_for(play(selector), 20))
    finally:
        loop.close()


def test_what_came_before_an_alert_is_given_and_the_alert_is_no_proper_end() -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        peer.tls.write(b"half of it")
        peer.inside.write(GARBAGE)  # so that it ends with an alert
        with pytest.raises(ssl.SSLError, match=r"BAD_RECORD|bad record"):
            exhaust(peer)
        await peer.push()
        assert transport.receive(100) == b"half of it"
        for _ in range(2):
            with pytest.raises(TlsBroken):
                transport.receive(100)

    together(scene)


def test_the_end_of_tls_is_a_proper_end_and_the_end_of_the_connection_is_not() -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        assert transport.receive(100) is None
        peer.tls.write(b"all")
        with contextlib.suppress(ssl.SSLError):
            peer.tls.unwrap()
        await peer.push()
        assert [transport.receive(100), transport.receive(100)] == [b"all", b""]

    async def other(peer: Peer, transport: TlsTransport) -> None:
        peer.tls.write(b"all")
        await peer.push()
        peer.sock.shutdown(socket.SHUT_WR)
        assert transport.receive(100) == b"all"
        with pytest.raises(TlsBroken):
            transport.receive(100)

    together(scene)
    together(other)


def test_small_reads_get_every_byte_of_large_records() -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        text = bytes(range(256)) * 300
        peer.tls.write(text)
        await peer.push()
        got = b""
        while (data := transport.receive(1000)) is not None:
            assert 0 < len(data) <= 1000
            got += data
        assert got == text

    together(scene)


def test_what_the_kernel_does_not_take_waits_and_arrives() -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        wire = Wire(transport, idle=10)
        text = b"x" * (2 << 20)
        sending = asyncio.ensure_future(wire.write(text))
        got = 0
        while got < len(text):
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    got += len(peer.tls.read(1 << 16))
            if got < len(text):
                await peer.pull()
        await sending
        assert wire.sent == len(text)

    together(scene)


@pytest.mark.parametrize("heard_at", [0, 10_000])
def test_what_was_read_before_it_was_asked_for_is_not_waited_for(heard_at: int) -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        wire = Wire(transport, idle=2)
        reading = asyncio.ensure_future(wire.some(1000))
        await asyncio.sleep(0)
        peer.tls.write(bytes(20_000))
        await peer.push()
        got = len(await reading)
        while got < 20_000:
            got += len(await wire.some(1000))
            if got == heard_at:
                peer.tls.write(b"more")
                await peer.push()
                await asyncio.sleep(
                    0.01
                )  # so that the loop hears of it before the rest of the first was read
        if heard_at:
            while got < 20_004:
                got += len(await wire.some(1000))

    together(scene)


@pytest.mark.parametrize("over_tls", [True, False])
def test_an_end_that_comes_with_the_last_bytes_is_met(over_tls: bool) -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            bare = SocketTransport(ours, transport.ready._selector)
            wire = Wire(transport if over_tls else bare, idle=5)
            for last in (b"not yet", b"the last"):
                reading = asyncio.ensure_future(wire.some())
                await asyncio.sleep(0)
                if over_tls:
                    peer.tls.write(last)
                    if last == b"the last":
                        with contextlib.suppress(ssl.SSLError):
                            peer.tls.unwrap()
                    await peer.push()
                else:
                    theirs.send(last)
                if last == b"the last":
                    (peer.sock if over_tls else theirs).shutdown(socket.SHUT_WR)
                assert await reading == last
            assert await wire.some() == b""
            bare.close()

    together(scene)


def test_what_was_heard_of_quiet_is_taken_back_by_what_comes() -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        wire = Wire(transport, idle=5)
        reading = asyncio.ensure_future(wire.some())
        await asyncio.sleep(0)
        peer.tls.write(b"first")
        await peer.push()
        assert await reading == b"first"
        assert wire.is_quiet()
        peer.sock.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0.01)
        assert not wire.is_quiet()

    together(scene)


def test_closing_wakes_whoever_waits() -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        wire = Wire(transport, idle=100)
        waiting = asyncio.ensure_future(wire.some())
        await asyncio.sleep(0)
        wire.abort()
        with pytest.raises(OSError, match="closed meanwhile"):
            await waiting

    together(scene)


def test_of_many_connections_each_gets_smaller_buffers() -> None:
    before = TlsTransport.alive
    try:
        for number in (1, 100, 500, 100_000):
            tls._are_alive(number)
            assert TlsTransport.most == tls._SMALLEST or TlsTransport.most * number <= tls._TOGETHER
            assert tls._SMALLEST <= TlsTransport.most <= tls.PIECE
    finally:
        tls._are_alive(before)


def test_every_transport_that_ends_is_counted_off() -> None:
    before = TlsTransport.alive

    async def scene(peer: Peer, transport: TlsTransport) -> None:
        assert TlsTransport.alive == before + 1
        transport.abort()
        transport.close()

    together(scene)
    assert TlsTransport.alive == before


def test_a_peer_that_asks_for_answers_and_takes_none_is_ended() -> None:
    async def scene(peer: Peer, transport: TlsTransport) -> None:
        transport._outgoing.write(bytes(tls._MOST_ANSWERS + 1))
        peer.tls.write(b"more")
        await peer.push()
        with pytest.raises(TlsBroken):
            transport.receive(100)

    together(scene)


def test_the_leaf_s_file_has_no_name(tmp_path: Path) -> None:
    authority = Authority(("ok.test",))
    assert Path(f"/proc/self/fd/{authority._file}").readlink().name.startswith("memfd:")
