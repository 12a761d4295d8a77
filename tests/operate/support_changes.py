"""A run with a copied workspace, as `launch/` would have it, without a bottle."""

import os
import subprocess
from pathlib import Path

from bot_bottle.operate import changes as operate_changes
from bot_bottle.plan.model import BASE_FOLDER, COPY_FOLDER, Command, Paths, RunPlan, Workspace
from bot_bottle.provision.workspace import copy_workspace
from bot_bottle.state.model import RunRecord


class Run:
    """The person's repository, the agent's copy of it, and the record of the run."""

    def __init__(self, place: Path, *, uid: int = 0) -> None:
        self.source = place / "source"
        self.state = place / "state" / "fixer-ab12"
        self.copy = self.state / COPY_FOLDER
        self.uid = uid or os.geteuid()
        self.plan = RunPlan(
            id="fixer-ab12",
            agent="fixer",
            bottle="dev",
            bottle_file="",
            backend="namespace",
            provider="command",
            command=Command(argv=("true",), env=()),
            tty=False,
            workspace=Workspace(
                source=str(self.source), mode="copy", copy=str(self.copy), base=str(self.state / BASE_FOLDER)
            ),
            paths=Paths(run=str(place / "run"), state=str(self.state)),
            uid=self.uid,
            gid=self.uid,
            bundle_uid=self.uid + 1,
            bundle_gid=self.uid + 1,
        )
        self.record = RunRecord(
            id="fixer-ab12",
            agent="fixer",
            bottle="dev",
            backend="namespace",
            state="running",
            workspace=str(self.source),
            workspace_mode="copy",
            run_path=str(place / "run"),
            state_path=str(self.state),
            started_at=1000.0,
        )

    def start(self) -> tuple[str, ...]:
        return copy_workspace(self.plan)

    def changes(self) -> operate_changes.Changes:
        return operate_changes.compute(self.record)

    def apply(self, **options: object) -> operate_changes.Changes:
        return operate_changes.apply(self.record, **options)

    def statuses(self) -> dict[str, str]:
        return {file.path: file.status for file in self.changes().files}


def git(folder: Path, *words: str) -> str:
    identity = (
        "-c",
        "user.name=Test",
        "-c",
        "user.email=test@example.org",
        "-c",
        "protocol.file.allow=always",
    )
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def facts(folder: Path) -> dict[str, object]:
    """Everything below `folder` but `.git` and empty folders: what it is, its mode and its content."""
    found: dict[str, object] = {}
    for top, folders, names in os.walk(os.fsencode(folder)):
        for name in names + [name for name in folders if os.path.islink(os.path.join(top, name))]:
            path = os.path.join(top, name)
            shown = os.path.relpath(path, os.fsencode(folder))
            if os.path.islink(path):
                found[shown] = ("link", os.readlink(path))
            else:
                found[shown] = (bool(os.stat(path).st_mode & 0o100), Path(os.fsdecode(path)).read_bytes())
        folders[:] = [name for name in folders if name != b".git"]
    return found
