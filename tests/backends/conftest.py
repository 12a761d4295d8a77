"""Bottles for the backends' tests, destroyed at the end; of docker where the test is marked `docker`."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bot_bottle.backends.registry import backend
from bot_bottle.plan.model import INSIDE_UID, ImageSpec
from support.backends import OF_THE_IMAGE, Factory
from support.engine import BASE


@pytest.fixture
def make_bottle(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Factory]:
    with ExitStack() as owned:
        if request.node.get_closest_marker("docker"):
            yield Factory(
                tmp_path,
                backend("docker"),
                owned,
                uid=os.getuid() or INSIDE_UID,
                own_places=OF_THE_IMAGE,
                image=ImageSpec(reference=BASE),
            )
        else:
            yield Factory(tmp_path, backend("namespace"), owned)
