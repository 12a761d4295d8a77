"""The namespace backend keeps the contract of every backend."""

from bot_bottle.testing.conformance import BackendContract


class TestNamespace(BackendContract):
    """As whoever runs the tests; `test_ordinary_users.py` runs this file again as somebody else."""
