"""The docker backend keeps the contract of every backend."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bot_bottle.backends.registry import backend
from bot_bottle.plan.model import INSIDE_UID, ImageSpec
from bot_bottle.testing.conformance import BackendContract
from support.backends import Factory
from support.engine import BASE

pytestmark = pytest.mark.docker

OF_THE_IMAGE = frozenset(
    [
        "/root",
        "/var/lib",
        "/var/log",
        "/srv",
        "/mnt",
        "/boot",
        "/etc/shadow",
        "/opt",
        "/sys",
        "/etc/ssl/private",
    ]
)
"""Places that every Debian image has; /sys is empty."""


@pytest.fixture
def make_bottle(tmp_path: Path) -> Iterator[Factory]:
    with ExitStack() as owned:
        yield Factory(
            tmp_path,
            backend("docker"),
            owned,
            uid=os.getuid() or INSIDE_UID,
            own_places=OF_THE_IMAGE,
            image=ImageSpec(reference=BASE),
        )


class TestDocker(BackendContract):
    """As whoever runs the tests; `test_docker_users.py` runs this file again as somebody else."""
