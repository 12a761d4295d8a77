"""The real agent tools, fetched once and kept below `build/`."""

import os
from pathlib import Path

import pytest

from bot_bottle.errors import HostError
from bot_bottle.providers.install import install
from bot_bottle.providers.place import locate

KEPT = Path(__file__).parents[2] / "build" / "data"
TOOLS = ("claude", "codex", "gemini", "opencode")


def kept(name):
    """The program of one tool; skips, and says why, where it can't be fetched."""
    root = str(KEPT / "bot-bottle")
    try:
        install(root, name)
    except HostError as error:
        if not locate(root, name):
            pytest.skip(f"{name} can't be fetched here: {error.brief}")
    return locate(root, name)


def data_home(place):
    """A data home of the place's own, with the kept tools in it: one that is shared would be root's, who writes there first."""
    home = place.root / "kept"
    (home / "bot-bottle").mkdir(parents=True)
    (home / "bot-bottle/providers").symlink_to(KEPT / "bot-bottle/providers")
    for folder in (home, home / "bot-bottle"):
        os.chown(folder, place.uid, place.uid)
    return home


@pytest.fixture
def claude_data(place):
    """A data home with Claude Code in it."""
    kept("claude")
    return data_home(place)


@pytest.fixture(scope="session")
def claude_program():
    return kept("claude")


@pytest.fixture(params=TOOLS)
def tool(request):
    """Each real tool: its name and its program."""
    return request.param, kept(request.param)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    """No test of this folder reaches a real API."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert "ANTHROPIC_API_KEY" not in os.environ
