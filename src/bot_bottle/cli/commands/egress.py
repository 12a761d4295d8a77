"""Show what a bottle reaches: by host, what was allowed and refused, bytes, and what is open now."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bot_bottle.cli import arguments as common
from bot_bottle.cli.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bot_bottle.operate.record import RunRecord
    from bot_bottle.operate.traffic import Row, State

HEADERS = ("WHERE", "ALLOWED", "OBSERVED", "REFUSED", "FAILED", "UP", "DOWN", "OPEN", "LAST", "WHY")
_PAUSE = 0.5
_RIGHT = frozenset(("ALLOWED", "OBSERVED", "REFUSED", "FAILED", "UP", "DOWN", "OPEN"))
_SELDOM = frozenset(("OBSERVED", "FAILED", "OPEN"))
"""Columns that are left out where there is nothing in them."""
_NARROW = 110
"""Columns of a terminal below which the reason stands below the place, not beside it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    common.bottle(parser)
    parser.add_argument("--follow", "-f", action="store_true", help="go on until the bottle has ended")


def run(options: argparse.Namespace, console: Console) -> int:
    from bot_bottle.operate import record

    store = record.existing_store()
    found = record.find_run(store, options.bottle, latest=True)
    assert store is not None
    if found.agent == options.bottle and found.state == "ended":
        console.say(f"bot-bottle: this is {found.id}, the latest run of {found.agent}")
    with store:
        if not options.follow:
            _print(found, *next(_looks(store, found)), console)
            return 0
        try:
            if console.on_terminal and not console.as_json:
                _live(_looks(store, found), found)
            else:
                for rows, state in _looks(store, found, only_changes=True):
                    _print(found, rows, state, console)
        except KeyboardInterrupt:
            return 0  # following has no other end than this one, so it is no failure
    return 0


def _looks(
    store: Any, found: "RunRecord", *, only_changes: bool = False
) -> "Iterator[tuple[list[Row], State | None]]":
    """What there is to see now, and again and again until the run has ended."""
    import time

    from bot_bottle.operate import record, traffic

    sums = traffic.Traffic()
    before: object = None
    while True:
        over = record.has_ended(store, found.id)
        while page := store.events(found.id, after=sums.after, limit=1000):
            sums.add(page)
        state = None if over else traffic.state(found)
        seen = (sums.rows(state.flows if state else ()), state)
        if not only_changes or seen != before:
            yield seen
        before = seen
        if over:
            return
        time.sleep(_PAUSE)


def _print(found: "RunRecord", rows: "list[Row]", state: "State | None", console: Console) -> None:
    if console.as_json:
        shown = state._asdict() if state else None
        console.json({"run": found.id, "now": shown, "hosts": [row._asdict() for row in rows]})
        return
    console.say(_title(found, state))
    if rows:
        headers, cells = _filled(rows)
        console.table(headers, cells)
    else:
        console.say("It has tried to reach nothing.")


def _live(looks: "Iterator[tuple[list[Row], State | None]]", found: "RunRecord") -> None:
    from rich.console import Console as Terminal
    from rich.live import Live

    terminal = Terminal(highlight=False)
    with Live(console=terminal, auto_refresh=False, vertical_overflow="ellipsis") as live:
        for rows, state in looks:
            live.update(_table(_title(found, state), rows, *terminal.size), refresh=True)


def _table(title: str, rows: "list[Row]", width: int, height: int) -> "RenderableType":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    narrow = width < _NARROW
    fitting = max(1, (height - 6) // (2 if narrow else 1))
    headers, cells = _filled(rows[:fitting])
    table = Table(
        title=Text(title), title_justify="left", title_style="bold",
        box=SIMPLE_HEAD, expand=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for name in headers[: -1 if narrow else None]:
        right = name in _RIGHT
        table.add_column(
            name, justify="right" if right else "left", no_wrap=True, min_width=len(name) if right else None
        )
    for row, line in zip(rows, cells, strict=False):
        style = "red" if row.refused and not row.allowed else "yellow" if row.observed else ""
        if narrow:
            *line, why = line
            line[0] += f"\n  {why}" if why else ""
        table.add_row(*(Text(cell) for cell in line), style=style)
    if len(rows) > fitting:
        table.caption = f"and {len(rows) - fitting} more"
    return table


def _filled(rows: "list[Row]") -> tuple[list[str], list[list[str]]]:
    """The headings and the cells, without the columns that are seldom used and empty now."""
    lines = [_cells(row) for row in rows]
    kept = [
        place
        for place, name in enumerate(HEADERS)
        if name not in _SELDOM or any(line[place] for line in lines)
    ]
    return [HEADERS[place] for place in kept], [[line[place] for place in kept] for line in lines]


def _title(found: "RunRecord", state: "State | None") -> str:
    who = f"{found.id}: agent {found.agent} in bottle {found.bottle}"
    if state is None:
        return f"{who}, not running"
    mode = "OPEN (mode: observe)" if state.mode == "observe" else f"policy {state.policy[:12]}"
    door = "" if state.way_out else ", NO WAY OUT"
    now = "its bundle does not answer"
    if state.open is not None:
        now = f"{state.open} connection{'s' * (state.open != 1)} open"
    return f"{who}, {mode}{door}, {now}"


def _cells(row: "Row") -> list[str]:
    """The row in words; what an agent wrote in it can't do anything to a terminal."""
    import time

    from bot_bottle.operate.text import visible

    last = time.strftime("%H:%M:%S", time.localtime(row.last)) if row.last else ""
    counts = (row.allowed, row.observed, row.refused, row.failed)
    where = f"{row.protocol[:10]}://{row.host}" if row.protocol not in ("", "dns") else row.host
    where = f"{visible(where)[:80]}:{row.port}" if row.port else visible(where)[:80]
    return [
        (f"{where} (DNS)" if row.protocol == "dns" else where) or "(none)",
        *(str(count or "") for count in counts),
        _size(row.up),
        _size(row.down),
        str(row.open or ""),
        last,
        visible(row.why)[:40].replace("_", " "),
    ]


def _size(count: int) -> str:
    if not count:
        return ""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
