#!/usr/bin/env python3
"""Makes a checkout ready to test: Debian packages, `.venv`, locked dependencies, the package itself.

Uses nothing but the standard library of a Python >= 3.11. Run twice, the second time does next to nothing: a stamp in
`.venv` remembers what it was made from.
"""

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import base_image

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "made-from"
LOCK = ROOT / "requirements" / "dev.txt"
MINIMUM = (3, 11)
NAMES = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")


class Tool(NamedTuple):
    """A program that is needed, the Debian package that has it, and what needs it."""

    program: str
    package: str
    reason: str


TEST_TOOLS = (
    Tool("bwrap", "bubblewrap", "holds a bottle of the namespace backend"),
    Tool("git", "git", "remembers what an agent changed"),
    Tool("setpriv", "util-linux", "lets the tests be another user"),
    Tool("curl", "curl", "is a client that the tests put into a bottle"),
    Tool("openssl", "openssl", "makes the tests' certificates"),
    Tool("nghttp", "nghttp2-client", "is a client that the tests put into a bottle"),
    Tool("nghttpd", "nghttp2-server", "is the HTTP/2 server behind the tests' bottles"),
    Tool("nginx", "nginx-light", "is before the git servers of the tests; it is not started as a service"),
    Tool("tinyproxy", "tinyproxy-bin", "is the company's proxy in the tests"),
    Tool("ssh", "openssh-client", "is a client that the tests put into a bottle"),
    Tool("chromium", "chromium", "is the browser in which the inbox's page is tried"),
    Tool("tmux", "tmux", "is the terminal of the tests"),
    Tool("sshd", "openssh-server", "is the server behind it; it is not started as a service"),
    Tool("gnutls-cli", "gnutls-bin", "is a client with another TLS library, in the bottles of the tests"),
)
BENCH_TOOLS = (
    Tool("rg", "ripgrep", "is needed by the yardstick `srt`"),
    Tool("socat", "socat", "is needed by the yardstick `srt`"),
    Tool("wrk", "wrk", "sends the requests that the tunnel is measured with"),
    Tool("nginx", "nginx-light", "answers them"),
)
ENGINE_TOOLS = (
    Tool("dockerd", "docker.io", "is the engine of the Docker tests; they start it, where none answers"),
    Tool("mmdebstrap", "mmdebstrap", "makes the image that theirs are built on"),
    Tool("rootlesskit", "rootlesskit", "is needed by their rootless engine"),
    Tool("newuidmap", "uidmap", "is needed by their rootless engine"),
    Tool("slirp4netns", "slirp4netns", "is needed by their rootless engine"),
    Tool("fuse-overlayfs", "fuse-overlayfs", "is needed by their rootless engine"),
    Tool("podman", "podman", "is the other service that they meet"),
)
DOCKER_SOCKET = Path("/var/run/docker.sock")
PICTURE_TOOLS = (Tool("pngquant", "pngquant", "makes the documents' pictures small"),)
VM_TOOLS = (
    Tool("qemu-system-x86_64", "qemu-system-x86", "emulates a machine with KVM"),
    Tool("qemu-img", "qemu-utils", "makes its disk"),
    Tool("mmdebstrap", "mmdebstrap", "fills it"),
    Tool("mke2fs", "e2fsprogs", "fills it"),
    Tool("zstd", "zstd", "fills it"),
    Tool("cpio", "cpio", "fills it"),
    Tool("depmod", "kmod", "fills it"),
    Tool("ssh", "openssh-client", "is the way into it"),
)


class GoProgram(NamedTuple):
    """A program that Go builds: its name, the package at its pinned version, and what is left out without it."""

    name: str
    package: str
    reason: str

    @property
    def place(self) -> Path:
        """The folder that it is in, for this version alone."""
        return ROOT / "build" / self.name / self.package.partition("@")[2]


PIPELOCK = GoProgram(
    "pipelock", "github.com/luckyPipewrench/pipelock/cmd/pipelock@7a3b7de4a555", "the second egress engine"
)
GITLEAKS = GoProgram(
    "gitleaks", "github.com/zricethezav/gitleaks/v8@v8.30.1", "what looks for secrets in pushes"
)
GO_PROGRAMS = (PIPELOCK, GITLEAKS)
SAMPLES = GITLEAKS.place / "samples.jsonl"
"""What gitleaks tests its own rules with."""
GO_MINIMUM = (1, 25)
NO_SERVICES = Path("/usr/sbin/policy-rc.d")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class SetupError(Exception):
    """What is missing, and what to do about it."""


def run(argv: Sequence[str | Path], **environment: str) -> None:
    """Runs `argv` in the checkout with our environment and what is added to it; SetupError when it fails."""
    words = [str(word) for word in argv]
    print("+", " ".join(words), file=sys.stderr, flush=True)
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise SetupError(f"{' '.join(words)}: exit code {done.returncode}")


def reachable_by_all(path: Path) -> bool:
    """Whether a user without any rights can execute `path`: the file, and every folder on the way to it."""
    real = path.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (real, *real.parents))


def version_of(python: Path) -> tuple[int, ...]:
    """The version that `python` says it has; empty when it does not run."""
    ask = [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
    except OSError:
        return ()
    return tuple(int(part) for part in done.stdout.split()) if done.returncode == 0 else ()


def find_python(wanted: str = "") -> Path:
    """The interpreter for `.venv`: `wanted`, else the first new enough one that every user can execute, else any."""
    if wanted:
        found = shutil.which(wanted)
        if found is None or version_of(Path(found)) < MINIMUM:
            raise SetupError(f"{wanted} is not a Python {MINIMUM[0]}.{MINIMUM[1]} or newer")
        return Path(found)
    places = ["/usr/bin", "/usr/local/bin", *os.environ.get("PATH", "").split(os.pathsep)]
    found = [shutil.which(name, path=place) for place in places if place for name in NAMES]
    usable = [Path(path) for path in [*found, sys.executable] if path and version_of(Path(path)) >= MINIMUM]
    if not usable:
        raise SetupError(f"no Python {MINIMUM[0]}.{MINIMUM[1]} or newer was found on PATH")
    return next((path for path in usable if reachable_by_all(path)), usable[0])


def venv_package(python: Path) -> str:
    """The Debian package without which `python` can't make a virtual environment."""
    if python.resolve() == Path("/usr/bin/python3").resolve():
        return "python3-venv"
    return f"{python.resolve().name}-venv"


def missing_tools(python: Path, tools: Sequence[Tool]) -> list[Tool]:
    """Those of `tools` that PATH does not have, and what `python` needs to make a virtual environment."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [tool for tool in tools if shutil.which(tool.program, path=search) is None]
    probe = subprocess.run(
        [str(python), "-I", "-c", "import ensurepip, venv"], capture_output=True, check=False
    )
    if probe.returncode:
        missing.append(Tool("ensurepip", venv_package(python), "makes .venv"))
    if shutil.which("apt-get"):  # elsewhere they may be in other places
        if not CERTIFICATES.exists():
            missing.append(Tool("certificates", "ca-certificates", "is what TLS clients trust"))
        if not any(Path("/").glob("usr/lib/*/libseccomp.so.2")) and not any(
            Path("/").glob("lib/*/libseccomp.so.2")
        ):
            missing.append(Tool("libseccomp", "libseccomp2", "rebuilds the filters, to compare them"))
    return missing


def install_packages(missing: Sequence[Tool]) -> None:
    """Installs what is missing, as root on Debian and Ubuntu; elsewhere one message says all of it."""
    packages = sorted({tool.package for tool in missing})
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        lines = [f"  {tool.program:13} (Debian package {tool.package}) {tool.reason}" for tool in missing]
        hint = f"Install them, as root: apt-get install {' '.join(packages)}"
        raise SetupError("\n".join(["this machine lacks:", *lines, hint]))
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], **quiet)
    with no_services():
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], **quiet)


@contextlib.contextmanager
def no_services() -> Iterator[None]:
    """Keeps packages from starting what they bring, by Debian's policy-rc.d: nginx would listen on port 80."""
    made = not NO_SERVICES.exists()
    if made:
        NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
        NO_SERVICES.chmod(0o755)
    try:
        yield
    finally:
        if made:
            NO_SERVICES.unlink()


def fingerprint(*parts: str | Path) -> str:
    """A digest of texts and of files' contents."""
    content = [part.read_bytes() if isinstance(part, Path) else part.encode() for part in parts]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def make_venv(python: Path) -> None:
    """Makes `.venv` from `python` with the locked dependencies and the package itself; does what is not done yet."""
    libraries = fingerprint(str(python), str(version_of(python)), str(ROOT), LOCK, Path(__file__))
    package = fingerprint(libraries, ROOT / "pyproject.toml")
    done = STAMP.read_text().split() if STAMP.exists() else []
    os.umask(0o022)
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if libraries not in done:
        run([python, "-m", "venv", "--clear", VENV])
        run([*pip, "--require-hashes", "-r", LOCK], PIP_ROOT_USER_ACTION="ignore")
        STAMP.write_text(libraries)
    if package not in done:
        run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], PIP_ROOT_USER_ACTION="ignore")
        STAMP.write_text(f"{libraries} {package}")


def go() -> tuple[str, str]:
    """Where Go is, and why it can't be used; one of them is empty."""
    if os.environ.get("BOT_BOTTLE_OFFLINE"):
        return "", "BOT_BOTTLE_OFFLINE is set"
    found = shutil.which(
        "go", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/go/bin"])
    )
    if found is None:
        return "", "Go is not installed"
    local = {**os.environ, "GOTOOLCHAIN": "local"}
    said = subprocess.run(
        [found, "env", "GOVERSION"], env=local, capture_output=True, text=True, check=False
    ).stdout
    number = tuple(int(part) for part in re.findall(r"[0-9]+", said)[:2])
    return ("", f"Go {said.strip() or 'of no version'} is too old") if number < GO_MINIMUM else (found, "")


def install(program: GoProgram) -> str:
    """Builds a program with Go, once; answers why it is not there, empty when it is.

    It never fails the set-up: the tests that need it say then that they did not run, and why.
    """
    if (program.place / program.name).exists():
        return ""
    found, why_not = go()
    if why_not:
        return why_not
    local = {**os.environ, "GOTOOLCHAIN": "local", "GOBIN": str(program.place)}
    print("+ go install", program.package, file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            [found, "install", program.package], cwd="/", env=local, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=1200, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "go install took longer than 20 minutes"
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1].strip()
        return f"go install {program.package} failed: {last}"
    return ""


def note(program: GoProgram) -> None:
    """Builds it, or leaves the reason where the tests find it."""
    why_not = install(program)
    reason = program.place.parent / "why-not"
    if why_not:
        said = f"no {program.name} ({program.reason}), so its tests are skipped: {why_not}"
        print(f"bootstrap: {said}", file=sys.stderr)
        reason.parent.mkdir(parents=True, exist_ok=True)
        reason.write_text(why_not + "\n")
    else:
        reason.unlink(missing_ok=True)


def collect_samples() -> None:
    """Has gitleaks' own samples written down, once; without them the tests that plant them are skipped."""
    found, why_not = go()
    if SAMPLES.exists() or why_not or not (GITLEAKS.place / GITLEAKS.name).exists():
        return
    version = GITLEAKS.package.partition("@")[2]
    script = ROOT / "tools" / "gitleaks_samples.py"
    words = [sys.executable, str(script), version, str(SAMPLES), "--go", found]
    print("+", " ".join(words), file=sys.stderr, flush=True)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        print(f"bootstrap: gitleaks' samples could not be collected: {last}", file=sys.stderr)


def engine_tools() -> tuple[Tool, ...]:
    """What the Docker tests need here; nothing where it can't be installed, as those tests then say so and are not run."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return ()
    elsewhere = os.environ.get("DOCKER_HOST") or DOCKER_SOCKET.is_socket()
    return ENGINE_TOOLS[1:] if elsewhere else ENGINE_TOOLS


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes this checkout ready to test.")
    parser.add_argument("--bench", action="store_true", help="also what `make bench` needs")
    parser.add_argument("--pictures", action="store_true", help="also what `make pictures` needs")
    parser.add_argument("--vm", action="store_true", help="also what `make test-vm` needs")
    parser.add_argument(
        "--python", default=os.environ.get("BOT_BOTTLE_PYTHON", ""), help="make .venv from this one"
    )
    options = parser.parse_args()
    try:
        python = find_python(options.python)
        wanted = (
            TEST_TOOLS
            + engine_tools()
            + (BENCH_TOOLS if options.bench else ())
            + (PICTURE_TOOLS if options.pictures else ())
            + (VM_TOOLS if options.vm else ())
        )
        missing = missing_tools(python, wanted)
        if missing:
            install_packages(missing)
        make_venv(python)
        for program in GO_PROGRAMS:
            note(program)
        collect_samples()
        base_image.prepare()
    except SetupError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
