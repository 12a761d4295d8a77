"""Runs the tests that need a microVM: here where one boots, else in a machine that `tools/kvm-guest` emulates.

    python tools/test_vm.py        (`make test-vm`)

Everything has a bound. Under emulation one boot in twenty hangs, and then it is tried once more. It says PASSED, FAILED or NOT RUN
with the reason, and its exit code is 0 only for PASSED; it is 77 for NOT RUN.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / "tools" / "kvm-guest"
WHOLE, SHORTEST, BOOT = 22 * 60, 400, 120
NOT_RUN = 77
WHY_NOT = ROOT / "build" / "test-vm-not-run"
NEEDED = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "zstd", "cpio", "ssh", "depmod")
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py.py", "pytest_timeout.py")


def kvm_works() -> bool:
    sys.path.insert(0, str(ROOT / "src"))
    from bot_bottle.backends.smolmachines import kvm, program
    from bot_bottle.errors import HostError

    try:
        kvm.check()
        program.find()
    except HostError as error:
        print(f"test-vm: not on this machine itself: {error.brief}", flush=True)
        return False
    return os.path.isdir(os.environ.get("BOT_BOTTLE_VM_IMAGE", "/var/lib/agent-image"))


def guest(*words: str, timeout: float, loud: bool = True) -> int:
    """Runs `tools/kvm-guest`; answers its exit code, 124 when it took too long."""
    try:
        out = None if loud else subprocess.DEVNULL
        return subprocess.run(
            [str(GUEST), *words], timeout=timeout, stdin=subprocess.DEVNULL, stdout=out, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return 124


def bring(folder: Path) -> Path:
    """What the guest needs of this checkout: the package, what that needs, the tests, and pytest."""
    import pytest

    site = Path(pytest.__file__).parent.parent
    bring_requirements(folder / "bot-bottle" / "site")
    made = folder / "bot-bottle"
    shutil.copytree(ROOT / "src", made / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(ROOT / "tests" / "vm", made / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    information = [path.name for path in site.glob("*.dist-info") if path.name.partition("-")[0] in PYTEST]
    for name in (*PYTEST, *information):
        if (site / name).is_dir():
            shutil.copytree(
                site / name,
                made / "site" / name,
                ignore=shutil.ignore_patterns("__pycache__"),
                dirs_exist_ok=True,
            )
        else:
            shutil.copy(site / name, made / "site" / name)
    (made / "pytest.ini").write_text("[pytest]\nmarkers =\n  vm\n  timeout\n")
    return made


def bring_requirements(target: Path) -> None:
    """The installed distributions that the package needs, compiled ones too: the guest has the Python of Debian 12."""
    waiting, brought = ["bot-bottle"], set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in brought:
            continue
        brought.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # of a requirement for another system
        waiting += [
            line
            for one in found.requires or ()
            if "extra ==" not in one
            for line in re.findall(r"^[\w.-]+", one)
        ]
        for file in () if name == "bot-bottle" else found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
                continue
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / file)


def once(folder: Path, seconds: float) -> int:
    """One boot of the guest, and the tests in it as a user without rights."""
    try:
        if guest("up", timeout=BOOT) or guest("put", str(folder), "/opt", timeout=BOOT):
            return 124
        words = "cd /opt/bot-bottle && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=src:site " \
            "python3 -m pytest -p no:cacheprovider -c pytest.ini -rA -v -x tests"  # fmt: skip
        return guest("ssh", f"su node -s /bin/sh -c '{words}'", timeout=seconds)
    finally:
        guest("down", timeout=30)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))  # so that the guest is taken down
    began = time.monotonic()
    if kvm_works():
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rA", str(ROOT / "tests" / "vm")],
            timeout=WHOLE,
            check=False,
        )
        return say("PASSED" if done.returncode == 0 else "FAILED", "on this machine")
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [name for name in NEEDED if shutil.which(name, path=search) is None]
    if missing or os.geteuid() or os.uname().machine != "x86_64":
        why = (
            f"missing: {', '.join(missing)}"
            if missing
            else "building the emulated machine needs root on x86_64"
        )
        return say("NOT RUN", why)
    if guest("build", timeout=WHOLE / 2):
        return say("NOT RUN", "the emulated machine could not be built")
    with tempfile.TemporaryDirectory(prefix="bot-bottle-vm-") as folder:
        brought = bring(Path(folder))
        for attempt in (1, 2):
            code = once(brought, WHOLE - (time.monotonic() - began))
            if code == 0:
                return say(
                    "PASSED", f"in the emulated machine, attempt {attempt}, {time.monotonic() - began:.0f} s"
                )
            print(f"test-vm: attempt {attempt} ended with {code}", flush=True)
            if WHOLE - (time.monotonic() - began) < SHORTEST + BOOT:
                break
    return say("FAILED", "in the emulated machine")


def say(result: str, what: str) -> int:
    print(f"test-vm: {result}: {what}", flush=True)
    WHY_NOT.parent.mkdir(exist_ok=True)
    if result == "NOT RUN":
        WHY_NOT.write_text(what + "\n")
    else:
        WHY_NOT.unlink(missing_ok=True)
    return {"PASSED": 0, "NOT RUN": NOT_RUN}.get(result, 1)


if __name__ == "__main__":
    sys.exit(main())
