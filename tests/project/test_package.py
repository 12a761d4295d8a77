"""The package as a whole: its version and its docstrings."""

import ast
import tomllib
from importlib import metadata
from pathlib import Path

import bot_bottle

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "bot_bottle"


def test_the_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert bot_bottle.__version__ == declared
    assert metadata.version("bot-bottle") == declared


def test_every_module_says_what_it_owns() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*.py")
        if "repository" not in path.parts  # the demo's, which is somebody else's program
        and path.read_text().strip()
        and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []
