"""Getting rid of the images that were built for bottles."""

import os

import pytest

from bot_bottle.host import paths
from bot_bottle.operate import images


def test_where_none_was_ever_built_no_engine_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "nonsense://")
    assert images.forget() == []


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the SDK leaves a socket to the collector
def test_where_no_engine_answers_they_stay_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    os.makedirs(os.path.join(paths.cache_root(), "images"))
    [said] = images.forget()
    assert "stay" in said
    assert "/nonexistent/docker.sock" in said
