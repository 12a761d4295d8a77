"""A request with a secret in it, which a person may let go as it is: this one, with what was shown of it, and nothing else.

Where a secret is found, it waits; if it may go, it is looked at again, and what else is found in it is asked about as well.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from bot_bottle.bundle.egress.asking import Asking, Left, Question
from bot_bottle.bundle.egress.denial import Refusal, explain
from bot_bottle.policy.egress import Wanted

T = TypeVar("T")
Passed = frozenset[bytes]
"""Secrets, as they were found, that may go with one request."""
NOTHING: Passed = frozenset()


class SecretHeld(Refusal):
    """A secret was found for which a person is to be asked; refused where nobody can be. `texts` are what was found."""

    def __init__(self, message: str, *, wanted: Wanted, texts: Passed, **what: str) -> None:
        super().__init__(403, "secret_held", message, wanted=wanted, **what)
        self.texts = texts


class Pardon:
    """One request's. `note` records what happens to it; `shown` is the agent's text as a person may read it."""

    def __init__(
        self, asking: Asking, left: Left, note: Callable[[str, SecretHeld], None], shown: Callable[[str], str]
    ) -> None:
        self._asking = asking
        self._left = left
        self._note = note
        self._shown = shown
        self._passed = NOTHING

    async def through(self, look: Callable[[Passed], T], *, holds: int = 0) -> T:
        """What `look` gives, once everything that it objects to may go. Raises Refusal, and what `look` raises.

        `holds` is how much of a body waits meanwhile.
        """
        while True:
            try:
                return look(self._passed)
            except SecretHeld as held:
                await self._ask(held, holds)

    async def through_turns(self, look: Callable[[Passed], Awaitable[T]], *, holds: int) -> T:
        """The same of what is looked at bit by bit."""
        while True:
            try:
                return await look(self._passed)
            except SecretHeld as held:
                await self._ask(held, holds)

    async def _ask(self, held: SecretHeld, holds: int) -> None:
        wanted, what = held.wanted, held.what
        if not self._asking.able or wanted is None:
            raise held
        self._note("egress.held", held)
        question = Question(
            "secret",
            wanted._replace(host=self._shown(wanted.host), path=self._shown(wanted.path)),
            what.get("detector", ""),
            what.get("place", ""),
            what.get("fingerprint", ""),
        )
        reason = await self._asking.answer(question, self._left, lambda: False, holds=holds)
        if reason:
            raise Refusal(403, reason, explain(reason), wanted=wanted, **what) from held
        self._note("egress.released", held)
        self._passed |= held.texts
