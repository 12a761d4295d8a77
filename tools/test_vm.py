"""Runs the tests that need a microVM: here where one boots, else in a machine that `tools/kvm-guest` emulates.

    python tools/test_vm.py        (`make test-vm`)

Everything has a bound. Under emulation one boot in twenty hangs, and then it is tried once more. It says PASSED, FAILED or NOT RUN
with the reason, and its exit code is 0 only for PASSED; it is 77 for NOT RUN.
"""

import compileall
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
from py_compile import PycInvalidationMode

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import BotBottleError

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / "tools" / "kvm-guest"
WHOLE, SHORTEST, BOOT, SILENT = 22 * 60, 120, 120, 240
MACHINES = 5
"""How many a share has at most, one after the other."""
NOT_RUN, TOOK_TOO_LONG = 77, 124
SHARES = {
    "bottles": ("tests/vm/test_bottle_vm.py", "tests/vm/test_killed_vm.py"),
    "program": tuple(f"tests/vm/test_{name}_vm.py" for name in ("relay", "start", "hostile", "kept")),
}
"""Each in a machine of its own, at once where there is room: a boot inside keeps one processor busy."""
PROGRAMS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
WHY_NOT = ROOT / "build" / "test-vm-not-run"
NEEDED = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "zstd", "cpio", "ssh", "depmod")
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py.py", "pytest_timeout.py")


def kvm_works() -> bool:
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
        self.passed: set[str] = set()
        self._heard = 0.0
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

    def ask(self, words: str, timeout: float) -> tuple[int, str, str]:
        """Runs `words` as a user without rights in what was brought: exit code, and what they said on both streams."""
        try:
            done = subprocess.run(
                self._as_user(words), env=self._env, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return TOOK_TOO_LONG, "", f"not within {timeout:.0f} s"
        return done.returncode, done.stdout, done.stderr

    def _as_user(self, words: str) -> list[str]:
        paths = ":".join(f"/opt/brought/{name}" for name in ("src", "site", "tests"))
        given = f"BOT_BOTTLE_VM_OWN=/opt/brought/own.tar PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={paths}"
        return [str(GUEST), "ssh", f"su node -s /bin/sh -c 'cd /opt/brought && {given} {words}'"]

    def tests(self, timeout: float) -> int:
        """Runs those that have not passed yet, as a user without rights, and shows what is said; answers pytest's exit code."""
        rest = " ".join(f"--deselect {name}" for name in sorted(self.passed))
        words = "python3 -m pytest -c pytest.ini -p no:cacheprovider -rA -v --durations=0 --durations-min=3"
        argv = self._as_user(f"{words} {rest} {' '.join(SHARES[self._share])}")
        end = time.monotonic() + timeout
        with subprocess.Popen(
            argv, env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as running:
            reader = threading.Thread(target=self._show, args=(running,), daemon=True)
            self._heard = time.monotonic()
            reader.start()
            while (code := running.poll()) is None:
                if time.monotonic() > min(end, self._heard + SILENT):
                    running.kill()
                    code = TOOK_TOO_LONG
                    break
                time.sleep(0.2)
            reader.join(5)
        return code

    def _show(self, running: subprocess.Popen[bytes]) -> None:
        for raw in running.stdout or ():
            line = raw.decode(errors="replace").rstrip()
            self._heard = time.monotonic()
            if found := re.match(r"(tests/\S+) PASSED", line):
                self.passed.add(found[1])
            print(f"{self._share}: {line}", flush=True)


def bring(folder: Path, *further: str) -> Path:
    """A disk with what the guest needs of this checkout: the package, what that needs, the tests, pytest, and `further` folders."""
    import pytest

    site = Path(pytest.__file__).parent.parent
    bring_requirements(folder / "files" / "site")
    made = folder / "files"
    shutil.copytree(ROOT / "src", made / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("vm", "support"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "tests" / name, made / "tests" / name, ignore=ignored)
    for name in further:
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    information = [
        path.name
        for path in site.glob("*.dist-info")
        if path.name.partition("-")[0] in (*PYTEST, "pytest_timeout")
    ]
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
    # An emulated processor takes minutes to compile what is imported; a Python that is another than the guest's does no harm.
    compileall.compile_dir(made, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    shutil.copy(own_image(), made / "own.tar")
    disk = folder / "brought.ext4"
    mke2fs = shutil.which("mke2fs", path=PROGRAMS) or "mke2fs"
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-d", made, disk, "2G"], check=True)
    return disk


def own_image() -> Path:
    """bot-bottle's own image, as an archive, made as for a user whose host has no engine. Raises BotBottleError."""
    from bot_bottle.backends.smolmachines import sources
    from bot_bottle.backends.smolmachines.unpacking import Unpacking

    source = sources.packages(lambda words: print(f"test-vm: {words}", flush=True))
    archive = ROOT / "build" / "vm" / f"{sha256_hex(source.mark.encode())[:16]}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bot-bottle-own-") as folder:
            os.chmod(folder, 0o755)
            into = Unpacking(folder)
            try:
                source.fill(into)
            finally:
                into.close()
            fresh = archive.with_suffix(".fresh")
            subprocess.run(["tar", "-C", folder, "-cf", fresh, "."], check=True)
            fresh.rename(archive)
    return archive


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
    """A share of the tests in a machine of its own. What has not passed is tried once more.

    Where the emulated machine itself hung or was gone, a new one goes on, and that is no try of the tests as long as some passed.
    """
    machine = Guest(name, number, brought)
    is_up, tries = False, 2
    try:
        for attempt in range(1, MACHINES + 1):
            is_up = is_up or machine.up()
            passed = len(machine.passed)
            code = machine.tests(until - time.monotonic()) if is_up else TOOK_TOO_LONG
            print(f"test-vm: {name}: attempt {attempt} ended with {code}", flush=True)
            if code == 0:
                return True
            if code != 1:
                machine.down()
                is_up = False
            if code == 1 or len(machine.passed) == passed:
                tries -= 1
            if not tries:
                break
            if until - time.monotonic() < SHORTEST:
                break
        return False
    finally:
        machine.down()


def not_emulated() -> str:
    """Why no machine can be emulated here; empty when one can."""
    if missing := [name for name in NEEDED if shutil.which(name, path=PROGRAMS) is None]:
        return f"missing: {', '.join(missing)}"
    can_build = os.geteuid() == 0 and os.uname().machine == "x86_64"
    return "" if can_build else "building the emulated machine needs root on x86_64"


def built() -> bool:
    """Makes what the emulated machines are started from, once."""
    try:
        done = subprocess.run([GUEST, "build"], timeout=WHOLE / 2, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def take_down(*_: object) -> None:
    """Ends all machines at once, and with them whatever waits for one."""
    for name in SHARES:
        Guest(name, 0, Path()).down()
    os._exit(TOOK_TOO_LONG)


def at_once() -> int:
    """How many emulated machines: each takes a processor and its memory."""
    available = re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())
    has_room = available is not None and int(available[1]) > 8 << 20
    return len(SHARES) if has_room and len(os.sched_getaffinity(0)) > 1 else 1


def main() -> int:
    signal.signal(signal.SIGTERM, take_down)
    began = time.monotonic()
    if kvm_works():
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rA", str(ROOT / "tests" / "vm")],
            env={**os.environ, "BOT_BOTTLE_VM_OWN": str(own_image())},
            timeout=WHOLE,
            check=False,
        )
        return say("PASSED" if done.returncode == 0 else "FAILED", "on this machine")
    if why := not_emulated():
        return say("NOT RUN", why)
    if not built():
        return say("NOT RUN", "the emulated machine could not be built")
    print(f"test-vm: the emulated machine is there after {time.monotonic() - began:.0f} s", flush=True)
    folder = ROOT / "build" / "vm" / "brought"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        brought = bring(folder)
        with ThreadPoolExecutor(at_once()) as pool:
            passed = list(
                pool.map(lambda one: share(one[1], one[0], brought, began + WHOLE), enumerate(SHARES))
            )
    except BotBottleError as error:
        return say("FAILED", f"{error.brief}: {error.details}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    took = f"in the emulated machine, {time.monotonic() - began:.0f} s"
    return say("PASSED" if all(passed) else "FAILED", took)


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
