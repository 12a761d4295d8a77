"""What waits for a person: what no route allows, to hosts under `ask:`, and requests with a secret in them (`on_match: hold`).

Waiting lets nothing through. A yes to a connection or request comes as another policy, by which it is judged anew; a yes to a
secret is for the one request that was asked about. Everything else is a no: no answer in time, no room, the agent gone, a
keeper that says something else. Those who want the same wait together, as one question.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bot_bottle.bundle.model import BundleLimits
from bot_bottle.policy.egress import HELD_REASONS, Wanted

TOGETHER = 8
"""How many may wait for the answer to one question."""
MOST_HELD = 32 << 20
"""Bytes of bodies that may wait for a person: half of what all may hold that waits to be looked at (`held.py`)."""
_MOST_METHOD, _MOST_PATH = 32, 2000
Left = Callable[[], "asyncio.Future[None]"]
"""Gives a future that is done when the agent has gone away."""


class Question(NamedTuple):
    """What a person is asked. `detector`, `place` and `fingerprint` are those of a secret that was found."""

    kind: str
    wanted: Wanted
    detector: str = ""
    place: str = ""
    fingerprint: str = ""

    @property
    def can_be_put(self) -> bool:
        """Whether a person could read it."""
        return len(self.wanted.method) <= _MOST_METHOD and len(self.wanted.path) <= _MOST_PATH

    def message(self, number: int) -> dict[str, Any]:
        return {"hold": number, "kind": self.kind, **self.wanted._asdict(), **self._asdict_of_secret()}

    def _asdict_of_secret(self) -> dict[str, str]:
        return {"detector": self.detector, "place": self.place, "fingerprint": self.fingerprint}


class _Open:
    """One question that waits for its answer, and how many wait with it."""

    def __init__(self, number: int, until: float, answer: "asyncio.Future[str]") -> None:
        self.number = number
        self.until = until
        self.answer = answer
        self.waiting = 0


class Asking:
    """All that waits in one bottle. `tell` says something to the keeper; `able`: there is somebody who could be asked."""

    def __init__(
        self, tell: Callable[[Mapping[str, Any]], object], *, limits: BundleLimits, able: bool
    ) -> None:
        self.able = able
        self._tell = tell
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._number = self._holds = 0
        self._open: dict[int, _Open] = {}
        self._shared: dict[Question, _Open] = {}
        self._changed: asyncio.Future[None] = self._loop.create_future()

    def __len__(self) -> int:
        return len(self._open)

    async def answer(
        self, question: Question, left: Left, settled: Callable[[], bool], *, holds: int = 0
    ) -> str:
        """Waits until `question` is answered: empty for a yes, else one of `HELD_REASONS`.

        Also empty as soon as `settled` says, after a change of the policy, that no answer is needed any more. `holds` is how
        many bytes wait with it.
        """
        if not question.can_be_put:
            return "held_failed"
        waits = self._join(question) if self._holds + holds <= MOST_HELD else None
        if waits is None:
            return "held_crowded"
        gone = left()
        waits.waiting += 1
        self._holds += holds
        try:
            return await self._wait(waits, gone, settled)
        finally:
            gone.cancel()
            self._holds -= holds
            self._leave(question, waits)

    async def _wait(self, waits: _Open, gone: "asyncio.Future[None]", settled: Callable[[], bool]) -> str:
        while True:
            changed, seconds = self._changed, max(0.0, waits.until - self._loop.time())
            awaited: list[asyncio.Future[Any]] = [waits.answer, gone, changed]
            await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return "held_left"
            if waits.answer.done():
                return waits.answer.result()
            if changed.done() and settled():
                return ""
            if self._loop.time() >= waits.until:
                return "held_expired"

    def _join(self, question: Question) -> _Open | None:
        """What is open for the same question, or else this one, asked now; None when there is no room."""
        same = self._shared.get(question)
        if same is not None:
            return same if same.waiting < TOGETHER else None
        if len(self._open) >= self._limits.holds:
            return None
        self._number += 1
        made = _Open(self._number, self._loop.time() + self._limits.hold_seconds, self._loop.create_future())
        self._open[made.number] = made
        if question.kind == "request":  # a yes to a secret is for one request alone
            self._shared[question] = made
        self._tell(question.message(made.number))
        return made

    def _leave(self, question: Question, waits: _Open) -> None:
        waits.waiting -= 1
        if waits.waiting:
            return
        if self._open.pop(waits.number, None) is not None:
            self._tell({"unhold": waits.number})
        if self._shared.get(question) is waits:
            del self._shared[question]

    # Told by the keeper

    def release(self, number: object, *, passes: bool, reason: object) -> None:
        """The keeper's answer, with one of `HELD_REASONS`; to what waits no more it changes nothing."""
        waits = self._open.pop(number, None) if isinstance(number, int) else None
        if waits is None or waits.answer.done():
            return
        known = reason if isinstance(reason, str) and reason in HELD_REASONS else "held_failed"
        waits.answer.set_result("" if passes else known)
        for question in [one for one, shared in self._shared.items() if shared is waits]:
            del self._shared[question]  # who comes now was not meant by the answer

    def policy_changed(self) -> None:
        """Another policy is in force: whatever waits looks whether it still has to."""
        before, self._changed = self._changed, self._loop.create_future()
        before.set_result(None)
