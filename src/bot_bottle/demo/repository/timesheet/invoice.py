"""An invoice from a timesheet."""

from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal
from typing import Iterable, NamedTuple

from timesheet import duration

CENT = Decimal("0.01")


class Entry(NamedTuple):
    """One line of a timesheet."""

    day: str
    project: str
    minutes: int


class Item(NamedTuple):
    """One line of an invoice."""

    project: str
    minutes: int
    amount: Decimal


def read(lines: Iterable[str]) -> list[Entry]:
    """The entries of a timesheet; empty lines and comments are left out. Raises ValueError with the line's number."""
    entries = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].split()
        if not text:
            continue
        if len(text) != 3:
            raise ValueError(f"line {number}: expected DAY PROJECT DURATION")
        entries.append(Entry(text[0], text[1], duration.parse(text[2])))
    return entries


def items(entries: Iterable[Entry], hourly: Decimal) -> list[Item]:
    """What to bill for each project, each entry rounded by itself, in the order of the first entries."""
    minutes: dict[str, int] = defaultdict(int)
    for entry in entries:
        minutes[entry.project] += duration.billable(entry.minutes)
    return [
        Item(project, total, (hourly * total / 60).quantize(CENT, ROUND_HALF_UP))
        for project, total in minutes.items()
    ]


def total(invoice: Iterable[Item]) -> Decimal:
    """The sum of an invoice."""
    return sum((item.amount for item in invoice), Decimal("0.00"))
