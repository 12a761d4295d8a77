"""A stopped bottle that is kept: its files in the run's state folder, and what it takes to start it again. No engine has any of it.

Another run continues it: it takes the copy of the workspace with what was known of its start, and the agent's home folder. They are
moved, so that each of them belongs to one run at any time, and back again when the other one never came to run. A branch
(`operate/branches.py`) is a copy of all of them, which is continued in the same way.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from bot_bottle.backends import copying
from bot_bottle.backends.base import Bottle
from bot_bottle.errors import HostError, SandboxError
from bot_bottle.host import files
from bot_bottle.host.copying import Copier
from bot_bottle.plan.model import BASE_FOLDER, COPY_FOLDER, INSIDE_HOME, RunPlan
from bot_bottle.state.model import RunRecord

KEPT = "kept.json"
"""That a run is kept, and what was asked for when it was started."""
HOME = "home.tar"
"""The agent's home folder, as it packed it: it is only ever unpacked inside again."""
_MOVED = (COPY_FOLDER, BASE_FOLDER, HOME)


def keep(bottle: Bottle, plan: RunPlan, asked: Mapping[str, Any]) -> str:
    """Keeps the bottle, which still is there and whose agent has ended; answers what could not be kept, empty when all was.

    Raises HostError; then it is not kept.
    """
    lost = ""
    try:
        copying.pack(bottle, INSIDE_HOME, os.path.join(plan.paths.state, HOME))
    except SandboxError as error:
        lost = f"The agent's home folder was not kept: {error.brief} {error.details}".strip()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(plan.paths.state, HOME))
    _ask(plan.paths.state, asked)
    return lost


def _ask(folder: str, asked: Mapping[str, Any]) -> None:
    """Writes the marker, whole or not at all."""
    try:
        partial = os.path.join(folder, KEPT + ".partial")
        files.write(partial, json.dumps(dict(asked)).encode())
        os.rename(partial, os.path.join(folder, KEPT))
    except OSError as error:
        raise HostError("The bottle can't be kept", details=str(error)) from error


def is_kept(record: RunRecord) -> bool:
    """Whether the run has ended, and can be continued."""
    return record.state == "ended" and os.path.exists(os.path.join(record.state_path, KEPT))


def asked(record: RunRecord) -> dict[str, Any]:
    """What was asked for when it was started. Raises HostError."""
    try:
        return dict(json.loads(files.read(os.path.join(record.state_path, KEPT))))
    except (OSError, ValueError) as error:
        raise HostError(f"{record.id} can't be continued", details=str(error)) from error


def ask_anew(record: RunRecord, asked: Mapping[str, Any]) -> None:
    """Has another start asked for when it is gone on with. Raises HostError, also when it is kept no more."""
    with held(record):
        _ask(record.state_path, asked)


@contextlib.contextmanager
def held(record: RunRecord) -> Iterator[None]:
    """While it lasts nobody else goes on with it, lets it go or changes it; others wait. Raises HostError when it is not kept."""
    try:
        folder = os.open(record.state_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{record.id} is kept no more", details=str(error)) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not is_kept(record):
            raise HostError(f"{record.id} is kept no more")
        yield
    finally:
        os.close(folder)


def copy_to(record: RunRecord, folder: str) -> tuple[tuple[str, ...], bool]:
    """Copies what is kept, which stays as it is, into the empty folder `folder`.

    Answers what could not be read, and whether the copy shares its blocks. Raises HostError; what was made then stays.
    """
    copier = Copier()
    try:
        with held(record):
            for name in (COPY_FOLDER, BASE_FOLDER):
                os.mkdir(os.path.join(folder, name), 0o700)
                copier.copy(os.path.join(record.state_path, name), os.path.join(folder, name))
            if os.path.exists(home := os.path.join(record.state_path, HOME)):
                copier.copy_file(home, os.path.join(folder, HOME))
            _ask(folder, asked(record))
    except OSError as error:
        raise HostError(f"{record.id} can't be copied", details=str(error)) from error
    return tuple(copier.left_out), copier.shares


def take(record: RunRecord, plan: RunPlan) -> None:
    """Gives what is kept to the run of `plan`. Raises HostError; then nothing was."""
    with held(record):
        _take(record, plan)


def _take(record: RunRecord, plan: RunPlan) -> None:
    marker = os.path.join(record.state_path, KEPT)
    try:
        os.rename(marker, marker + ".taken")  # whoever does this has it
        for name in _MOVED:
            with contextlib.suppress(FileNotFoundError):
                os.rename(os.path.join(record.state_path, name), os.path.join(plan.paths.state, name))
        if os.geteuid() == 0 and plan.workspace.copy:
            _own(plan.workspace.copy, plan.uid, plan.gid)
    except OSError as error:
        give_back(record, plan)
        raise HostError(f"{record.id} can't be continued", details=str(error)) from error


def give_back(record: RunRecord, plan: RunPlan) -> None:
    """The other run never came to run: everything is as it was. Idempotent."""
    for name in _MOVED:
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.join(plan.paths.state, name), os.path.join(record.state_path, name))
    marker = os.path.join(record.state_path, KEPT)
    with contextlib.suppress(FileNotFoundError):
        os.rename(marker + ".taken", marker)


def taken(record: RunRecord) -> None:
    """The other run has it now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(record.state_path, KEPT + ".taken"))


def restore_home(bottle: Bottle, plan: RunPlan) -> None:
    """Unpacks the home folder inside, as the agent's user; it is needed until the agent is released. Raises SandboxError."""
    path = os.path.join(plan.paths.state, HOME)
    if os.path.exists(path):
        copying.unpack(bottle, path, INSIDE_HOME)


def drop_home(plan: RunPlan) -> None:
    """The agent has it now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(plan.paths.state, HOME))


def let_go(record: RunRecord) -> None:
    """Keeps it no more: its changes are saved, as at the end of every run. Raises HostError."""
    from bot_bottle.launch.copies import put_away

    with held(record):
        if record.workspace_mode == "copy":
            put_away(record)
        for name in (HOME, KEPT):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(record.state_path, name))


def _own(top: str, uid: int, gid: int) -> None:
    """As root: each run's agent is another user."""
    if not os.path.isdir(top):
        return
    os.chown(top, uid, gid, follow_symlinks=False)
    for _, folders, names, folder in os.fwalk(top, follow_symlinks=False):
        for name in (*folders, *names):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
