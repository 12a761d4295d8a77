"""Approvals as every front end uses them: what waits, what it would change, and the operator's answer."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from bot_bottle.policy.approval import Approval, Decided, Grant, Shown, Terms


class Desk(Protocol):
    """What the inbox in the terminal, the one in the browser, and `bot-bottle approvals` are thin over.

    Every method may be called again and again from one thread; each raises StateError when the store fails.
    """

    def waiting(self) -> list[Shown]:
        """Every proposal that waits, of all runs, the oldest first, each on the terms that are offered first."""

    def decided(self, limit: int = 50) -> list[Shown]:
        """Those that wait no more, the latest first."""

    def show(self, reference: str, terms: Terms | None = None) -> Shown:
        """The proposal whose id is or begins with `reference`, on `terms` (None: those offered first). Raises NotFoundError."""

    def edit(self, reference: str, text: str, terms: Terms) -> Shown:
        """It on `terms`, with the routes that `text` has, written as under `egress: routes:` of a bottle's file.

        Raises ManifestError (with `LINE: what`) when it is none. What does not fit is `problem` of what is shown.
        """

    def routes_text(self, shown: Shown) -> str:
        """Its routes as `edit` takes them."""

    def approve(self, approvals: Sequence[Approval], *, wait: float = 10.0) -> list[Decided]:
        """Decides all of them at once, and waits that many seconds for each to be seen enforced (0: not at all)."""

    def reject(
        self, references: Sequence[str], reason: str = "", *, may_ask_again: bool = False
    ) -> list[Decided]:
        """Refuses all of them. Variants of each are refused likewise for an hour, unless the agent `may_ask_again`."""

    def grants(self, run: str | None = None) -> list[Grant]:
        """Those that hold now, of one run or of all."""

    def withdraw(self, grant: str) -> None:
        """Ends a grant, and waits until that is enforced. Raises NotFoundError."""

    def present(self) -> AbstractContextManager[None]:
        """While in it, agents that ask are told that somebody is there."""

    def changed(self, seconds: float) -> bool:
        """Waits until something may have changed since the last call, or so long; whether it may have."""
