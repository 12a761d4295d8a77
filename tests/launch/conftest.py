"""What the launch's tests borrow."""

from tests.testing.conftest import claude_data

__all__ = ("claude_data",)
