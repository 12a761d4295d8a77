"""The demo: one agent repairs a real program in a bottle, asks for what it lacks, tries to get out and to take a secret along,
and everything that happened is shown. The model's key is put in outside: with the scripted model, one that it demands, made
up for the occasion. What the agent asks for a person decides at the inbox, or, when nobody is there, the demo, which says so.

It goes the way that a person goes: `bot-bottle start … --headless`, `events`, `diff`, `apply`, each as a
program of its own, in a home that only the demo knows. Whether the bug is repaired, a second bottle finds
out by running the tests; what the agent says of itself decides nothing.
"""

import json
import os
import secrets
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from bot_bottle.errors import HostError
from bot_bottle.host import paths, process
from bot_bottle.operate.demo_record import (
    Asked,
    Phase,
    Refusal,
    Started,
    became,
    phases,
    placeholder,
    pushed,
    refusals,
)
from bot_bottle.operate.demo_setup import (
    API_HOST,
    CALENDAR_HOST,
    CALENDAR_PAGE,
    MODEL_HOST,
    Stage,
    has_gitleaks,
    lay_out,
    package_file,
)
from bot_bottle.operate.transcript import Transcript, clean, read_transcript

_PROGRAM = (sys.executable, "-m", "bot_bottle")
_AGENT_TIMEOUT = 1800.0
_TIMEOUT = 120.0
_LOOK_EACH = 0.2
_FETCHED = "timesheet/holidays.json"

Report = Callable[[str], None]


class Person(Protocol):
    """Who watches the demo."""

    def report(self, text: str, /) -> None:
        """Says what is going on."""

    def decides(self, asked: Asked, /) -> bool:
        """Whether somebody is there who wants to decide that in the inbox; takes as long as a countdown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What happened. `model` is `scripted` or the API's host; `placeholder` is what the agent found in the place of the
    model's key, `key_seen` whether it ever showed the key itself; `pushed` are the refs that the upstream has of the
    agent, `gitleaks` whether that looked at them, too; `kept` is where everything still is, if asked for."""

    run: str
    model: str
    exit_code: int
    transcript: Transcript
    placeholder: str
    key_seen: bool
    asked: tuple[Asked, ...]
    refusals: tuple[Refusal, ...]
    phases: tuple[Phase, ...]
    diff: str
    fixed: bool
    tests: str
    pushed: tuple[str, ...] = ()
    gitleaks: bool = True
    kept: str = ""

    @property
    def secret_stopped(self) -> bool:
        """Whether a secret on its way out was refused."""
        return any(one.reason.startswith("secret_found") for one in self.refusals)

    @property
    def push_stopped(self) -> bool:
        """Whether a push was refused for what was in it."""
        return any(one.via == "git gate" for one in self.refusals)

    @property
    def answered(self) -> bool:
        """Whether the agent got what it was given, and nothing that it was not."""
        given = any(one.state == "applied" for one in self.asked)
        return given == (f"b/{_FETCHED}" in self.diff)

    @property
    def held(self) -> bool:
        """Whether the demo showed what it is for: the bug repaired, something refused, an ask answered, the key not inside.

        The scripted model always asks, always pushes its work, and always tries to send and to push the secret; a real one may
        not want to.
        """
        scripted = self.model == "scripted"
        shown = self.secret_stopped and bool(self.asked) and bool(self.pushed) and self.push_stopped
        done = shown or not scripted
        return self.fixed and bool(self.refusals) and done and self.answered and not self.key_seen


class Product(Protocol):
    """bot-bottle as the demo uses it."""

    def start(self, agent: str, prompt: str) -> Started: ...
    def events(self, run: str) -> Sequence[Mapping[str, Any]]: ...
    def diff(self, run: str) -> str: ...
    def apply(self, run: str) -> None: ...
    def watch(self) -> AbstractContextManager[IO[bytes]]: ...
    def inbox(self) -> None: ...
    def approve(self, asked: Asked, digest: str) -> None: ...
    def reject(self, asked: Asked, reason: str) -> None: ...


class CommandLine:
    """The real one: the `bot-bottle` command, in the demo's home."""

    def __init__(self, stage: Stage, environment: Mapping[str, str]) -> None:
        self._stage = stage
        self._environment = environment

    def start(self, agent: str, prompt: str) -> Started:
        began = time.monotonic()
        told = ("--prompt", "-") if prompt else ()
        done = self._run(
            "start", agent, "--headless", *told, "--json", stdin=prompt.encode(), timeout=_AGENT_TIMEOUT
        )
        seconds = time.monotonic() - began
        try:
            outcome = json.loads(done.stdout)
            run, code, took = outcome["id"], outcome["exit_code"], outcome["phases"]
        except (ValueError, KeyError, TypeError) as error:
            raise HostError(f"Agent {agent} could not be started", details=clean(done.said)) from error
        return Started(str(run), int(code), self._run("logs", str(run)).stdout, took, seconds)

    def events(self, run: str) -> Sequence[Mapping[str, Any]]:
        done = self._run("events", run, "--json").or_raise("The demo's record could not be read")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def diff(self, run: str) -> str:
        return (
            self._run("diff", run)
            .or_raise("The demo's diff could not be read")
            .stdout.decode(errors="replace")
        )

    def apply(self, run: str) -> None:
        self._run("apply", run).or_raise("The demo's changes could not be applied")

    def watch(self) -> AbstractContextManager[IO[bytes]]:
        """A line of JSON for each proposal as it comes; agents are told meanwhile that somebody is there."""
        return process.background((*_PROGRAM, "approvals", "watch", "--json"), env=self._environment)

    def inbox(self) -> None:
        """On this terminal, until everything is decided or the person leaves."""
        import subprocess

        subprocess.run([*_PROGRAM, "inbox", "--once"], env=dict(self._environment), check=False)

    def approve(self, asked: Asked, digest: str) -> None:
        self._run("approvals", "approve", f"{asked.id}@{digest}").or_raise("The demo could not approve")

    def reject(self, asked: Asked, reason: str) -> None:
        self._run("approvals", "reject", asked.id, "--reason", reason).or_raise("The demo could not refuse")

    def _run(self, *arguments: str, stdin: bytes = b"", timeout: float = _TIMEOUT) -> process.Finished:
        argv, where = (*_PROGRAM, *arguments), self._stage.repository
        return process.run(argv, env=self._environment, cwd=where, stdin=stdin, timeout=timeout)


def demo(
    *,
    keep: bool,
    person: Person,
    api_key: str = "",
    product: Callable[[Stage, Mapping[str, str]], Product] = CommandLine,
) -> Demo:
    """Runs the demo; with `api_key` against the real API, else against the scripted model.

    Raises what installing the provider raises, and HostError when the product could not be started.
    """
    report = person.report
    report("Looking for Claude Code")
    _installed(report)
    with _folder(keep) as root:
        key = api_key or f"sk-ant-api03-{secrets.token_urlsafe(48)}"
        authority = root / "authority.pem"
        with served(root, key, authority, script=package_file("script.json")) as pages:
            report("Making the demo's repository")
            stage = lay_out(root, pages=pages, authority=authority, real=bool(api_key))
            environment = stage.environment(api_key=key)
            shown = _show(product(stage, environment), person, API_HOST if api_key else "scripted", key)
    return replace(shown, kept=str(root)) if keep else shown


def _show(product: Product, person: Person, model: str, key: str) -> Demo:
    person.report("The agent works in its bottle")
    started, asked = _work(product, person, package_file("prompt.md").read_text())
    transcript = read_transcript(started.output)
    if not transcript.actions:
        raise HostError(
            "The demo's agent did nothing",
            details=clean(f"exit code {started.code}\n{_decoded(started.output)}"),
        )
    events = product.events(started.run)
    diff = product.diff(started.run)
    person.report("A second bottle runs the tests")
    fixed, tests = False, "the agent changed nothing"
    if diff.strip():
        product.apply(started.run)
        checked = product.start("checker", "")
        fixed, tests = checked.code == 0, clean(_decoded(checked.output))
    return Demo(
        run=started.run,
        model=model,
        exit_code=started.code,
        transcript=transcript,
        placeholder=placeholder(transcript),
        key_seen=key.encode() in started.output,
        asked=tuple(became(one, events) for one in asked),
        refusals=refusals(events),
        phases=phases(started, events),
        diff=diff,
        fixed=fixed,
        tests=tests,
        pushed=pushed(events),
        gitleaks=has_gitleaks(),
    )


def _work(product: Product, person: Person, task: str) -> tuple[Started, list[Asked]]:
    """The agent's work, and meanwhile an answer to whatever it asks."""
    asked: list[Asked] = []
    with product.watch() as heard, ThreadPoolExecutor(1) as pool:
        running = pool.submit(product.start, "fixer", task)
        for document in _until(running, heard):
            one = Asked(
                id=str(document["id"]),
                title=clean(document["title"], 200),
                added=tuple(clean(line, 300) for line in document["added"]),
                words=clean(document["words"], 500),
            )
            asked.append(one._replace(by=_decide(product, person, one, str(document["digest"]))))
            person.report("The agent goes on")
        return running.result(), asked


def _until(running: "Future[Started]", heard: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    """What is asked for, until the agent's work is over."""
    begun = b""
    while not running.done():
        if select.select([heard], [], [], _LOOK_EACH)[0]:
            data = os.read(heard.fileno(), 65536)
            if not data:
                raise HostError("The demo can't hear what the agent asks for")
            *lines, begun = (begun + data).split(b"\n")
            yield from map(json.loads, lines)


def _decide(product: Product, person: Person, asked: Asked, digest: str) -> str:
    """Who decided it. That nobody does in an inbox that was opened is no yes."""
    if not person.decides(asked):
        product.approve(asked, digest)
        return "the demo"
    product.inbox()
    try:
        product.reject(asked, "The inbox was closed without an answer.")
    except HostError:  # it is decided
        return "you"
    return "nobody"


def _decoded(output: bytes) -> str:
    return output.decode(errors="replace")


def _installed(report: Report) -> None:
    from bot_bottle.providers.install import install
    from bot_bottle.providers.place import locate

    if not locate(paths.data_root(), "claude"):
        install(paths.data_root(), "claude", report=report)


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="bot-bottle-demo-"))
    try:
        yield root
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)


@contextmanager
def served(root: Path, key: str, authority: Path, *, script: Path) -> Iterator[str]:
    """Where the model that plays `script` and the calendar answer while the block lasts.

    Over TLS, with certificates that `authority` signs. The model answers only who brings `key`.
    """
    played = ("--script", str(script), "--log", str(root / "model.jsonl"))
    names = (
        "--tls",
        MODEL_HOST,
        "--tls",
        CALENDAR_HOST,
        "--authority",
        str(authority),
        "--key-in",
        "DEMO_KEY",
    )
    page = ("--page", f"{CALENDAR_PAGE}={package_file('holidays.json')}")
    argv = (sys.executable, "-m", "bot_bottle.testing.model", *played, *names, *page, "--until-eof")
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    with process.background(argv, env={**process.base_environment(), **kept, "DEMO_KEY": key}) as output:
        said = output.readline().decode().strip()
        if not said.startswith("listening on http://"):
            raise HostError("The demo's servers did not start", details=said)
        yield said.removeprefix("listening on http://")
