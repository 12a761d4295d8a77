"""Carrying bytes between two sockets once everything about them is decided: the path that has to be fast.

All tunnels share one epoll of their own, inside the loop's: one wake-up of the loop serves every socket that is ready, and
costs no task, timer or callback for each. A direction holds at most one buffer that its target did not take yet, and its
source is not read until that is gone.
"""

import asyncio
import select
import socket
import struct
from typing import NamedTuple

BUFFER = 64 * 1024
_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
_ROUNDS = 4
_RESET = struct.pack("ii", 1, 0)


class Carried(NamedTuple):
    """Bytes from the agent (`up`) and to it (`down`); `reason` says why it ended: `done`, `reset`, `idle`."""

    up: int
    down: int
    reason: str


class _End:
    """One of a tunnel's two sockets; `pending` is what came from the other one and could not be sent here yet.

    While something is pending the other one is not read, so its end is met only when everything of it was sent.
    """

    __slots__ = ("carried", "ended", "fd", "mask", "other", "pending", "recv_into", "send", "sock", "tunnel")

    other: "_End"

    def __init__(self, sock: socket.socket, tunnel: "_Tunnel") -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recv_into = sock.recv_into
        self.send = sock.send
        self.tunnel = tunnel
        self.pending = b""
        self.ended = False
        self.carried = 0
        self.mask = _READ


class _Tunnel:
    __slots__ = ("active", "agent", "done", "upstream")

    def __init__(self, agent: socket.socket, upstream: socket.socket, now: float) -> None:
        self.agent, self.upstream = _End(agent, self), _End(upstream, self)
        self.agent.other, self.upstream.other = self.upstream, self.agent
        self.active = now
        self.done: asyncio.Future[Carried] = asyncio.get_running_loop().create_future()


class Pump:
    """Belongs to one loop; `idle` seconds without a byte end a tunnel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, idle: float) -> None:
        self._loop = loop
        self._idle = idle
        self._epoll = select.epoll()
        self._ends: dict[int, _End] = {}
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._now = loop.time()
        loop.add_reader(self._epoll.fileno(), self._serve)
        loop.call_later(min(idle, 30.0), self._sweep)

    async def carry(self, agent: socket.socket, upstream: socket.socket) -> Carried:
        """Carries bytes both ways until both sides have ended, one fails, or none says anything; closes both."""
        self._now = self._loop.time()
        tunnel = _Tunnel(agent, upstream, self._now)
        try:
            for end in (tunnel.agent, tunnel.upstream):
                self._ends[end.fd] = end
                self._epoll.register(end.fd, end.mask)
            return await tunnel.done
        finally:
            self._finish(tunnel, "reset")

    def _serve(self) -> None:
        self._now = self._loop.time()
        for _ in range(_ROUNDS):
            ready = self._epoll.poll(0, 512)
            if not ready:
                return
            for fd, mask in ready:
                end = self._ends.get(fd)
                if end is not None:
                    try:
                        self._move(end, mask)
                    except (OSError, ValueError):  # ValueError: closed a moment ago, by this very round
                        self._finish(end.tunnel, "reset")

    def _move(self, end: _End, mask: int) -> None:
        end.tunnel.active = self._now
        if mask & _WRITE and end.pending:
            self._drain(end)
        if mask & ~_WRITE and end.mask & _READ:
            self._read(end)
        elif mask & (select.EPOLLERR | select.EPOLLHUP):
            # It was reset while it was not being read: nothing can reach it or come from it any more.
            self._finish(end.tunnel, "reset")

    def _read(self, end: _End) -> None:
        target = end.other
        try:
            count = end.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        if not count:
            end.ended = True
            self._watch(end, end.mask & ~_READ)
            if target.ended:
                self._finish(end.tunnel, "done")
            else:
                target.sock.shutdown(socket.SHUT_WR)
            return
        try:
            sent = target.send(self._view[:count])
        except (BlockingIOError, InterruptedError):
            sent = 0
        end.carried += count
        if sent < count:
            target.pending = bytes(self._view[sent:count])
            self._watch(end, end.mask & ~_READ)
            self._watch(target, target.mask | _WRITE)

    def _drain(self, end: _End) -> None:
        try:
            sent = end.send(end.pending)
        except (BlockingIOError, InterruptedError):
            return
        end.pending = end.pending[sent:]
        if end.pending:
            return
        self._watch(end, end.mask & ~_WRITE)
        self._watch(end.other, end.other.mask | _READ)

    def _watch(self, end: _End, mask: int) -> None:
        if mask != end.mask and self._ends.get(end.fd) is end:
            end.mask = mask
            self._epoll.modify(end.fd, mask)

    def _forget(self, end: _End) -> None:
        if self._ends.get(end.fd) is end:
            del self._ends[end.fd]
            self._epoll.unregister(end.fd)

    def _finish(self, tunnel: _Tunnel, reason: str) -> None:
        for end in (tunnel.agent, tunnel.upstream):
            self._forget(end)
            if end.sock.fileno() >= 0:
                if reason != "done":
                    end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.sock.close()
        if not tunnel.done.done():
            tunnel.done.set_result(Carried(tunnel.agent.carried, tunnel.upstream.carried, reason))

    def _sweep(self) -> None:
        now = self._loop.time()
        tunnels = {end.tunnel for end in self._ends.values()}
        for tunnel in tunnels:
            if now - tunnel.active > self._idle:
                self._finish(tunnel, "idle")
        self._loop.call_later(min(self._idle, 30.0), self._sweep)
