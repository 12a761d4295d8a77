"""What the inbox shows, without a terminal: proposals that are one decision fold into one item, and a selection sticks."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bot_bottle.policy.approval import Approval, Shown, Terms

OFFERED: tuple[tuple[str, Terms, str], ...] = (
    ("1", Terms("once"), "once"),
    ("2", Terms("time", 1800), "30 minutes"),
    ("3", Terms("bottle"), "this bottle"),
    ("4", Terms("manifest"), "the bottle's file"),
)
"""Key, terms, what they are called."""


class Item(NamedTuple):
    """One decision to take: a proposal, with those of other bottles that would be shown the same."""

    members: tuple[Shown, ...]

    @property
    def first(self) -> Shown:
        """The oldest: what is shown."""
        return self.members[0]

    @property
    def key(self) -> str:
        """What the item is called as long as its oldest member waits."""
        return self.first.proposal.id

    @property
    def ids(self) -> tuple[str, ...]:
        """Every proposal in it."""
        return tuple(shown.proposal.id for shown in self.members)

    @property
    def signature(self) -> tuple[object, ...]:
        """Changes when what an approval would do changes."""
        return tuple((shown.proposal.id, shown.digest, shown.problem) for shown in self.members)

    @property
    def problem(self) -> str:
        """Why it can't be approved as it is; the same for every member."""
        return self.first.problem

    def approvals(self) -> list[Approval]:
        """The yes to exactly what is shown."""
        return [Approval(shown.proposal.id, shown.digest, shown.terms) for shown in self.members]


def fold(shown: Sequence[Shown], *, unfolded: bool = False) -> list[Item]:
    """Items in the order of `shown` (the oldest first). Only what reads the same to the operator folds."""
    groups: dict[tuple[object, ...], list[Shown]] = {}
    open_ids = {each.proposal.id for each in shown}
    for each in shown:
        alone = unfolded or not open_ids.intersection(each.alike)
        groups.setdefault((each.proposal.id,) if alone else _reads(each), []).append(each)
    items = []
    for members in groups.values():
        runs = {member.proposal.run for member in members}
        if len(runs) == len(members):
            items.append(Item(tuple(members)))
        else:  # two of one run are two decisions, whatever they say of each other
            items += [Item((member,)) for member in members]
    return sorted(items, key=lambda item: (item.first.proposal.made_at, item.key))


def _reads(shown: Shown) -> tuple[object, ...]:
    """Everything that an operator decides by, but what it would have let through (a figure of each bottle)."""
    effect = shown.effect._replace(requests=0, hosts=0)
    same = (shown.title, shown.added, shown.removed, effect, shown.terms, shown.applies, shown.problem)
    return (shown.proposal.ask.kind, shown.proposal.ask.content(), shown.credentials_of, *same)


def find(items: Iterable[Item], item: Item) -> Item | None:
    """What `item` is now: the one with its key, else the one that has most of its members; None when nothing is left."""
    wanted = set(item.ids)
    fitting = [each for each in items if wanted.intersection(each.ids)]
    by_key = next((each for each in fitting if each.key == item.key), None)
    return by_key or max(fitting, key=lambda each: len(wanted.intersection(each.ids)), default=None)


def terms_text(terms: Terms) -> str:
    """The terms in words."""
    named = next((name for _, offered, name in OFFERED if terms._replace(routes=None) == offered), "")
    if named:
        return named
    return f"{span(terms.seconds)}" if terms.scope == "time" else terms.scope


def age(since: float, now: float) -> str:
    """How long ago, in one unit."""
    return span(now - since)


def span(seconds: float) -> str:
    """A length of time, in one unit."""
    left = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if left >= size:
            return f"{left // size} {unit}"
    return f"{left} s"
