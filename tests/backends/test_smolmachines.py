"""The smolmachines backend keeps the contract of every backend, over a stand-in for smolvm that boots nothing.

What a kernel of its own changes is shown by `tests/vm`; everything of ours is the same in both: the door, the deputy, process 1,
what the agent's place is made of.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backends.conftest import OF_THE_IMAGE
from bot_bottle.backends.registry import backend
from bot_bottle.plan.model import INSIDE_GID, INSIDE_UID, ImageSpec
from bot_bottle.testing.conformance import BackendContract, MakeBottle
from support import machines
from support.backends import Factory


@pytest.fixture
def make_bottle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBottle]:
    image, why_not = machines.root_fs()
    if why_not:
        pytest.skip(why_not)
    machines.stand_in(monkeypatch)
    root = tmp_path / "data" / "r"
    root.mkdir(parents=True)
    with ExitStack() as owned:
        made = Factory(
            root,
            backend("smolmachines"),
            owned,
            uid=INSIDE_UID,
            own_places=OF_THE_IMAGE,
            image=ImageSpec(reference=str(image)),
        )
        os.chown(made.workspace, INSIDE_UID, INSIDE_GID)
        yield made


class TestSmolmachines(BackendContract):
    """As root, whose rights the stand-in needs; the agent is somebody else.

    So the workspace's files aren't the agent's, as they are where the operator is no root (`tests/vm`).
    """

    test_the_workspace_s_files_belong_to_its_owner_on_both_sides = None
