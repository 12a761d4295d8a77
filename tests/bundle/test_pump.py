"""The pump: bytes both ways, ends and resets as they were meant, memory that does not grow."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.bundle.egress.pump import BUFFER, Carried, Pump
from bot_bottle.bundle.egress.selector import DirectSelector


def pair() -> tuple[socket.socket, socket.socket]:
    """A TCP connection: the far end, blocking with a deadline, and the end for the pump."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    far.settimeout(10)
    near.setblocking(False)
    return far, near


def pumped(talk: Callable[[socket.socket, socket.socket], object], *, idle: float = 60.0) -> Carried:
    """Runs `talk(agent, upstream)` in a thread, with a pump between the two."""

    async def run() -> Carried:
        loop = asyncio.get_running_loop()
        pump = Pump(loop, selector, idle=idle)
        (agent, near_agent), (upstream, near_upstream) = pair(), pair()
        carrying = asyncio.create_task(pump.carry(near_agent, near_upstream))
        try:
            await loop.run_in_executor(None, talk, agent, upstream)
        finally:
            agent.close()
            upstream.close()
        carried = await asyncio.wait_for(carrying, 10)
        assert near_agent.fileno() == near_upstream.fileno() == -1
        assert not selector._direct
        return carried

    selector = DirectSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(run())


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def test_bytes_go_both_ways_and_are_counted() -> None:
    def talk(agent: socket.socket, upstream: socket.socket) -> None:
        agent.sendall(b"question")
        assert upstream.recv(100) == b"question"
        upstream.sendall(b"the answer")
        assert agent.recv(100) == b"the answer"
        agent.shutdown(socket.SHUT_WR)
        upstream.shutdown(socket.SHUT_WR)

    assert pumped(talk) == Carried(8, 10, "done")


@pytest.mark.parametrize("first", [0, 1])
def test_one_side_may_end_while_the_other_goes_on(first: int) -> None:
    def talk(*ends: socket.socket) -> None:
        early, late = ends[first], ends[1 - first]
        early.sendall(b"last words")
        early.shutdown(socket.SHUT_WR)
        assert read_all(late) == b"last words"
        for _ in range(100):
            late.sendall(bytes(10_000))
        late.shutdown(socket.SHUT_WR)
        assert len(read_all(early)) == 1_000_000

    assert pumped(talk).reason == "done"


def test_both_may_end_while_much_is_still_under_way() -> None:
    size = 3_000_000

    def fill(sock: socket.socket) -> int:
        """Sends until nothing more is taken."""
        sock.settimeout(0.2)
        sent = 0
        try:
            while sent < size:
                sent += sock.send(bytes(min(65536, size - sent)))
        except TimeoutError:
            pass
        sock.settimeout(10)
        sock.shutdown(socket.SHUT_WR)
        return sent

    def talk(agent: socket.socket, upstream: socket.socket) -> None:
        up, down = fill(agent), fill(upstream)
        assert len(read_all(upstream)) == up
        assert len(read_all(agent)) == down

    assert pumped(talk).reason == "done"


def test_a_side_that_does_not_read_stops_the_other_instead_of_filling_memory() -> None:
    def talk(agent: socket.socket, upstream: socket.socket) -> None:
        upstream.setblocking(False)
        sent = 0
        idle_rounds = 0
        while idle_rounds < 50:
            try:
                sent += upstream.send(bytes(1 << 16))
                idle_rounds = 0
            except BlockingIOError:
                idle_rounds += 1
                paused.wait(0.005)
        assert sent < 64 << 20
        upstream.settimeout(10)
        upstream.shutdown(socket.SHUT_WR)
        assert len(read_all(agent)) == sent
        agent.shutdown(socket.SHUT_WR)

    paused = threading.Event()
    assert pumped(talk).reason == "done"
    assert BUFFER <= 1 << 16


@pytest.mark.parametrize("which", [0, 1])
def test_a_reset_is_passed_on_as_a_reset(which: int) -> None:
    def talk(*ends: socket.socket) -> None:
        ends[which].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends[which].close()
        with pytest.raises(ConnectionResetError):
            ends[1 - which].recv(10)

    assert pumped(talk).reason == "reset"


def test_a_tunnel_in_which_nothing_happens_ends() -> None:
    def talk(agent: socket.socket, upstream: socket.socket) -> None:
        with pytest.raises(ConnectionResetError):
            agent.recv(10)

    assert pumped(talk, idle=0.2).reason == "idle"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 200_000)), max_size=8))
def test_whatever_is_sent_arrives_whole_and_in_order(pieces: list[tuple[bool, int]]) -> None:
    up = b"".join(bytes((number % 251,)) * size for number, (is_up, size) in enumerate(pieces) if is_up)
    down = b"".join(bytes((number % 251,)) * size for number, (is_up, size) in enumerate(pieces) if not is_up)

    def talk(agent: socket.socket, upstream: socket.socket) -> None:
        def send(sock: socket.socket, data: bytes) -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        senders = [threading.Thread(target=send, args=pair) for pair in ((agent, up), (upstream, down))]
        for sender in senders:
            sender.start()
        received: dict[str, bytes] = {}
        readers = [
            threading.Thread(target=lambda: received.update(up=read_all(upstream))),
            threading.Thread(target=lambda: received.update(down=read_all(agent))),
        ]
        for thread in readers:
            thread.start()
        for thread in (*senders, *readers):
            thread.join(10)
        assert received == {"up": up, "down": down}

    assert pumped(talk) == Carried(len(up), len(down), "done")
