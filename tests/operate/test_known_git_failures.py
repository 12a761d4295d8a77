"""What was published against tools that run git where somebody else wrote: each is tried against `diff` and `apply`.

After an apply the person goes on with git in their own workspace, as everybody does: nothing of the agent's may run then either.
What the same does to `fetch` is in `tests/e2e/test_git_clone.py`, to the git gate in `tests/gitgate/test_gate_hostile.py`.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support_changes import Run, facts, git

_CONFIG = (
    "[core]\n\trepositoryformatversion = 0\n\tbare = {bare}\n\tfsmonitor = {trip}\n\thooksPath = {hooks}\n"
)


def hooks(folder: Path, trip: str) -> None:
    """A hook of every kind that git runs by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "pre-commit",
        "fsmonitor-watchman",
    ):
        (folder / name).unlink(missing_ok=True)
        shutil.copy(trip, folder / name)


def own_hooks(copy: Path, trip: str) -> None:
    hooks(copy / ".git/hooks", trip)


def hooks_path(copy: Path, trip: str) -> None:
    hooks(copy / "tools", trip)
    git(copy, "config", "core.hooksPath", str(copy / "tools"))


def fsmonitor(copy: Path, trip: str) -> None:
    git(copy, "config", "core.fsmonitor", trip)


def commondir(copy: Path, trip: str) -> None:
    """The shared part of the repository is elsewhere, and has the settings."""
    elsewhere = copy / "data"
    shutil.copytree(copy / ".git", elsewhere)
    (elsewhere / "config").write_text(_CONFIG.format(bare="false", trip=trip, hooks=elsewhere / "hooks"))
    hooks(elsewhere / "hooks", trip)
    (copy / ".git/commondir").write_text("../data\n")


def worktree(copy: Path, trip: str) -> None:
    """The workspace says that it is a worktree of a repository within it."""
    (copy / ".git").rename(copy / "data")
    (copy / "data/config").write_text(_CONFIG.format(bare="false", trip=trip, hooks=copy / "data/hooks"))
    place = copy / "data/worktrees/mine"
    place.mkdir(parents=True)
    (place / "commondir").write_text("../..\n")
    (place / "gitdir").write_text(f"{copy}/.git\n")
    shutil.copy(copy / "data/HEAD", place / "HEAD")
    (place / "config.worktree").write_text(f"[core]\n\tfsmonitor = {trip}\n")
    (copy / ".git").write_text(f"gitdir: {place}\n")


def submodule(copy: Path, trip: str) -> None:
    """Its path ends in CR, which git once lost: it was checked out through a link into a folder of hooks."""
    (copy / ".gitmodules").write_bytes(b'[submodule "x"]\n\tpath = "sub\r"\n\turl = ./x\n\tupdate = !true\n')
    hooks(copy / ".git/modules/x/hooks", trip)
    (copy / "sub\r").mkdir()
    shutil.copy(trip, copy / "sub\r/post-checkout")
    (copy / "sub.link").symlink_to(".git/modules/x/hooks")


def nested(copy: Path, trip: str) -> None:
    folder = copy / "vendored"
    folder.mkdir()
    git(folder, "init", "-q")
    hooks(folder / ".git/hooks", trip)
    git(folder, "config", "core.fsmonitor", trip)
    (folder / "lib.c").write_text("int x;\n")


def bare(copy: Path, trip: str) -> None:
    """A repository without `.git`: git finds it as soon as somebody is in the folder."""
    folder = copy / "testdata"
    git(copy, "init", "-q", "--bare", str(folder))
    settings = _CONFIG.format(bare="false", trip=trip, hooks=folder / "hooks")
    (folder / "config").write_text(f"{settings}\tworktree = ..\n")
    hooks(folder / "hooks", trip)
    for name in ("objects", "refs"):
        (folder / name / "keep").write_text("\n")


def filters(copy: Path, trip: str) -> None:
    (copy / ".gitattributes").write_text("* filter=trip diff=trip merge=trip\n")
    for name in (
        "filter.trip.clean",
        "filter.trip.smudge",
        "filter.trip.process",
        "diff.trip.command",
        "diff.trip.textconv",
    ):
        git(copy, "config", name, trip)


def include(copy: Path, trip: str) -> None:
    (copy / "settings").write_text(f"[core]\n\tfsmonitor = {trip}\n")
    git(copy, "config", "include.path", "../settings")


def alternates(copy: Path, _trip: str) -> None:
    (copy / ".git/objects/info").mkdir(exist_ok=True)
    (copy / ".git/objects/info/alternates").write_text("/nonexistent/objects\n")


def editors(copy: Path, trip: str) -> None:
    for name in (".vscode/tasks.json", ".devcontainer/devcontainer.json", ".claude/settings.json", ".envrc"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(f'{{"command": "{trip}"}}\n')


KNOWN = {
    "hooks": (own_hooks, set()),
    "core.hooksPath": (hooks_path, set()),
    "core.fsmonitor": (fsmonitor, set()),
    "commondir, CVE-2026-40068": (commondir, {"data/HEAD"}),
    "a worktree": (worktree, {"data/HEAD", "data/worktrees/mine/HEAD"}),
    "a submodule, CVE-2025-48384": (submodule, {".gitmodules"}),
    "a nested repository": (nested, set()),
    "a bare repository in a folder, CVE-2022-24765": (bare, {"testdata/HEAD"}),
    "filters and attributes": (filters, {".gitattributes"}),
    "an included file of settings": (include, set()),
    "alternates": (alternates, set()),
    "folders of editors and agents": (
        editors,
        {".vscode/tasks.json", ".devcontainer/devcontainer.json", ".claude/settings.json", ".envrc"},
    ),
}
"""What is planted, and what of it a person is shown first."""
LIVE = {
    "hooks": ".",
    "core.hooksPath": ".",
    "core.fsmonitor": ".",
    "commondir, CVE-2026-40068": ".",
    "a worktree": ".",
    "a nested repository": "vendored",
    "a bare repository in a folder, CVE-2022-24765": "testdata",
    "filters and attributes": ".",
    "an included file of settings": ".",
}
"""Those that plain git in the agent's own folder falls for, and where: so that what is tried here is an attack."""


@pytest.mark.parametrize("what", KNOWN)
def test_it_runs_nothing_and_reaches_no_repository(started: Run, tripwire: str, what: str) -> None:
    plant, shown_first = KNOWN[what]
    plant(started.copy, tripwire)
    (started.copy / "hello.py").write_text("bye\n")
    repository = facts(started.source / ".git")
    found = started.changes()
    assert "hello.py" in {file.path for file in found.files}
    assert not any(file.path.startswith(".git/") for file in found.files)
    assert shown_first <= {flag.path for flag in found.flagged}
    started.apply()
    assert (started.source / "hello.py").read_text() == "bye\n"
    assert facts(started.source / ".git") == repository
    goes_on(started.source)


@pytest.mark.parametrize("what", sorted(LIVE))
def test_where_git_is_run_in_the_copy_it_would_have_run_something(
    run: Run, tmp_path: Path, what: str
) -> None:
    trace = tmp_path / "it-ran"
    trip = tmp_path / "trip"
    trip.write_text(f"#!/bin/sh\necho ran >> {trace}\n")
    trip.chmod(0o755)
    KNOWN[what][0](run.source, str(trip))
    (run.source / "hello.py").write_text("bye\n")
    goes_on(run.source / LIVE[what])
    assert trace.exists()


def goes_on(folder: Path) -> None:
    """A person works on in their own workspace."""
    for words in (
        ("status",),
        ("diff", "HEAD"),
        ("add", "-A"),
        ("commit", "-qm", "Take it"),
        ("submodule", "status"),
        ("stash",),
    ):
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_PAGER": "cat"}
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        subprocess.run(
            ["git", *identity, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
