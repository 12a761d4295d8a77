"""The guard of a bottle over its life: made anew when its policy or its credentials change, and asked by everybody here.

Imported only where there is something to look for, and before the bundle is confined.
"""

import os
from collections.abc import Callable, Sequence

from bot_bottle.bundle.egress.credentials import Credentials
from bot_bottle.bundle.egress.guard import Note, SecretGuard
from bot_bottle.bundle.egress.heads import Body, Headers
from bot_bottle.bundle.egress.hooks import Filter, Head
from bot_bottle.bundle.egress.pardon import Pardon, Passed
from bot_bottle.bundle.egress.wire import Wire
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.secret import Secret


class Guarding:
    """The `Guard` of `hooks.py` for the policy and the credentials that are in force at each moment."""

    def __init__(
        self,
        policy: Callable[[], EgressPolicy],
        credentials: Credentials,
        sensitive: Sequence[Secret],
        note: Note,
    ) -> None:
        self._policy = policy
        self._credentials = credentials
        self._sensitive = tuple(sensitive)
        self._note = note
        self._key = os.urandom(16)
        self._for: EgressPolicy | None = None
        credentials.changed = self._forget
        self._guard = self._now()

    def _forget(self) -> None:
        self._for = None

    def _now(self) -> SecretGuard:
        policy = self._policy()
        if policy is not self._for:
            self._guard = SecretGuard(
                policy,
                self._credentials,
                self._sensitive,
                retired=self._credentials.retired,
                key=self._key,
                note=self._note,
            )
            self._for = policy
        return self._guard

    def host(self, name: str) -> str:
        return self._now().host(name)

    def shown(self, text: str) -> str:
        return self._now().shown(text)

    def head(
        self, wanted: Wanted, route: Route, method: str, target: bytes, headers: Headers, passed: Passed
    ) -> Head:
        return self._now().head(wanted, route, method, target, headers, passed)

    def before_body(self, framing: Body, headers: Headers, wanted: Wanted, route: Route) -> None:
        self._now().before_body(framing, headers, wanted, route)

    async def body(
        self, agent: Wire, framing: Body, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes | None:
        return await self._now().body(agent, framing, headers, wanted, route, pardon)

    async def collected(
        self, data: bytes, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes:
        return await self._now().collected(data, headers, wanted, route, pardon)

    async def whole(self, data: bytes, headers: Headers, wanted: Wanted, route: Route) -> bytes:
        return await self._now().whole(data, headers, wanted, route)

    def message_limit(self, route: Route) -> int | None:
        return self._now().message_limit(route)

    async def frame(self, data: bytes, wanted: Wanted, route: Route) -> bytes:
        return await self._now().frame(data, wanted, route)

    def reflection(self, route: Route) -> Filter | None:
        return self._now().reflection(route)
