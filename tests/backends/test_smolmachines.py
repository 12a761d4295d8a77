"""The smolmachines backend keeps the contract of every backend, over a stand-in for smolvm that boots nothing.

What a kernel of its own changes is shown by `tests/vm`; everything of ours is the same in both: the door, the deputy, process 1,
what the agent's place is made of.
"""

from collections.abc import Iterator

import pytest

from backends.conftest import OF_THE_IMAGE
from bot_bottle.testing.conformance import BackendContract
from support import machines
from support.backends import Factory


@pytest.fixture
def make_bottle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    with machines.short_folder() as folder:
        yield from machines.bottles(folder, monkeypatch, OF_THE_IMAGE)


class TestSmolmachines(BackendContract):
    """As root, whose rights the stand-in needs; the agent is somebody else.

    So the workspace's files aren't the agent's, as they are where the operator is no root (`tests/vm`).
    """

    test_the_workspace_s_files_belong_to_its_owner_on_both_sides = None
