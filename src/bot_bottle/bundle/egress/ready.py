"""Waiting until one socket can be read or written, or its other side is gone, with one registration for its whole life.

The registration is edge-triggered, so nothing has to be changed at the kernel from one wait to the next. That is right as long
as whoever waits has tried first and found that the socket has nothing (or takes nothing): every user here does.
"""

import asyncio
import select

from bot_bottle.bundle.egress.selector import DirectSelector

_MASK = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READ = ~select.EPOLLOUT
_LEFT = select.EPOLLRDHUP | select.EPOLLERR | select.EPOLLHUP
_WRITE = select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP


class Ready:
    """One reader, one writer and one who waits for the other side's end may wait at a time."""

    __slots__ = (
        "_ending", "_fd", "_leaver", "_loop", "_reader", "_selector", "_watched", "_writer", "drained",
    )  # fmt: skip

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
        self._leaver: asyncio.Future[None] | None = None

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

    def left(self) -> "asyncio.Future[None]":
        """Done when the other side has closed, or says that nothing follows, whatever of it waits to be read; and by `forget`."""
        if self._watched:
            self._selector.rewatch(self._fd, _MASK)  # else an end that came before would not be told again
        self._watch()
        self._leaver = self._loop.create_future()
        return self._leaver

    def forget(self) -> None:
        """Before the socket is closed or given to somebody else; whoever still waits gets an OSError."""
        if self._watched:
            self._watched = False
            self._selector.unwatch(self._fd)
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_exception(ConnectionAbortedError("closed meanwhile"))
        if self._leaver is not None and not self._leaver.done():
            self._leaver.set_result(None)
        self._reader = self._writer = self._leaver = None

    def _watch(self) -> None:
        if not self._watched:
            self._selector.watch(self._fd, _MASK, self._happened)
            self._watched = True

    def _happened(self, mask: int) -> None:
        reader, writer = self._reader, self._writer
        if mask & _READ:
            self.drained = False
            if mask & _LEFT:
                self._ending = True
        if reader is not None and mask & _READ:
            self._reader = None
            if not reader.done():
                reader.set_result(None)
                self._selector.return_soon()
        if self._leaver is not None and mask & _LEFT:
            leaver, self._leaver = self._leaver, None
            if not leaver.done():
                leaver.set_result(None)
                self._selector.return_soon()
        if writer is not None and mask & _WRITE:
            self._writer = None
            if not writer.done():
                writer.set_result(None)
                self._selector.return_soon()
