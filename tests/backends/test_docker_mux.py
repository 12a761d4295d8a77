"""Many streams over one: each arrives whole and in order, none holds up another, and nothing is believed of the other side."""

import contextlib
import json
import os
import socket
import threading
import tty
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.backends import mux
from bot_bottle.backends.mux import HEAD, WINDOW, Descriptors, Mux
from support.waiting import wait_for


class Side:
    """One end, carried by a thread of its own until the stream ends."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.heard: list[dict] = []
        self.error: Exception | None = None
        self.mux = Mux(Descriptors(sock.fileno(), sock.fileno()), self.heard.append)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.mux.run(tick=lambda: 0.02)
        except Exception as error:
            self.error = error


@contextlib.contextmanager
def connected() -> Iterator[tuple[Side, Side]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one, other = Side(ours), Side(theirs)
        yield one, other
        for side in (one, other):
            side.sock.shutdown(socket.SHUT_RDWR) if side.thread.is_alive() else None
        for side in (one, other):
            side.thread.join(10)
            for number in list(side.mux._channels):
                side.mux.close(number)


def stream(one: Side, other: Side, number: int) -> tuple[int, int]:
    """A pipe that leads from `one` to `other`: where it is written to, and where it comes out."""
    source, into = os.pipe()
    out, sink = os.pipe()
    one.mux.open(number, source, writes=False)
    other.mux.open(number, sink, reads=False)
    return into, out


def drained(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.binary(max_size=70_000), min_size=1, max_size=4))
def test_streams_arrive_whole_whatever_is_in_them(contents):
    with connected() as (one, other):
        ends = [stream(one, other, number) for number in range(1, len(contents) + 1)]
        writers = []
        for (into, _), content in zip(ends, contents, strict=True):
            writers.append(threading.Thread(target=lambda i=into, c=content: _write(i, c)))
            writers[-1].start()
        one.thread.start()
        other.thread.start()
        assert [drained(out) for _, out in ends] == contents
        for writer in writers:
            writer.join(10)


def _write(descriptor: int, content: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(content)


def test_a_stream_that_stands_still_holds_up_no_other_and_costs_no_memory():
    with connected() as (one, other):
        stuck_into, stuck_out = stream(one, other, 1)
        into, out = stream(one, other, 2)
        flood = threading.Thread(target=_flood, args=(stuck_into,), daemon=True)
        flood.start()
        one.thread.start()
        other.thread.start()
        wait_for(lambda: one.mux._channels[1].under_way >= WINDOW, "the window to be full", within=20)
        writer = threading.Thread(target=_write, args=(into, b"y" * 1_000_000))
        writer.start()
        assert drained(out) == b"y" * 1_000_000
        writer.join(10)
        assert len(other.mux._channels[1].waiting) <= 2 * WINDOW
        os.close(stuck_out)
        flood.join(20)
        assert not flood.is_alive()


def _flood(descriptor: int) -> None:
    try:
        while True:
            os.write(descriptor, b"z" * 65536)
    except BrokenPipeError:
        os.close(descriptor)


def test_a_reader_that_leaves_is_told_to_the_writer():
    with connected() as (one, other):
        into, out = stream(one, other, 1)
        os.close(out)
        one.thread.start()
        other.thread.start()
        _flood(into)


@pytest.mark.parametrize(
    "frame",
    [
        HEAD.pack(1, mux.DATA, WINDOW + 1), HEAD.pack(0, mux.DATA, mux.LARGEST + 1),
        HEAD.pack(0, mux.DATA, 2) + b"[]", HEAD.pack(0, mux.DATA, 1) + b"{",
    ],
)  # fmt: skip
def test_what_is_no_frame_ends_it(frame):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        side = Side(ours)
        theirs.sendall(frame)
        side.thread.start()
        side.thread.join(10)
        assert isinstance(side.error, ValueError)


def test_more_than_may_be_under_way_ends_it():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        side = Side(ours)
        out, sink = os.pipe()
        side.mux.open(1, sink, reads=False)
        side.thread.start()
        theirs.settimeout(2)
        data = HEAD.pack(1, mux.DATA, WINDOW) + b"x" * WINDOW
        with contextlib.suppress(OSError):
            for _ in range(4):
                theirs.sendall(data)
        side.thread.join(10)
        assert isinstance(side.error, ValueError)
        os.close(out)
        side.mux.close(1)


@pytest.mark.parametrize("frame", [HEAD.pack(7, mux.DATA, 0), HEAD.pack(7, mux.DATA, 1) + b"x"])
def test_answers_that_nobody_reads_do_not_heap_up(frame, monkeypatch):
    monkeypatch.setattr(mux, "MOST_UNSENT", 1 << 20)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        side = Side(ours)
        side.thread.start()
        theirs.settimeout(30)
        with contextlib.suppress(OSError):
            for _ in range(40):
                theirs.sendall(frame * 20_000)
                if not side.thread.is_alive():
                    break
        theirs.shutdown(socket.SHUT_WR)
        side.thread.join(30)
        assert isinstance(side.error, ValueError)
        assert len(side.mux._outgoing) < 2 << 20


def test_what_waits_for_a_full_terminal_that_everybody_has_left_is_given_up():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        side = Side(ours)
        master, terminal = os.openpty()
        tty.setraw(terminal)
        os.set_blocking(master, False)
        side.mux.open(1, master, reads=False)
        side.thread.start()
        theirs.settimeout(10)
        theirs.sendall(HEAD.pack(1, mux.DATA, WINDOW) + b"x" * WINDOW)
        theirs.recv(HEAD.size, socket.MSG_PEEK)  # some of it went into the terminal
        os.close(terminal)
        heard = iter(lambda: theirs.recv(HEAD.size, socket.MSG_WAITALL), HEAD.pack(1, mux.SHUT, 0))
        assert {HEAD.unpack(one)[1] for one in heard} == {mux.CREDIT}
        theirs.shutdown(socket.SHUT_WR)
        side.thread.join(30)


@given(st.binary(max_size=200))
def test_nothing_that_comes_does_more_than_end_it(noise):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        side = Side(ours)
        theirs.sendall(noise)
        theirs.close()
        side._run()
        assert side.error is None or isinstance(side.error, (ValueError, OSError, RecursionError))


def test_messages_are_said_and_heard_beside_everything_else():
    with connected() as (one, other):
        one.mux.say({"do": "x", "text": "ü" * 1000})
        one.thread.start()
        other.thread.start()
        wait_for(lambda: other.heard, "the message")
        assert other.heard == [json.loads(json.dumps({"do": "x", "text": "ü" * 1000}))]
