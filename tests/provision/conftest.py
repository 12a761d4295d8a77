"""A bottle that is a folder: what is spawned in it runs here, with `/home/agent` as that folder's."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Ran:
    """What the real `backends.execution.run` answers with, as far as provisioning reads it."""

    code: int
    stdout: bytes
    stderr: bytes


@dataclass
class FolderBottle:
    root: Path
    spawned: list = field(default_factory=list)

    def run(self, command, *, stdin=b"", timeout=None):
        self.spawned.append(command)
        argv = [part.replace("-C /", f"-C '{self.root}'") for part in command.argv]
        done = subprocess.run(
            argv,
            env=dict(command.env),
            cwd=self.root,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def bottle(tmp_path, monkeypatch):
    """A bottle with a home; `backends.execution.run` is its own."""
    from types import ModuleType

    module = ModuleType("bot_bottle.backends.execution")
    module.run = lambda bottle, command, **options: bottle.run(command, **options)
    monkeypatch.setitem(sys.modules, "bot_bottle.backends.execution", module)
    root = tmp_path / "inside"
    (root / "home/agent").mkdir(parents=True)
    previous = os.umask(0o022)
    yield FolderBottle(root)
    os.umask(previous)
