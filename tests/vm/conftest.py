"""Where a microVM boots: the image that the tests' machines are made from."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot_bottle.backends.smolmachines import kvm, program
from bot_bottle.errors import HostError
from support.microvms import IMAGE, Place


@pytest.fixture(scope="session")
def image() -> str:
    """Skips where none boots; `make test-vm` makes such a place elsewhere."""
    try:
        kvm.check()
        program.find()
    except HostError as error:
        pytest.skip(f"no microVM boots here: {error.brief}")
    if not os.path.isdir(IMAGE):
        pytest.skip(f"there is no image for a microVM at {IMAGE}")
    return IMAGE


@pytest.fixture(scope="module")
def place(image: str) -> Iterator[Place]:
    """A home and a repository of their own, in which the installed program runs."""
    root = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))  # smolvm's sockets need short paths
    try:
        yield Place(root, image)
    finally:
        shutil.rmtree(root, ignore_errors=True)
