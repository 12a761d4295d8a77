"""Guards and fixtures of every test: no test touches the real home, leaves something behind or is skipped in silence."""

import compileall
import contextlib
import itertools
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support import engine
from support.place import Done, Place, make_place, program

# How fast examples are made says how busy the machine is, and nothing of what is tested.
settings.register_profile(
    "project",
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")

REAL_HOME = Path(os.path.expanduser("~"))
UNPRIVILEGED = itertools.count(20000 + 500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))
ENGINE_USER = 29999
MUST_RUN_IN_CI = ("namespace",)
"""Tests so marked may not be skipped there."""
HELD = ExitStack()
"""What is the whole run's, whatever its workers do."""


@cache
def namespaces_missing() -> str:
    """Why bubblewrap can't make a bottle here; empty when it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    argv = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=20000", "--regid=20000", "--clear-groups", "--", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    return f"bubblewrap can't make namespaces here ({done.stderr.strip()})" if done.returncode else ""


REASONS: dict[str, Callable[[], str]] = {
    "namespace": namespaces_missing,
    "docker": engine.missing,
    "root": lambda: "" if os.geteuid() == 0 else "not run as root",
    "registry": lambda: "BOT_BOTTLE_OFFLINE is set" if os.environ.get("BOT_BOTTLE_OFFLINE") else "",
}


def pytest_configure(config: pytest.Config) -> None:
    """Compiles the package once: a user without rights can't keep the result, and would compile it at every call."""
    if not hasattr(config, "workerinput"):
        HELD.enter_context(engine.used())
        source = Path(__file__).resolve().parents[1] / "src"
        compileall.compile_dir(source, quiet=2, rx=re.compile("/repository/"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """The engine of the tests ends when the last worker has."""
    HELD.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test whose marker names something that is missing says so; in CI some must not be missing."""
    for name, missing in REASONS.items():
        if item.get_closest_marker(name) and (why := missing()):
            if os.environ.get("CI") and name in MUST_RUN_IN_CI:
                pytest.fail(f"CI has to run this test, but {why}", pytrace=False)
            pytest.skip(why)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Counts what was skipped, by reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("not run on this machine")
        ran = any("docker" in report.keywords for report in terminalreporter.stats.get("passed", []))
        if not ran and any("docker" in report.keywords for report in skipped) and engine.possible():
            terminalreporter.write_line("Docker tests did not run, although an engine should run here.")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:4}  {reason}")


OURS = (".bot-bottle", ".local/state/bot-bottle", ".local/share/bot-bottle", ".cache/bot-bottle")


def traces_in_real_home() -> dict[str, float]:
    """Our folders in the home of whoever runs the tests, and when they last changed."""
    return {name: (REAL_HOME / name).stat().st_mtime for name in OURS if (REAL_HOME / name).exists()}


def written_by_tests(since: float, marks: Sequence[bytes]) -> list[Path]:
    """Files there that were written since then and name a place of the tests."""
    found = []
    for path in (each for name in OURS for each in (REAL_HOME / name).rglob("*")):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime >= since and path.stat().st_size < 64 << 20:
                content = path.read_bytes() + bytes(path)
                found += [path] if any(mark in content for mark in marks) else []
    return found


@pytest.fixture(scope="session", autouse=True)
def real_home_untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the session when a test wrote to the real home.

    In CI nobody else is there. Elsewhere a person may use the program meanwhile, so what was written has to name a test's place.
    """
    before, began = traces_in_real_home(), time.time()
    yield
    if traces_in_real_home() == before:
        return
    assert not os.environ.get("CI"), "a test wrote to the real home"
    base = (
        tmp_path_factory.getbasetemp().parent
        if "PYTEST_XDIST_WORKER" in os.environ
        else tmp_path_factory.getbasetemp()
    )
    assert written_by_tests(began, (bytes(base), b"/tmp/bb-")) == [], "a test wrote to the real home"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HOME is the test's own, and nothing else of the person's environment says where things are."""
    home = tmp_path / "own-home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    for name in [
        name for name in os.environ if name.startswith(("XDG_", "BOT_BOTTLE_", "ANTHROPIC_", "GIT_"))
    ]:
        if name not in ("GIT_SSL_CAINFO", "BOT_BOTTLE_OFFLINE"):
            monkeypatch.delenv(name)
    return home


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """What holds the test's bottles; see `support.backends.on_every_backend`."""
    return str(getattr(request, "param", "namespace"))


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest, backend: str) -> int:
    """The uid that the program runs as: once root, once a user without rights (the same uid never twice)."""
    if os.geteuid() != 0:
        if request.param == "root":
            pytest.skip("not run as root")
        return os.geteuid()
    if backend == "docker" and request.param == "user":
        return ENGINE_USER  # an image is made for each who has one
    return 0 if request.param == "root" else next(UNPRIVILEGED)


@pytest.fixture
def place(who: int, backend: str) -> Iterator[Place]:
    """A home and a workspace for `who`; nothing of a run may be left there when the test ends."""
    place = make_place(who, backend)
    try:
        yield place
        place.assert_nothing_left()
    finally:
        place.remove()


@pytest.fixture
def repository(place: Place) -> Path:
    """The place's workspace as a git repository with one commit."""
    (place.workspace / "hello.txt").write_text("hello\n")
    os.chown(place.workspace / "hello.txt", place.uid, place.uid)
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "Start"]):
        done = place.run(["git", *words])
        assert done.code == 0, done.stderr
    return place.workspace


@pytest.fixture
def cli(place: Place) -> Callable[..., Done]:
    """Runs the installed `bot-bottle` in `place`: `cli("list", "--json")`, `cli("start", "x", stdin="…", timeout=30)`."""

    def run(*words: str, **options: Any) -> Done:
        return place.run([str(program()), *words], **options)

    return run


@pytest.fixture
def nothing_left(place: Place) -> Callable[[], None]:
    """Says at once whether anything of a run is left, in the middle of a test; the end of every `place` does so too."""
    return place.assert_nothing_left
