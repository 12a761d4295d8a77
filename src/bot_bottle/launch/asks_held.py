"""Requests that wait at the bundle's proxy: each is a proposal, bounded in number and time, and is let go as that was decided.

A request lives no longer than its connection: what was asked only because it waited is withdrawn when it waits no more.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from bot_bottle.policy.approval import OPEN, Ask, Grant, Proposal
from bot_bottle.policy.approval_intake import held_ask

MOST, SECONDS = 8, 120.0
"""How many wait at once, and for how long."""
_AS_HELD = {"withdrawn": "left"}
"""Where the bundle's word for what became of a held request is another than the proposal's state."""

Answer = Callable[[dict[str, Any]], None]
"""Sends one message to where the question came from."""
Told = Callable[[Proposal, "Grant | None"], None]
"""Hears of each change of state of a proposal."""


class Intake(Protocol):
    """What takes proposals in, and tells what becomes of them; `launch.asks.Asks` does."""

    def submit(self, ask: Ask, answer: Answer, *, holds: float = 0.0) -> Proposal | None:
        """The open proposal for `ask`, durable, which expires after `holds` seconds; None when it is answered without one."""

    def follow(self, proposal: str, key: str, tell: Told) -> None:
        """Has `tell` hear what becomes of it."""

    def unfollow(self, proposal: str, key: str) -> None:
        """No longer."""

    def withdraw_brief(self, proposals: Sequence[str], why: str, *, seconds: float) -> None:
        """Withdraws those that are open and were never meant to be for longer than `seconds`."""


class HeldRequests:
    """Those of one run; `tell` says something to its bundle, `present` whether an operator is there."""

    def __init__(
        self, intake: Intake, tell: Callable[[Mapping[str, Any]], object], present: Callable[[], bool]
    ) -> None:
        self._intake = intake
        self._tell = tell
        self._present = present
        self._held: dict[int, str] = {}

    def hold(self, message: Mapping[str, Any]) -> None:
        """A request waits at the proxy: a proposal of its own, until the hold is over."""
        number = message.get("hold")
        if type(number) is not int or number in self._held:
            return
        ask = held_ask(message)
        if ask is None or len(self._held) >= MOST:
            self._release(number, "crowded" if ask else "failed")
            return
        present = self._present()
        if not present and ask.kind == "secret":
            self._release(number, "absent")  # this one request can't be let through when it is gone
            return
        answer = partial(self._released_at_once, number)
        proposal = self._intake.submit(ask, answer, holds=SECONDS if present else 0.0)
        if proposal is None:
            return
        if not present:
            self._release(number, "absent")  # it is kept: a late yes counts for the next try
            return
        self._held[number] = proposal.id
        self._intake.follow(proposal.id, _key(number), partial(self._tell_held, number))
        self._tell_held(number, proposal, None)

    def unhold(self, message: Mapping[str, Any]) -> None:
        """It waits no longer: its client left, or its time was over."""
        number = message.get("unhold")
        name = self._held.pop(number, "") if type(number) is int else ""
        if name:
            self._intake.unfollow(name, _key(number))
        if name and name not in self._held.values():
            self._close([name], "the request did not wait any longer")

    def bundle_gone(self) -> None:
        """The bundle has ended, and with it everything that it held."""
        held, self._held = self._held, {}
        for number, name in held.items():
            self._intake.unfollow(name, _key(number))
        self._close(sorted(set(held.values())), "the connection that waited has ended")

    def let_pass(self, proposal: Proposal) -> bool:
        """Lets the request go that waits for `proposal`, as it is; whether it still waited."""
        waiting = [number for number, name in self._held.items() if name == proposal.id]
        for number in waiting:
            del self._held[number]
            self._intake.unfollow(proposal.id, _key(number))
            self._release(number, "applied")
        return bool(waiting)

    def _close(self, names: Sequence[str], why: str) -> None:
        """Withdraws what was asked only because something waited."""
        self._intake.withdraw_brief(names, why, seconds=SECONDS)

    def _released_at_once(self, number: int, told: Mapping[str, Any]) -> None:
        self._release(number, str(told.get("state", "crowded")))

    def _tell_held(self, number: int, proposal: Proposal, _grant: Grant | None) -> None:
        if proposal.state not in OPEN:
            self._held.pop(number, None)
            self._release(number, proposal.state)

    def _release(self, number: int, what: str) -> None:
        reason = f"held_{_AS_HELD.get(what, what)}"
        self._tell({"release": number, "pass": what == "applied", "reason": reason})


def _key(number: object) -> str:
    return f"held {number}"
