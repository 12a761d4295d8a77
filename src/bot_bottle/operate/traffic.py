"""What a run reached and what it was refused, host by host: from the record, and what is open now from its bundle."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bot_bottle.errors import BotBottleError, NotFoundError

if TYPE_CHECKING:
    from bot_bottle.events import Event
    from bot_bottle.state.model import RunRecord

MOST_ROWS = 2000
"""Hosts that get a row of their own; what an agent makes up beyond that is one row."""
_BEYOND = "(others)"
_ANSWER_WITHIN = 5.0
_LARGEST = 1 << 62
_COUNTED = {"allowed": "allowed", "observed": "observed", "refused": "refused", "failed": "failed"}


class Row(NamedTuple):
    """One host and port. `last` is when something last happened there; `why` the reason of the last refusal or failure.

    `open` are the connections open now; their bytes are in `up` and `down`, too.
    """

    host: str
    port: int
    protocol: str
    allowed: int = 0
    observed: int = 0
    refused: int = 0
    failed: int = 0
    up: int = 0
    down: int = 0
    last: float = 0.0
    why: str = ""
    open: int = 0


class State(NamedTuple):
    """What a running bottle's keeper says; None for what nobody knows any more."""

    policy: str
    mode: str
    way_out: bool
    open: int | None
    flows: list[dict[str, Any]]


class Traffic:
    """Adds events up."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int, str], Row] = {}
        self.after = 0
        """The number of the last event that is in it."""

    def add(self, events: "Iterable[Event]") -> None:
        """Adds what happened since."""
        for event in events:
            self.after = event.number
            room, _, what = event.kind.partition(".")
            if room in ("egress", "dns") and (what in _COUNTED or what == "closed"):
                self._add(what, event.at, event.data, dns=room == "dns")

    def _add(self, what: str, at: float, data: Mapping[str, Any], *, dns: bool) -> None:
        port = _number(data.get("port", 0))
        place = (str(data.get("host", "")), port, "dns" if dns else str(data.get("protocol", "")))
        if place not in self._rows and len(self._rows) >= MOST_ROWS:
            place = (_BEYOND, 0, "")
        row = self._rows.get(place, Row(*place))
        if what == "closed":
            more: dict[str, Any] = {
                "up": row.up + _number(data.get("up", 0)),
                "down": row.down + _number(data.get("down", 0)),
            }
        else:
            name = _COUNTED[what]
            more = {name: getattr(row, name) + max(1, _number(data.get("count", 1)))}
            if what in ("refused", "failed"):
                more["why"] = str(data.get("reason", ""))
        self._rows[place] = row._replace(last=at, **more)

    def rows(self, flows: Iterable[Mapping[str, Any]] = ()) -> list[Row]:
        """A row for each place, with what is open there now; what happened last comes first."""
        rows = dict(self._rows)
        for flow in flows:
            place = (str(flow["host"]), int(flow["port"]), str(flow["protocol"]))
            row = rows.get(place, Row(*place))
            rows[place] = row._replace(
                open=flow["connections"], up=row.up + flow["up"], down=row.down + flow["down"]
            )
        return sorted(rows.values(), key=lambda row: (-bool(row.open), -row.last, row.host))


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value <= _LARGEST else 0


def state(run: "RunRecord") -> State | None:
    """What the run's keeper says now; None when it does not run, or nobody answers."""
    from bot_bottle.launch import control

    try:
        said = control.ask(run.run_path, {"want": "stats"}, seconds=_ANSWER_WITHIN)
    except BotBottleError:
        return None
    figures = said["figures"]
    return State(
        policy=said["policy"],
        mode=said["mode"],
        way_out=said["way_out"],
        open=figures["open"] if figures else None,
        flows=figures["flows"] if figures else [],
    )


def metrics(name: str | None) -> str:
    """The metrics of the run `name`, or of all that run, in Prometheus's text format."""
    from bot_bottle.launch import control
    from bot_bottle.launch.metrics import render
    from bot_bottle.operate import record
    from bot_bottle.operate.runs import find

    runs = (
        [find(name)]
        if name
        else [run for run, state in record.listed(everything=False) if state == "running"]
    )
    found = []
    for run in runs:
        try:
            found.append(control.ask(run.run_path, {"want": "stats"}, seconds=_ANSWER_WITHIN))
        except BotBottleError:
            if name:
                raise
            # One that ended meanwhile has no figures.
    return render(found)


def metrics_socket(name: str) -> str:
    """Where the run `name` answers `/metrics` and `/health`. Raises NotFoundError when it does not run."""
    import os

    from bot_bottle.launch.folders import METRICS
    from bot_bottle.operate.runs import find

    run = find(name)
    where = os.path.join(run.run_path, METRICS)
    if run.state == "ended" or not os.path.exists(where):
        raise NotFoundError(f"{run.id} does not run", resolution="bot-bottle list shows what does.")
    return where
