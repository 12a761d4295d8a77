"""The docker backend keeps the contract of every backend."""

import pytest

from bot_bottle.testing.conformance import BackendContract

pytestmark = pytest.mark.docker

class TestDocker(BackendContract):
    """As whoever runs the tests; `test_ordinary_users.py` runs this file again as somebody else."""
