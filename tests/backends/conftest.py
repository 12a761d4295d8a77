"""Bottles for the backends' tests, destroyed at the end."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bot_bottle.backends.registry import backend
from support.backends import Factory


@pytest.fixture
def make_bottle(tmp_path: Path) -> Iterator[Factory]:
    with ExitStack() as owned:
        yield Factory(tmp_path, backend("namespace"), owned)
