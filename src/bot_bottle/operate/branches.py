"""Stopped bottles that are changed before they are gone on with: a copy of one (`branch`), and other limits (`resize`).

A branch is the kept bottle's files under another name, and nothing else: the copy of the workspace, what was known of its start,
the home folder as the agent packed it, and what was asked for. Going on with it is a start like every other, which makes its own
identity, tokens and authority, so none of those can come along, nor can proposals and grants, which are the other run's.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from bot_bottle.errors import HostError, UsageError
from bot_bottle.events import NewEvent
from bot_bottle.host import paths
from bot_bottle.host.alone import alone
from bot_bottle.names import RULE, is_name
from bot_bottle.operate import runs
from bot_bottle.operate.record import open_store
from bot_bottle.state.model import RunRecord
from bot_bottle.typed import NamedTuple

_NEW = ".new-"


class Branched(NamedTuple):
    """A copy that was made. `shared` is whether it shares its blocks with what it was made of, and so takes no room yet."""

    id: str
    source: str
    shared: bool
    left_out: tuple[str, ...]


def branch(source: str, name: str) -> Branched:
    """Copies the stopped bottle `source` to one called `name`. Raises UsageError, HostError, StateError; then nothing was made."""
    from bot_bottle.launch import folders, kept

    record = _stopped(source, "branched")
    if record.workspace_mode != "copy":
        raise UsageError(
            f"{record.id} can't be branched: it works on the workspace itself",
            details="Two bottles would write the same files.",
            resolution="Start it with --workspace copy.",
        )
    _check_free(name, record)
    root = os.path.dirname(record.state_path)
    with alone(os.path.join(root, ".branching"), lambda: None):
        for left in Path(root).glob(f"{_NEW}*"):  # of a copying that was killed
            folders.remove(str(left))
        fresh = os.path.join(root, _NEW + name)
        try:
            os.mkdir(fresh, 0o700)
            left_out, shared = kept.copy_to(record, fresh)
            _remember(record, name, fresh)
        except OSError as error:
            raise HostError(f"{record.id} can't be branched", details=str(error)) from error
        finally:
            folders.remove(fresh)
    return Branched(name, record.id, shared, left_out)


def resize(name: str, resources: Mapping[str, str]) -> dict[str, float]:
    """Has the stopped bottle `name` start with other limits than its file states; answers those that differ from now on.

    Raises UsageError for what is no amount, and what planning a start with them raises: PlanError when the backend can't keep one.
    """
    from bot_bottle.launch import kept

    record = _stopped(name, "resized")
    asked = kept.asked(record)
    now = {**dict(asked.get("resources", ())), **_amounts(resources)}
    request = runs.again(record, runs.StartRequest(record.id, "", resources=tuple(now.items())))
    runs.plan(request)
    kept.ask_anew(record, {**asked, "resources": list(now.items())})
    return now


def _amounts(resources: Mapping[str, str]) -> dict[str, float]:
    from pydantic import ValidationError

    from bot_bottle.manifest.model import Resources

    try:
        number = {name: float(value) if name == "cpus" else value for name, value in resources.items()}
        found = Resources.model_validate(number).model_dump(exclude_unset=True)
    except ValidationError as error:
        told = [f"--{one['loc'][0]} {one['msg']}" for one in error.errors()]
        raise UsageError("That is no amount", details="\n".join(told)) from error
    except ValueError as error:
        raise UsageError("That is no amount", details=str(error)) from error
    return {name: value for name, value in found.items() if value is not None}


def _stopped(name: str, what: str) -> RunRecord:
    """The stopped bottle of that name. Raises NotFoundError, UsageError."""
    from bot_bottle.launch import kept

    record = runs.find(name)
    if kept.is_kept(record):
        return record
    how = f"Stop it before: bot-bottle stop --keep {record.id}" if record.state != "ended" else ""
    why = "runs" if record.state != "ended" else "has ended and was not kept"
    raise UsageError(f"{record.id} can't be {what}: it {why}", resolution=how)


def _check_free(name: str, record: RunRecord) -> None:
    from bot_bottle.manifest.places import find_repository, known_agents

    if not is_name(name):
        raise UsageError(f"{name[:60]!r} can't be a bottle's name", details=RULE)
    if os.path.lexists(os.path.join(os.path.dirname(record.state_path), name)) or _is_run(name):
        raise UsageError(f"There is a run {name} already", resolution="Choose another name.")
    if name in known_agents(paths.manifest_root(), find_repository(record.workspace)):
        raise UsageError(
            f"{name} is an agent: starting it would not go on with the copy",
            resolution="Choose another name.",
        )


def _is_run(name: str) -> bool:
    with open_store() as store:
        return any(run.id == name for run in store.runs())


def _remember(source: RunRecord, name: str, fresh: str) -> None:
    """Puts the copy in its place and into the record. Killed in between, it is an ended run without files."""
    now = time.time()
    made = source._replace(
        id=name,
        run_path=os.path.join(os.path.dirname(source.run_path), name),
        state_path=os.path.join(os.path.dirname(source.state_path), name),
        started_at=now,
        ended_at=now,
        traces="{}",
    )
    with open_store() as store:
        store.record([NewEvent(name, now, "run.branched", {"from": source.id})], made)
        try:
            os.rename(fresh, made.state_path)
        except OSError:
            store.forget_run(name)
            raise
