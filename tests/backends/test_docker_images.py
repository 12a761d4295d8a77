"""The image a bottle is made from, on a real engine: found, built, built again only when something changed, refused."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot_bottle.backends.docker import images
from bot_bottle.backends.docker.engine import Engine
from bot_bottle.plan.model import ImageSpec
from support import engine as engines

pytestmark = pytest.mark.docker


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = engines.engine()
    yield made
    made.client.close()


def test_x(engine):
    print(images.ensure(ImageSpec(reference=engines.BASE), engine, print))
