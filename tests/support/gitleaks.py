"""The real gitleaks for tests, and the samples with which it tests its own rules."""

import json
import shutil
from pathlib import Path

import pytest

from bot_bottle.bundle.gitgate.gitleaks import VERSION

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "gitleaks" / VERSION
SAMPLES = FOLDER / "samples.jsonl"
WHY_NOT = ROOT / "build" / "gitleaks" / "why-not"


def program() -> str | None:
    """Where it is."""
    if (FOLDER / "gitleaks").exists():
        return str(FOLDER / "gitleaks")
    return shutil.which("gitleaks")


def missing() -> str:
    """Why it is not there; empty when it is."""
    if program():
        return ""
    said = WHY_NOT.read_text().strip() if WHY_NOT.exists() else "make has not tried to install it"
    return f"the real gitleaks is not installed: {said}"


def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts it on PATH; skips the test where there is none."""
    found = program()
    if found is None:
        pytest.skip(missing())
    monkeypatch.setenv("PATH", f"{Path(found).parent}:/usr/bin:/bin")


def samples(without: str = "") -> dict[str, tuple[str, str]]:
    """For every rule a path (if it matters) and a text that it has to find, with none of the characters `without`.

    They are made anew wherever they are collected, and stand in another order each time.
    """
    if not SAMPLES.exists():
        pytest.skip("gitleaks' own samples were not collected: that takes Go")
    found: dict[str, tuple[str, str]] = {}
    with SAMPLES.open() as lines:
        for one in map(json.loads, lines):
            if one["rule"] == "generic-api-key" and "CLOJARS_" in one["text"]:
                continue  # gitleaks names that by the narrower rule
            if set(without) & set(one["text"]):
                continue
            found.setdefault(one["rule"], (one["path"], one["text"]))
    return found
