"""Runs with a copied workspace."""

from pathlib import Path

import pytest
from support_changes import Run, git
from tests.launch.keeping import Kept


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in a small git repository, not yet started."""
    made = Run(tmp_path)
    made.source.mkdir()
    git(made.source, "init", "-q", "-b", "main")
    (made.source / "hello.py").write_text("print('hello')\n" * 5)
    (made.source / "sub").mkdir()
    (made.source / "sub/data.txt").write_text("one\ntwo\nthree\n")
    (made.source / ".gitignore").write_text("*.log\nbuild/\n")
    git(made.source, "add", ".")
    git(made.source, "commit", "-q", "-m", "Start")
    return made


@pytest.fixture
def started(run: Run) -> Run:
    run.start()
    return run


@pytest.fixture
def tripwire(tmp_path: Path):
    """A command that leaves a trace when it runs; at the end, it must not have."""
    trace = tmp_path / "it-ran"
    script = tmp_path / "trip"
    script.write_text(f"#!/bin/sh\necho ran >> {trace}\ncat\n")
    script.chmod(0o755)
    yield str(script)
    assert not trace.exists(), "something of the agent's ran on the host"


@pytest.fixture
def kept(own_home):
    folder = own_home / ".local/state/bot-bottle"
    folder.mkdir(parents=True)
    kept = Kept(folder / "store.db")
    yield kept
    kept.close()
