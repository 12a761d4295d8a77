"""Who may use the page: one-time links, and the sessions that they are exchanged for.

A session has two secrets. The cookie goes by the name of the host, whatever the port, so another server on this machine could
be sent it; the page's key is known to the page alone, and nothing is answered without both.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from bot_bottle.digest import sha256_hex

LINK_SECONDS = 600.0
LINKS = 4
WRONG_TRIES = 100
"""So many wrong keys, and every link is void: who has to guess gets no further, and the operator is told."""

IDLE_SECONDS = 12 * 3600.0
SESSIONS = 8


class Session:
    """A browser that came by a link. `streams` counts its open event streams, which keep it alive."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.page_key = secrets.token_urlsafe(32)
        self.used_at = now
        self.streams = 0


class Entry(NamedTuple):
    """What a browser gets for a link."""

    cookie: str
    session: Session


class Access:
    """Links and sessions. Only their digests are looked up, so that no comparison tells how much of a guess was right."""

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or _clock
        self._links: dict[str, float] = {}
        self._sessions: dict[str, Session] = {}
        self._wrong = 0

    def new_link(self) -> str:
        """The key of a new one-time link; the oldest one is void when there are too many."""
        key = secrets.token_urlsafe(32)
        while len(self._links) >= LINKS:
            del self._links[next(iter(self._links))]
        self._links[sha256_hex(key.encode())] = self._clock() + LINK_SECONDS
        self._wrong = 0
        return key

    def enter(self, key: str, cookie: str = "") -> Entry | None:
        """Exchanges a link's key, which is used up by it; a browser that has a session keeps that one. None for a wrong key."""
        now = self._clock()
        digest = sha256_hex(_bytes(key))
        for held, until in list(self._links.items()):
            if until <= now:
                del self._links[held]
        found = [held for held in self._links if hmac.compare_digest(held, digest)]
        if not found:
            self._wrong += 1
            return None
        del self._links[found[0]]
        if session := self._by_cookie(cookie):
            return Entry(cookie, session)
        return self._new_session(now)

    @property
    def void(self) -> bool:
        """Whether the links were given up because of wrong keys. Asking gives them up."""
        if self._wrong < WRONG_TRIES or not self._links:
            return False
        self._links.clear()
        return True

    def session(self, cookie: str, page_key: str) -> Session | None:
        """The session that has both secrets."""
        session = self._by_cookie(cookie)
        if session is None or not hmac.compare_digest(session.page_key.encode(), _bytes(page_key)):
            return None
        session.used_at = self._clock()
        return session

    def leave(self, session: Session) -> None:
        """Ends it."""
        self._sessions.pop(session.name, None)

    def holds(self, session: Session) -> bool:
        """Whether it has not ended."""
        return self._alive(session) and self._sessions.get(session.name) is session

    def _new_session(self, now: float) -> Entry:
        for session in [each for each in self._sessions.values() if not self._alive(each)]:
            self.leave(session)
        while len(self._sessions) >= SESSIONS:
            self.leave(min(self._sessions.values(), key=lambda each: each.used_at))
        cookie = secrets.token_urlsafe(32)
        session = Session(sha256_hex(cookie.encode()), now)
        self._sessions[session.name] = session
        return Entry(cookie, session)

    def _by_cookie(self, cookie: str) -> Session | None:
        session = self._sessions.get(sha256_hex(_bytes(cookie)))
        if session is None or self._alive(session):
            return session
        self.leave(session)
        return None

    def _alive(self, session: Session) -> bool:
        return bool(session.streams) or self._clock() - session.used_at < IDLE_SECONDS


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _clock() -> float:
    """Goes on while the machine sleeps, and can't be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
