"""Reading what is remembered: runs, whether they live, their events and logs. Never makes a store that is not there.

`list` is asked often, so nothing is imported here that it does not need.
"""

import os

from bot_bottle.errors import NotFoundError
from bot_bottle.host import paths
from bot_bottle.host.locks import keeper_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot_bottle.events import Event
    from bot_bottle.state.model import RunRecord as RunRecord
    from bot_bottle.state.store import Store

__all__ = [
    "events",
    "follow_events",
    "keeper_alive",
    "log_blocks",
    "log_path",
    "open_store",
    "shown_state",
    "store_path",
]

LOST = "lost"
"""How a run shows whose keeper is dead though it never ended; `bot-bottle cleanup` removes what is left of it."""
STOPPED = "stopped"
"""How a run shows that has ended and was kept; `bot-bottle start` goes on with it."""
KEPT = "kept"
"""How such a run ended, as the record has it."""
LOG = "output.log"
_PAGE = 1000
_PAUSE = 0.1


def store_path() -> str:
    """Where the operator's store is."""
    from bot_bottle.state.store import FILE_NAME

    return os.path.join(paths.state_root(), FILE_NAME)


def open_store() -> "Store":
    """The operator's store, made when there is none. Raises StateError."""
    from bot_bottle.state.store import Store

    return Store.open(store_path())


def existing_store() -> "Store | None":
    """The operator's store; None when nothing was ever run."""
    return open_store() if os.path.exists(store_path()) else None


def find_run(store: "Store | None", reference: str, *, latest: bool = False) -> "RunRecord":
    """The run that `reference` names, see `Store.run`. Raises NotFoundError."""
    if store is None:
        raise NotFoundError(f"There is no run {reference!r}", resolution="bot-bottle start AGENT makes one.")
    return store.run(reference, latest=latest)


def shown_state(run: "RunRecord") -> str:
    """The run's state, or `lost`, or `stopped` when it was kept."""
    if (
        run.outcome == KEPT
        and run.state == "ended"
        and os.path.exists(os.path.join(run.state_path, "kept.json"))
    ):
        return STOPPED
    return LOST if run.state != "ended" and not keeper_alive(run.run_path) else run.state


def listed(*, everything: bool) -> "list[tuple[RunRecord, str]]":
    """The runs that have not ended (or all), each with its state as it is shown."""
    store = existing_store()
    if store is None:
        return []
    with store:
        found = []
        wanted = None if everything else ("starting", "running", "stopping")
        kept = [] if everything else [run for run in store.runs(outcome=KEPT) if shown_state(run) == STOPPED]
        for run in [*store.runs(wanted), *kept]:
            state = shown_state(run)
            if state == LOST:
                # It may have ended properly between the two looks.
                again = [
                    now for now in store.runs() if now.id == run.id and (everything or now.state != "ended")
                ]
                found += [(now, shown_state(now)) for now in again]
            else:
                found.append((run, state))
    return found


def events(store: "Store", run: str | None) -> "Iterator[Event]":
    """The events of the run (an id; None: of all) so far."""
    after = 0
    while page := store.events(run, after=after, limit=_PAGE):
        yield from page
        after = page[-1].number


def follow_events(store: "Store", run: str | None, *, pause: float = _PAUSE) -> "Iterator[Event]":
    """The events so far and those to come, until the run has ended; of all runs: for ever."""
    import time

    after, version = 0, -1
    while True:
        seen = store.data_version()
        if seen != version:
            version = seen
            # Asked before the events are read, so that the last ones are not missed.
            over = run is not None and has_ended(store, run)
            while page := store.events(run, after=after, limit=_PAGE):
                yield from page
                after = page[-1].number
            if over:
                return
        elif run is not None and has_ended(store, run):
            return
        time.sleep(pause)


def has_ended(store: "Store", run_id: str) -> bool:
    """Whether the run ended, was lost, or is forgotten."""
    try:
        run = store.run(run_id)
    except NotFoundError:
        return True
    return shown_state(run) in ("ended", LOST, STOPPED)


def log_path(run: "RunRecord") -> str:
    """Where the run's output is kept."""
    return os.path.join(run.state_path, LOG)


def log_blocks(
    run: "RunRecord", *, until: "Callable[[], bool] | None" = None, pause: float = _PAUSE
) -> "Iterator[bytes]":
    """What the run has put out; with `until`, also what it goes on to put out, till that says it has ended.

    Raises NotFoundError when nothing was kept.
    """
    import time

    while not os.path.exists(log_path(run)):
        if until is None or until():
            raise NotFoundError(f"{run.id} has no log", details=log_path(run))
        time.sleep(pause)
    with open(log_path(run), "rb", buffering=0) as file:
        while True:
            over = until is None or until()
            while block := file.read(1 << 16):
                yield block
            if over:
                return
            time.sleep(pause)
