"""What a person gets from `pip install`: a wheel with everything in it, and a program that starts."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "bot_bottle"
pytestmark = pytest.mark.xdist_group("install")


def pip(*words: str) -> None:
    """Runs our pip; AssertionError with its output when it fails."""
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that building leaves no trace in the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tree / "dist"), str(tree))
    (built,) = (tree / "dist").iterdir()
    return built


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A virtual environment with nothing in it, not even pip."""
    place = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    return place


def call(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the `bot-bottle` that was installed into `place`."""
    return subprocess.run(
        [place / "bin" / "bot-bottle", *words], capture_output=True, text=True, check=False, cwd=place
    )


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    ignored = ("__pycache__",)
    ours = {path for path in PACKAGE.rglob("*") if path.is_file() and not set(path.parts) & set(ignored)}
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert {str(path.relative_to(PACKAGE.parent)) for path in ours} - packed == set()


def test_the_wheel_has_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = [name for name in archive.namelist() if name.endswith("/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_help_and_version_need_no_dependency(wheel: Path, fresh: Path) -> None:
    pytest.importorskip("bot_bottle.cli.main", reason="there is no command line yet")
    pip("--python", str(fresh), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    shown = call(fresh, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "start" in shown.stdout
    assert call(fresh, "--version").returncode == 0


@pytest.mark.registry
def test_an_installed_package_works_outside_its_checkout(wheel: Path, fresh: Path) -> None:
    pytest.importorskip("bot_bottle.cli.commands.schema", reason="there is no `schema` command yet")
    pip("--python", str(fresh), "install", "--quiet", str(wheel))
    shown = call(fresh, "schema", "bottle")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert '"properties"' in shown.stdout
