"""Carrying bytes between two sockets once everything about them is decided: the path that has to be fast.

Events come straight from epoll (`selector.py`): no task, timer or callback for any of them. A direction holds at most one
buffer that its target did not take yet, and its source is not read until that is gone.
"""

import asyncio
import select
import socket
import struct
from functools import partial

from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.typed import NamedTuple

BUFFER = 64 * 1024
_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
_SWEEP = 30.0
_RESET = struct.pack("ii", 1, 0)


class Carried(NamedTuple):
    """Bytes from the agent (`up`) and to it (`down`); `reason` says why it ended: `done`, `reset`, `idle`, or what
    `stop` was given."""

    up: int
    down: int
    reason: str


class _End:
    """One of a tunnel's two sockets; `pending` is what came from the other one and could not be sent here yet.

    While something is pending the other one is not read, so its end is met only when everything of it was sent.
    """

    __slots__ = (
        "carried",
        "ended",
        "fd",
        "mask",
        "other",
        "pending",
        "recv_into",
        "send",
        "sock",
        "tunnel",
        "watched",
    )

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
        self.watched = False


class _Tunnel:
    __slots__ = ("active", "agent", "done", "quiet_since", "upstream")

    def __init__(self, agent: socket.socket, upstream: socket.socket) -> None:
        self.agent, self.upstream = _End(agent, self), _End(upstream, self)
        self.agent.other, self.upstream.other = self.upstream, self.agent
        self.active = True
        self.quiet_since = 0.0
        self.done: asyncio.Future[Carried] = asyncio.get_running_loop().create_future()


class Pump:
    """Belongs to one loop and its selector; `idle` seconds without a byte end a tunnel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, selector: DirectSelector, *, idle: float) -> None:
        self._loop = loop
        self._selector = selector
        self._idle = idle
        self._tunnels: dict[socket.socket, _Tunnel] = {}
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        loop.call_later(min(idle, _SWEEP), self._sweep)

    async def carry(self, agent: socket.socket, upstream: socket.socket) -> Carried:
        """Carries bytes both ways until both sides have ended, one fails, or none says anything; closes both."""
        tunnel = _Tunnel(agent, upstream)
        self._tunnels[agent] = tunnel
        try:
            for end in (tunnel.agent, tunnel.upstream):
                self._selector.watch(end.fd, end.mask, partial(self._serve, end))
                end.watched = True
            return await tunnel.done
        finally:
            self._finish(tunnel, "reset")

    def carried(self, agent: socket.socket, before: int) -> tuple[int, int]:
        """The bytes that the tunnel of `agent` has carried so far, up (and `before` it began) and down; 0 when it has ended."""
        tunnel = self._tunnels.get(agent)
        return (before + tunnel.agent.carried, tunnel.upstream.carried) if tunnel else (0, 0)

    def stop(self, agent: socket.socket, reason: str) -> None:
        """Ends the tunnel of `agent` at once, with a reset both ways."""
        if agent in self._tunnels:
            self._finish(self._tunnels[agent], reason)

    def _serve(self, end: _End, mask: int) -> None:
        end.tunnel.active = True
        try:
            if mask & _WRITE and end.pending:
                self._drain(end)
            if mask & ~_WRITE and end.mask & _READ:
                self._read(end)
            elif mask & (select.EPOLLERR | select.EPOLLHUP):
                # It was reset while it was not being read: nothing can reach it or come from it any more.
                self._finish(end.tunnel, "reset")
        except OSError:
            self._finish(end.tunnel, "reset")

    def _read(self, end: _End) -> None:
        target = end.other
        try:
            count = end.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        if not count:
            end.ended = True
            if target.ended:
                self._finish(end.tunnel, "done")
                return
            self._watch(end, end.mask & ~_READ)
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
        if mask != end.mask:
            end.mask = mask
            self._selector.rewatch(end.fd, mask)

    def _finish(self, tunnel: _Tunnel, reason: str) -> None:
        self._tunnels.pop(tunnel.agent.sock, None)
        for end in (tunnel.agent, tunnel.upstream):
            if end.sock.fileno() >= 0:
                if reason != "done":
                    end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.sock.close()
            if end.watched:
                end.watched = False
                self._selector.closed(end.fd)
        if not tunnel.done.done():
            tunnel.done.set_result(Carried(tunnel.agent.carried, tunnel.upstream.carried, reason))
            self._selector.return_soon()

    def _sweep(self) -> None:
        """Ends tunnels in which nothing happened; looked at so rarely that no time has to be noted for each piece."""
        # First: whatever fails here, it is looked again.
        self._loop.call_later(min(self._idle, _SWEEP), self._sweep)
        now = self._loop.time()
        for tunnel in list(self._tunnels.values()):
            if tunnel.active:
                tunnel.active, tunnel.quiet_since = False, now
            elif now - tunnel.quiet_since > self._idle:
                self._end_idle(tunnel)

    def _end_idle(self, tunnel: _Tunnel) -> None:
        try:
            self._finish(tunnel, "idle")
        except Exception as error:  # noqa: BLE001 - then whoever waits for it has to, and the others are looked at
            if not tunnel.done.done():
                tunnel.done.set_exception(error)
