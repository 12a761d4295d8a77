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
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / "tools" / "kvm-guest"
WHOLE, SHORTEST, BOOT = 22 * 60, 120, 120
NOT_RUN, TOOK_TOO_LONG = 77, 124
SHARES = {
    "bottles": ("tests/vm/test_bottle_vm.py", "tests/vm/test_kept_vm.py"),
    "program": tuple(f"tests/vm/test_{name}_vm.py" for name in ("relay", "start", "hostile", "killed")),
}
"""Each in a machine of its own, at once where there is room: a boot inside keeps one processor busy."""
PROGRAMS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
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


class Guest:
    """One emulated machine, beside others."""

    def __init__(self, share: str, number: int, brought: Path) -> None:
        self._share = share
        self._env = {
            **os.environ,
            "KVM_GUEST_NAME": f"test-{share}",
            "KVM_GUEST_PORT": str(int(os.environ.get("KVM_GUEST_PORT", "2223")) + number),
            "KVM_GUEST_BRING": str(brought),
        }

    def up(self) -> bool:
        return self._call("up", timeout=BOOT) == 0

    def down(self) -> None:
        self._call("down", timeout=30)

    def _call(self, *words: str, timeout: float) -> int:
        try:
            return subprocess.run(
                [str(GUEST), *words], env=self._env, timeout=timeout, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return TOOK_TOO_LONG

    def tests(self, more: str, timeout: float) -> int:
        """Runs them as a user without rights, and shows every line as it comes; answers pytest's exit code."""
        words = (
            "cd /opt/brought && BOT_BOTTLE_VM_OWN=/opt/brought/own.tar PYTHONDONTWRITEBYTECODE=1 "
            "PYTHONPATH=/opt/brought/src:/opt/brought/site:/opt/brought/tests python3 -m pytest -c pytest.ini "
            f"-o cache_dir=/tmp/pytest-cache -rA -v --durations=0 --durations-min=3 {more} {' '.join(SHARES[self._share])}"
        )
        argv = [str(GUEST), "ssh", f"su node -s /bin/sh -c '{words}'"]
        with subprocess.Popen(
            argv, env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as running:
            reader = threading.Thread(target=self._show, args=(running,), daemon=True)
            reader.start()
            try:
                code = running.wait(max(timeout, 0))
            except subprocess.TimeoutExpired:
                running.kill()
                code = TOOK_TOO_LONG
            reader.join(5)
        return code

    def _show(self, running: subprocess.Popen[bytes]) -> None:
        for line in running.stdout or ():
            print(f"{self._share}: {line.decode(errors='replace').rstrip()}", flush=True)


def bring(folder: Path) -> Path:
    """A disk with what the guest needs of this checkout: the package, what that needs, the tests, and pytest."""
    import pytest

    site = Path(pytest.__file__).parent.parent
    bring_requirements(folder / "brought" / "site")
    made = folder / "brought"
    shutil.copytree(ROOT / "src", made / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("vm", "support"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "tests" / name, made / "tests" / name, ignore=ignored)
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
    disk = folder / "brought.ext4"
    mke2fs = shutil.which("mke2fs", path=PROGRAMS) or "mke2fs"
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-d", made, disk, "2G"], check=True)
    return disk


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


def share(name: str, number: int, brought: Path, until: float) -> bool:
    """A share of the tests in a machine of its own. What failed is tried once more; in a new machine when this one hung."""
    machine = Guest(name, number, brought)
    more, is_up = "", False
    try:
        for attempt in (1, 2):
            is_up = is_up or machine.up()
            code = machine.tests(more, until - time.monotonic()) if is_up else TOOK_TOO_LONG
            print(f"test-vm: {name}: attempt {attempt} ended with {code}", flush=True)
            if code == 0:
                return True
            if code == 1:
                more = "--last-failed"
            else:
                machine.down()
                more, is_up = "", False
            if until - time.monotonic() < SHORTEST:
                break
        return False
    finally:
        machine.down()


def at_once() -> int:
    """How many emulated machines: each takes a processor and its memory."""
    available = re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())
    has_room = available is not None and int(available[1]) > 8 << 20
    return len(SHARES) if has_room and len(os.sched_getaffinity(0)) > 1 else 1


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
    missing = [name for name in NEEDED if shutil.which(name, path=PROGRAMS) is None]
    if missing or os.geteuid() or os.uname().machine != "x86_64":
        why = (
            f"missing: {', '.join(missing)}"
            if missing
            else "building the emulated machine needs root on x86_64"
        )
        return say("NOT RUN", why)
    if subprocess.run([GUEST, "build"], check=False, stdin=subprocess.DEVNULL).returncode:
        return say("NOT RUN", "the emulated machine could not be built")
    print(f"test-vm: the emulated machine is there after {time.monotonic() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="bot-bottle-vm-") as folder:
        brought = bring(Path(folder))
        with ThreadPoolExecutor(at_once()) as pool:
            done = list(
                pool.map(lambda one: share(one[1], one[0], brought, began + WHOLE), enumerate(SHARES))
            )
    took = f"in the emulated machine, {time.monotonic() - began:.0f} s"
    return say("PASSED" if all(done) else "FAILED", took)


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
