"""One connection of a browser: whose it is, and how long it may ask for nothing."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from bot_bottle.host import peers

SILENT_SECONDS = 10.0
"""A connection on which no whole request has come by then ends."""


def allowed_users() -> frozenset[int]:
    """Whose connections are taken: those of the operator's user and of root, and of who became root by sudo."""
    users = {0, os.geteuid()}
    before = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and before.isdecimal():
        users.add(int(before))
    return frozenset(users)


def connection_class(users: frozenset[int], announce: Callable[[str], None]) -> type[H11Protocol]:
    """uvicorn's, but for connections of other users of this machine: those end before a byte is read.

    It keeps them from using up connections and tries; what holds them off for good is the link's key.
    """
    said: set[int] = set()

    class Connection(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            user = _user(transport)
            if user is not None and user not in users:
                transport.abort()
                if user not in said and len(said) < 8:
                    said.add(user)
                    announce(f"Another user of this machine (uid {user}) tried to open the inbox.")
                return
            self.loop.call_later(SILENT_SECONDS, self._end_if_silent)

        def _end_if_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Connection


def _user(transport: asyncio.Transport) -> int | None:
    peer: Any = transport.get_extra_info("peername")
    here: Any = transport.get_extra_info("sockname")
    if not peer or not here:
        return peers.STRANGE  # it is gone already
    return peers.user_of(peer[:2], here[:2])
