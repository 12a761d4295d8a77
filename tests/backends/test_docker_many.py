"""Twelve bottles at once on one engine, by the installed program: each runs its own agent, and nothing is left of any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import engine as engines
from support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("many bottles")]

COUNT = 12
BOTTLE = f"---\nbackend: docker\nimage: {{args: {{BASE: '{engines.BASE}'}}}}\n---\n"
AGENT = """---
provider: command
command: ["sh", "-c", "cat name; touch begun; until [ -e go ]; do sleep 0.05; done; touch done"]
---
"""


def _labelled() -> list[str]:
    engine = engines.engine()
    try:
        found = engine.client.api.containers(all=True, filters={"label": "bot-bottle.run"})
        return [one["Labels"]["bot-bottle.run"] for one in found]
    finally:
        engine.client.close()


def test_twelve_start_together_and_nothing_is_left(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for place, text in (("bottles/default.md", BOTTLE), ("agents/many.md", AGENT)):
        path = home / ".bot-bottle" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = {**os.environ, "HOME": str(home)}
    running = []
    for number in range(COUNT):
        repository = tmp_path / f"repository-{number}"
        repository.mkdir()
        (repository / "name").write_text(f"bottle {number}\n")
        argv = [sys.executable, "-m", "bot_bottle", "start", "many", "--headless", "--workspace", "mount"]
        running.append(
            subprocess.Popen(argv, cwd=repository, env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )  # fmt: skip
    repositories = sorted(tmp_path.glob("repository-*"))
    all_run = lambda: all((one / "begun").exists() for one in repositories)  # noqa: E731
    wait_for(lambda: all_run() or any(child.poll() is not None for child in running), "all to run", within=90)
    for one in repositories:
        (one / "go").touch()
    told = [child.communicate(timeout=100) for child in running]
    assert [child.returncode for child in running] == [0] * COUNT, told
    assert [out for out, _ in told] == [f"bottle {number}\n" for number in range(COUNT)]
    assert all((one / "done").exists() for one in repositories)
    ids = {path.name for path in (home / ".local/state/bot-bottle/runs").iterdir()}
    assert len(ids) == COUNT
    wait_for(lambda: not ids & set(_labelled()), "the engine to have removed them all")
