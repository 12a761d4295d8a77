"""Removes what runs left whose keeper died: processes, folders, records. Also called at every start."""

import json
import os
import time

from bot_bottle.backends.registry import backend
from bot_bottle.errors import BotBottleError
from bot_bottle.events import NewEvent
from bot_bottle.host import paths
from bot_bottle.host.locks import keeper_alive
from bot_bottle.launch import asks_file, folders
from bot_bottle.launch.copies import put_away
from bot_bottle.state.model import RunRecord
from bot_bottle.state.store import Store

ALIVE = ("starting", "running", "stopping")


def reap(store: Store, runtime_root: str) -> list[str]:
    """Removes everything that dead keepers left; a sentence for each thing. What fails is tried again next time."""
    with folders.alone(runtime_root) as alone:
        return _reap(store, runtime_root) if alone else []


def _reap(store: Store, runtime_root: str) -> list[str]:
    said: list[str] = []
    for record in store.runs(states=ALIVE):
        if keeper_alive(record.run_path):
            continue
        try:
            said += _reap_run(store, record)
        except (BotBottleError, OSError) as error:
            said.append(f"{record.id}: not removed whole: {error}")
    for folder in folders.dead(runtime_root):
        folders.remove(folder)
        said.append(f"removed the folder {folder}")
    return said


def _reap_run(store: Store, record: RunRecord) -> list[str]:
    said = [f"{record.id}: {line}" for line in backend(record.backend).reap(json.loads(record.traces))]
    changed = False
    if record.workspace_mode == "copy":
        try:
            changed = put_away(record)
        except (
            BotBottleError,
            OSError,
        ) as error:  # it has ended all the same; `diff` and `cleanup --forget` can go on
            said.append(f"{record.id}: its copy of the workspace stays: {error}")
    elif record.workspace_mode == "mount":
        from bot_bottle.launch import mounted

        if flagged := mounted.flagged(record):
            said.append(f"{record.id}: {mounted.warning(flagged)}")
    said += _close_asks(store, record.id)
    file = os.path.join(paths.manifest_root(), "bottles", f"{record.bottle}.md")
    if asks_file.forget(file, record.id):
        said.append(f"{record.id}: removed what was about to take the place of {file}")
    folders.remove(f"{record.state_path}/git")
    folders.remove(record.run_path)
    outcome = "reaped: its keeper died"
    event = NewEvent(record.id, time.time(), "run.reaped", {"removed": said, "changes": changed})
    store.record([event], record.id, state="ended", ended_at=time.time(), outcome=outcome)
    said.append(f"{record.id}: ended (its keeper had died){'; its changes were kept' if changed else ''}")
    return said


def _close_asks(store: Store, run: str) -> list[str]:
    """Nobody answers any more what the run's agent asked for, and no grant of it holds."""
    from bot_bottle.state.proposals import Proposals

    closed = Proposals(store).close_run(run, "its keeper died")
    return [f"{run}: proposal {each.id} is {each.state} (its keeper died)" for each in closed]
