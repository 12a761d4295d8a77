"""Waiting until one socket can be read or written, with one registration for its whole life.

The registration is edge-triggered, so nothing has to be changed at the kernel from one wait to the next. That is right as long
as whoever waits has tried first and found that the socket has nothing (or takes nothing): every user here does.
"""

import asyncio
import select

from bot_bottle.bundle.egress.selector import DirectSelector

_MASK = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READ = ~select.EPOLLOUT
_ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITE = select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP


class Ready:
    """One reader and one writer may wait at a time."""

    __slots__ = ("_ending", "_fd", "_loop", "_reader", "_selector", "_watched", "_writer", "drained")

    def __init__(self, fd: int, selector: DirectSelector) -> None:
        self._fd = fd
        self._selector = selector
        self._loop = asyncio.get_running_loop()
        self._watched = False
        self._ending = False
        self.drained = False
        """Whether all that had come was read, so that trying again before something happens is of no use."""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def read_all(self) -> None:
        """For whoever got fewer bytes than there was room for, or none: only what comes from now on is news.

        The other side's end is said once, perhaps together with its last bytes, so behind that one has to try.
        """
        self.drained = not self._ending

    def readable(self) -> "asyncio.Future[None]":
        self._watch()
        self._reader = self._loop.create_future()
        return self._reader

    def writable(self) -> "asyncio.Future[None]":
        self._watch()
        self._writer = self._loop.create_future()
        return self._writer

    def forget(self) -> None:
        """Before the socket is closed or given to somebody else; whoever still waits gets an OSError."""
        if self._watched:
            self._watched = False
            self._selector.unwatch(self._fd)
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_exception(ConnectionAbortedError("closed meanwhile"))
        self._reader = self._writer = None

    def _watch(self) -> None:
        if not self._watched:
            self._selector.watch(self._fd, _MASK, self._happened)
            self._watched = True

    def _happened(self, mask: int) -> None:
        reader, writer = self._reader, self._writer
        if mask & _READ:
            self.drained = False
            if mask & _ENDING:
                self._ending = True
        if reader is not None and mask & _READ:
            self._reader = None
            if not reader.done():
                reader.set_result(None)
                self._selector.return_soon()
        if writer is not None and mask & _WRITE:
            self._writer = None
            if not writer.done():
                writer.set_result(None)
                self._selector.return_soon()
