"""Which approvals are used, and those for one use: used up in the moment in which they let something through.

A route that was granted for once lets one connection or request through. It is used up here before anything goes out, and the
keeper has been told so by then: neither another request in the same moment nor another bundle after this one gets it again. What
it let through goes on to its end.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bot_bottle.policy.model import EgressPolicy, Route

SAID_EVERY = 5.0
"""Seconds between two times that the keeper is told of the use of the same approval."""
Tell = Callable[[Mapping[str, Any]], bool]
"""Says something to the keeper; whether it will hear it whatever becomes of this process."""


class Grants:
    """`spent` are those for once that were used before, under another bundle. `clock` is the loop's."""

    def __init__(self, tell: Tell, *, spent: Iterable[str], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._spent = set(spent)
        self._said: dict[str, float] = {}
        self._of: EgressPolicy | None = None
        self._usable = EgressPolicy()

    @property
    def used_up(self) -> int:
        """How many of those for once have been used."""
        return len(self._spent)

    def usable(self, policy: EgressPolicy) -> EgressPolicy:
        """`policy` without what is used up."""
        if policy is not self._of:
            left = tuple(route for route in policy.routes if not (route.once and route.grant in self._spent))
            self._usable = policy if len(left) == len(policy.routes) else policy._replace(routes=left)
            self._of = policy
        return self._usable

    def take(self, route: Route) -> bool:
        """Notes that `route` lets something through; False when it may not, as it is used up, or the use can't be told."""
        if not route.once:
            self._say_used(route.grant)
            return True
        if route.grant in self._spent:
            return False
        self._spent.add(route.grant)
        self._of = None
        return self._tell({"used": route.grant})

    def over(self, grant: str) -> None:
        """What the approval for once let through has ended."""
        self._tell({"spent": grant})

    def _say_used(self, grant: str) -> None:
        now = self._clock()
        if now - self._said.get(grant, -SAID_EVERY) >= SAID_EVERY:
            self._said[grant] = now
            self._tell({"used": grant})
