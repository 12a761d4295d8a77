"""A bottle that is a folder: what is written in it is written here, with `/home/agent` as that folder's."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bot_bottle.backends.namespace import held
from bot_bottle.errors import SandboxError


@dataclass
class FolderBottle:
    root: Path
    written: list = field(default_factory=list)

    def write_files(self, files):
        self.written.append(files)
        for file in files:
            try:
                held.write_file(f"{self.root}{file.target}", file.mode & 0o777, file.content)
            except OSError as error:
                raise SandboxError("The bottle's files can't be written", details=str(error)) from error


@pytest.fixture
def bottle(tmp_path):
    """A bottle with a home."""
    root = tmp_path / "inside"
    (root / "home/agent").mkdir(parents=True)
    return FolderBottle(root)
