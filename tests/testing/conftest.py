"""The real Claude Code CLI, fetched once and kept below `build/`."""

import os
from pathlib import Path

import pytest

from bot_bottle.errors import HostError
from bot_bottle.providers.install import install

KEPT = Path(__file__).parents[2] / "build" / "data"


@pytest.fixture(scope="session")
def claude_data():
    """A data home with Claude Code in it; skips, and says why, where it can't be fetched."""
    try:
        install(str(KEPT / "bot-bottle"), "claude")
    except HostError as error:
        pytest.skip(f"Claude Code can't be fetched here: {error.brief}")
    return KEPT


@pytest.fixture(scope="session")
def claude_program(claude_data):
    return str((claude_data / "bot-bottle/providers/claude/current").resolve() / "claude")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    """No test of this folder reaches a real API."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert "ANTHROPIC_API_KEY" not in os.environ
