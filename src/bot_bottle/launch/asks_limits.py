"""What keeps an agent from wearing its operator down: how much it may ask, how fast, and what it was told no to before."""

import math
from collections.abc import Callable, Sequence

from bot_bottle.policy.approval import Ask, Proposal
from bot_bottle.policy.approval_cover import variant
from bot_bottle.policy.model import Route

MOST_OPEN = 16
BURST, EACH = 8, 20.0
"""Proposals that are taken at once, and seconds for each further one."""
REPEATS_BURST, REPEATS_EACH = 20, 3.0
"""The same for repetitions, which are answered in any case and beyond that only not written down."""
REFUSAL_HOLDS = 3600.0
MOST_WAITING = 128
"""Calls that wait at once."""


class Bucket:
    """Tokens that fill up again; `clock` is monotonic."""

    def __init__(self, burst: int, each: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._each = each
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def take(self) -> bool:
        """Whether there was one left."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def put_back(self) -> None:
        """Of the one that was taken, nothing came."""
        self._left += 1

    def wait(self) -> int:
        """Seconds until there is one."""
        self._fill()
        return max(0, math.ceil((1 - self._left) * self._each))

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(float(self._burst), self._left + (now - self._at) / self._each)
        self._at = now


class Refusals:
    """What the operator refused in this run, and that counts for an hour."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: list[tuple[Proposal, tuple[Route, ...]]] = []

    def add(self, proposal: Proposal) -> None:
        """Remembers a refusal."""
        self._kept.append((proposal, proposal.routes))

    def answer(self, ask: Ask, routes: Sequence[Route]) -> tuple[Proposal, str, int] | None:
        """The refusal that `ask` is answered from, what of it was refused, and for how many minutes that holds on."""
        now = self._clock()
        self._kept = [each for each in self._kept if each[0].ended_at + REFUSAL_HOLDS > now]
        for proposal, refused in reversed(self._kept):
            if what := variant(ask, routes, proposal.ask, refused):
                return proposal, what, math.ceil((proposal.ended_at + REFUSAL_HOLDS - now) / 60)
        return None
