"""The loop's selector, with a short cut: descriptors whose events go straight to a function, without asyncio.

asyncio pays about 10 µs for every wake-up, which is more than moving a piece of a tunnel's bytes costs. So as long as only
such descriptors have events, `select` handles them and waits on; it returns when asyncio itself has something to do.
"""

import math
import select
import selectors
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context, copy_context

from bot_bottle.typed import Any

Handle = Callable[[int], None]
"""Gets the epoll mask."""
Fault = Callable[[Exception, Context], None]
"""Gets what a handle raised, and the context in which it was given. Must not raise."""
_MOST = 256
_MASKS = {
    selectors.EVENT_READ: select.EPOLLIN,
    selectors.EVENT_WRITE: select.EPOLLOUT,
    selectors.EVENT_READ | selectors.EVENT_WRITE: select.EPOLLIN | select.EPOLLOUT,
}


class DirectSelector(selectors.BaseSelector):
    """epoll, for asyncio and beside it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._direct: dict[int, tuple[Handle, Context]] = {}
        self._asked_to_return = False
        self.fault: Fault | None = None
        """Without it what a handle raises ends the loop."""

    # Beside asyncio

    def watch(self, fd: int, mask: int, handle: Handle) -> None:
        """Calls `handle` on events of `fd` from now on."""
        self._epoll.register(fd, mask)
        self._direct[fd] = handle, copy_context()

    def rewatch(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        if self._direct.pop(fd, None) is not None:  # else its handle has failed
            self._epoll.unregister(fd)

    def closed(self, fd: int) -> None:
        """Instead of `unwatch`, of a descriptor that was just closed and had no other name: epoll has forgotten it by itself."""
        self._direct.pop(fd, None)

    def drop(self, fd: int) -> None:
        """Before `fd` is closed by somebody who does not know whether it is watched: its number will be another's."""
        self.unwatch(fd)

    def return_soon(self) -> None:
        """For a handle that gave asyncio something to do: a future's result, a callback."""
        self._asked_to_return = True

    # For asyncio

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = _number(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is already registered")
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._epoll.register(fd, _MASKS[events])
        self._direct.pop(fd, None)  # left of a descriptor that was closed, as epoll knew nothing of it
        self._keys[fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(_number(fileobj))
        try:
            self._epoll.unregister(key.fd)
        except OSError:  # closed before it was unregistered: epoll has forgotten it already
            pass
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        old = self._keys[_number(fileobj)]
        key = selectors.SelectorKey(fileobj, old.fd, events, data)
        if events != old.events:
            self._epoll.modify(old.fd, _MASKS[events])
        self._keys[old.fd] = key
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        end = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while True:
            events = self._epoll.poll(_wait(end), _MOST)
            ready = []
            for fd, mask in events:
                direct = self._direct.get(fd)
                if direct is not None:
                    try:
                        direct[0](mask)
                    except Exception as error:  # noqa: BLE001 - one connection's trouble is no other's
                        self._failed(fd, direct, error)
                    continue
                key = self._keys.get(fd)
                if key is not None:
                    ready.append((key, _understand(mask) & key.events))
            over = end is not None and time.monotonic() >= end
            if ready or over or self._asked_to_return or not events:
                self._asked_to_return = False
                return ready

    def _failed(self, fd: int, direct: tuple[Handle, Context], error: Exception) -> None:
        """What can't be handled is not watched any more: level-triggered, it would come again and again."""
        if self.fault is None:
            raise error
        if self._direct.get(fd) is direct:
            del self._direct[fd]
            with suppress(OSError):  # closed meanwhile
                self._epoll.unregister(fd)
        self._asked_to_return = True
        self.fault(error, direct[1])

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_number(fileobj)]

    def close(self) -> None:
        self._epoll.close()
        self._keys.clear()
        self._direct.clear()


def _wait(end: float | None) -> float:
    """Seconds for epoll, in whole milliseconds rounded up, so that a timer is not woken just before its time."""
    return -1 if end is None else max(0.0, math.ceil((end - time.monotonic()) * 1e3) * 1e-3)


def _understand(mask: int) -> int:
    """epoll's mask as a selector's; errors and hang-ups are for both to find out."""
    readable = selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0
    return readable | (selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0)


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
