"""What operators granted of one run's git remotes: put in force at the gate, seen there, and taken back likewise.

What is good for one use is the courier's to spend: it is used for a push that would not pass without, and gone once the upstream
has that. If the gate's processes die meanwhile, nobody knows whether it was used, and it ends.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle.policy.approval import Scope
from bot_bottle.policy.approval_git import Wish, over

if TYPE_CHECKING:
    from bot_bottle.launch.gitgate.gate import Gate
    from bot_bottle.policy.git import GitRules

Told = Callable[[str], None]
"""Hears why something could not be put in force; empty when it is."""
NO_GATE = "the bottle has no git gate"


class Held(NamedTuple):
    """One grant: what it allows, and on what terms."""

    wish: Wish
    scope: Scope


class GitGrants:
    """Those of one run that hold, or are being put in force."""

    def __init__(self, gate: "Callable[[], Gate | None]") -> None:
        self._gate = gate
        self._held: dict[str, Held] = {}

    def holds(self, grant: str) -> bool:
        """Whether it is one of them."""
        return grant in self._held

    def in_force(self) -> "tuple[tuple[str, GitRules], ...]":
        """What may be pushed to each remote, with everything granted."""
        gate = self._gate()
        if gate is None:
            return ()
        return tuple((name, over(rules, self._of(name))) for name, rules in gate.base())

    def _of(self, remote: str, *, once: bool = True) -> list[Wish]:
        return [
            held.wish
            for held in self._held.values()
            if held.wish.remote == remote and (once or held.scope != "once")
        ]

    def add(self, grant: str, wish: Wish, scope: Scope, told: Told) -> None:
        """Puts it in force; one that can't be is not held."""
        self._held[grant] = Held(wish, scope)

        def heard(why: str) -> None:
            if why:
                self._held.pop(grant, None)
            told(why)

        self._order(wish.remote, heard)

    def end(self, grant: str, told: Told) -> None:
        """Takes it back."""
        held = self._held.pop(grant, None)
        if held is None:
            told("")
        else:
            self._order(held.wish.remote, told)

    def _order(self, remote: str, told: Told) -> None:
        gate = self._gate()
        rules = dict(gate.base()).get(remote) if gate else None
        if gate is None or rules is None:
            told(NO_GATE)
            return
        lasting, every = self._of(remote, once=False), self._of(remote)
        once = over(rules, every) if len(every) > len(lasting) else None
        gate.change(remote, over(rules, lasting), once, told)

    def used_by(self, remote: str, refs: Sequence[str], *, once: bool) -> list[tuple[str, bool]]:
        """The grants that a push to these refs, which the upstream has, may have used; and whether that was their one use."""
        return [
            (grant, held.scope == "once")
            for grant, held in self._held.items()
            if held.wish.remote == remote
            and (held.scope != "once" or once)
            and (not held.wish.ref or held.wish.ref in refs or held.scope == "once")
        ]

    def for_one_use(self) -> list[str]:
        """Those that are good for one use."""
        return [grant for grant, held in self._held.items() if held.scope == "once"]


def pushed(message: Mapping[str, object]) -> tuple[str, list[str], bool] | None:
    """Remote, refs, and whether what was good for one use was needed; from what the courier says of a push."""
    remote, refs = message.get("pushed"), message.get("refs")
    if not isinstance(remote, str) or not isinstance(refs, list):
        return None
    return remote, [str(ref) for ref in refs], message.get("once") is True
