"""The whole suite once more as an ordinary user, when it is root that runs the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

USER = 54321
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user; the suite ran as an ordinary one"
)
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv (util-linux)")
@pytest.mark.timeout(600)
def test_the_suite_passes_as_an_ordinary_user() -> None:
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    if subprocess.run(
        [*become, sys.executable, "-c", "import pytest"], capture_output=True, cwd="/"
    ).returncode:
        pytest.skip(f"{sys.executable} and its packages can't be reached by another user")
    with tempfile.TemporaryDirectory() as name:  # not below pytest's own folder, which is root's alone
        done = run_there(Path(name), become)
    print(done.stdout[-3000:], done.stderr[-2000:])
    assert done.returncode == 0


def run_there(place: Path, become: list[str]) -> subprocess.CompletedProcess:
    place.chmod(0o755)
    for folder in ("src", "tests", "tools"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    home = place / "home"
    home.mkdir()
    os.chown(home, USER, USER)
    files = [f"tests/backends/test_namespace{part}.py" for part in ("", "_death", "_host")]
    files += ["tests/door/test_relayed.py", "tests/backends/test_smolvm_contract.py"]
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
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{home}/hypothesis",
        },
        capture_output=True,
        text=True,
    )
