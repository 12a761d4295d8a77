"""What a command imports before it is needed: start-up is a feature, and this is what keeps it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.bottles import write_script
from support.place import Place, python

pytest.importorskip("bot_bottle.cli.main", reason="there is no command line yet")

HEAVY = {
    "asyncio",
    "cryptography",
    "ctypes",
    "dataclasses",
    "email",
    "hmac",
    "http",
    "httptools",
    "importlib.metadata",
    "inspect",
    "logging",
    "multiprocessing",
    "pathlib",
    "pydantic",
    "pyseccomp",
    "random",
    "rich",
    "secrets",
    "shtab",
    "ssl",
    "subprocess",
    "tempfile",
    "textual",
    "urllib.request",
    "yaml",
}
THIRD_PARTY = {"httptools", "pydantic", "pyseccomp", "rich", "shtab", "textual", "yaml"}
PROBE = """
import json, sys
before = set(sys.modules)
from bot_bottle.cli.main import main
code = main(sys.argv[1:])
sys.stderr.write(json.dumps([code, sorted(set(sys.modules) - before)]))
"""


def imported_by(*words: str, home: Path) -> set[str]:
    """The modules that `bot-bottle WORDS` imports."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=home,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("list",), ("list", "--json")])
def test_nothing_heavy_is_imported_by(words: tuple[str, ...], own_home: Path) -> None:
    assert imported_by(*words, home=own_home) & HEAVY == set()


def test_help_imports_no_command(own_home: Path) -> None:
    commands = {
        name for name in imported_by("--help", home=own_home) if name.startswith("bot_bottle.cli.commands.")
    }
    assert commands == set()


def test_starting_a_bottle_that_is_not_supervised_imports_nothing_for_asking() -> None:
    code = "import sys; from bot_bottle.launch import launcher; from bot_bottle.operate import runs; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "bot_bottle.launch.bundles" in loaded
    assert [
        name
        for name in loaded
        if "supervis" in name or name.partition(".")[0] in ("mcp", "pydantic", "starlette")
    ] == []


def test_the_probe_sees_a_heavy_import(own_home: Path) -> None:
    """`schema` is made from the pydantic models, so it has to show."""
    pytest.importorskip("bot_bottle.cli.commands.schema", reason="there is no `schema` command yet")
    assert "pydantic" in imported_by("schema", "bottle", home=own_home)


START = """
import json, os, sys
from bot_bottle.cli.main import main
code = main(["start", "work", "--headless", "--quiet"])
sys.stderr.write(json.dumps([code, sorted(sys.modules)]))
sys.stderr.flush()
os._exit(0)
"""
NOT_FOR_A_START = HEAVY - {"ctypes"} | {
    "typing",
    "textual",
    "mcp",
    "starlette",
    "uvicorn",
    "traceback",
    "gettext",
}


@pytest.mark.namespace
def test_a_start_of_a_copied_workspace_that_changes_nothing_imports_nothing_heavy(
    place: Place, cli: object, repository: Path
) -> None:
    write_script(place, "work", "true")
    for _ in range(2):  # the first one checks the manifest, which is kept then
        done = place.run([*python(), "-c", START], cwd=repository)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    assert {
        name for name in modules if name in NOT_FOR_A_START or name.partition(".")[0] in THIRD_PARTY
    } == set()
