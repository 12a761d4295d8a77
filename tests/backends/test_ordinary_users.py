"""The whole suite of each backend once more as an ordinary user, when it is root that runs the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.backends import EVERY
from support.place import engine_group

USER = 54321
FILES = {
    "namespace": ("namespace", "namespace_death", "namespace_host"),
    "docker": ("docker", "docker_death", "docker_inside"),
}
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user; the suite ran as an ordinary one"
)
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv (util-linux)")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", EVERY)
def test_the_suite_passes_as_an_ordinary_user(backend: str) -> None:
    groups = f"--groups={engine_group()}" if backend == "docker" else "--clear-groups"
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", groups]
    if subprocess.run(
        [*become, sys.executable, "-c", "import pytest"], capture_output=True, cwd="/"
    ).returncode:
        pytest.skip(f"{sys.executable} and its packages can't be reached by another user")
    with tempfile.TemporaryDirectory() as name:  # not below pytest's own folder, which is root's alone
        done = run_there(Path(name), become, FILES[backend])
    print(done.stdout[-3000:], done.stderr[-2000:])
    assert done.returncode == 0


def run_there(place: Path, become: list[str], parts: tuple[str, ...]) -> subprocess.CompletedProcess:
    place.chmod(0o755)
    for folder in ("src", "tests", "tools"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    home = place / "home"
    for folder in (home, place / "build"):
        folder.mkdir()
        os.chown(folder, USER, USER)
    files = [f"tests/backends/test_{part}.py" for part in parts]
    return subprocess.run(
        [
            *become,
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={home}/tmp",
            *files,
        ],
        cwd=place,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": f"{place}/src:{place}/tests",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
    )
