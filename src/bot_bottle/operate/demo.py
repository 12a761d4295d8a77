"""The demo: one agent repairs a real program in a bottle, tries to get out and to take a secret along, and everything that
happened is shown. The model's key is put in outside: with the scripted model, one that it demands, made up for the occasion.

It goes the way that a person goes: `bot-bottle start … --headless`, `events`, `diff`, `apply`, each as a
program of its own, in a home that only the demo knows. Whether the bug is repaired, a second bottle finds
out by running the tests; what the agent says of itself decides nothing.
"""

import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bot_bottle.errors import HostError
from bot_bottle.host import paths, process
from bot_bottle.operate.demo_setup import API_HOST, MODEL_HOST, Stage, lay_out, package_file
from bot_bottle.operate.transcript import Transcript, clean, read_transcript

_PROGRAM = (sys.executable, "-m", "bot_bottle")
_AGENT_TIMEOUT = 1800.0
_TIMEOUT = 120.0

Report = Callable[[str], None]


class Refusal(NamedTuple):
    """One thing that the bottle's door refused: how it was tried, where it wanted to go, why not."""

    via: str
    target: str
    reason: str


class Phase(NamedTuple):
    """A part of the run, and how long it took."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What happened. `model` is `scripted` or the API's host; `placeholder` is what the agent found in the place of the
    model's key, `key_seen` whether it ever showed the key itself; `kept` is where everything still is, if asked for."""

    run: str
    model: str
    exit_code: int
    transcript: Transcript
    placeholder: str
    key_seen: bool
    refusals: tuple[Refusal, ...]
    phases: tuple[Phase, ...]
    diff: str
    fixed: bool
    tests: str
    kept: str = ""

    @property
    def secret_stopped(self) -> bool:
        """Whether a secret on its way out was refused."""
        return any(one.reason.startswith("secret_found") for one in self.refusals)

    @property
    def held(self) -> bool:
        """Whether the demo showed what it is for: the bug repaired, something refused, the key not inside.

        The scripted model always tries to send the secret; a real one may not want to.
        """
        stopped = self.secret_stopped or self.model != "scripted"
        return self.fixed and bool(self.refusals) and stopped and not self.key_seen


class Started(NamedTuple):
    """A run that has ended: its id, its exit code, what the agent printed, how long what took in seconds."""

    run: str
    code: int
    output: bytes
    phases: Mapping[str, float]
    seconds: float


class Product(Protocol):
    """bot-bottle as the demo uses it."""

    def start(self, agent: str, prompt: str) -> Started: ...
    def events(self, run: str) -> Sequence[Mapping[str, Any]]: ...
    def diff(self, run: str) -> str: ...
    def apply(self, run: str) -> None: ...


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

    def _run(self, *arguments: str, stdin: bytes = b"", timeout: float = _TIMEOUT) -> process.Finished:
        argv, where = (*_PROGRAM, *arguments), self._stage.repository
        return process.run(argv, env=self._environment, cwd=where, stdin=stdin, timeout=timeout)


def demo(
    *,
    keep: bool,
    report: Report,
    api_key: str = "",
    product: Callable[[Stage, Mapping[str, str]], Product] = CommandLine,
) -> Demo:
    """Runs the demo; with `api_key` against the real API, else against the scripted model.

    Raises what installing the provider raises, and HostError when the product could not be started.
    """
    report("Looking for Claude Code")
    _installed(report)
    with _folder(keep) as root:
        key = api_key or f"sk-ant-api03-{secrets.token_urlsafe(48)}"
        authority = None if api_key else root / "authority.pem"
        with _model(root, key, authority) as upstream:
            report("Making the demo's repository")
            stage = lay_out(root, upstream=upstream, authority=authority)
            environment = stage.environment(data_home=str(Path(paths.data_root()).parent), api_key=key)
            shown = _show(product(stage, environment), report, API_HOST if api_key else "scripted", key)
    return replace(shown, kept=str(root)) if keep else shown


def _show(product: Product, report: Report, model: str, key: str) -> Demo:
    report("The agent works in its bottle")
    task = package_file("prompt.md").read_text()
    started = product.start("fixer", task if model == "scripted" else task.replace(MODEL_HOST, model))
    transcript = read_transcript(started.output)
    if not transcript.actions:
        raise HostError(
            "The demo's agent did nothing",
            details=clean(f"exit code {started.code}\n{_decoded(started.output)}"),
        )
    events = product.events(started.run)
    diff = product.diff(started.run)
    report("A second bottle runs the tests")
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
        placeholder=_placeholder(transcript),
        key_seen=key.encode() in started.output,
        refusals=refusals(events),
        phases=phases(started, events),
        diff=diff,
        fixed=fixed,
        tests=tests,
    )


def refusals(events: Sequence[Mapping[str, Any]]) -> tuple[Refusal, ...]:
    """What was refused, each once, in order."""
    found: dict[Refusal, None] = {}
    for event in events:
        data = event.get("data", {})
        if str(event.get("kind", "")) in ("egress.refused", "dns.refused"):
            place = ":".join(str(data[part]) for part in ("host", "port") if data.get(part))
            via = str(data.get("via") or str(event["kind"]).partition(".")[0])
            what = ", ".join(str(data[part]) for part in ("detector", "place", "encoding") if data.get(part))
            reason = f"{data.get('reason')}: {what}" if what else data.get("reason")
            found[Refusal(clean(via, 40), clean(place, 100), clean(reason, 200))] = None
    return tuple(found)


def _placeholder(transcript: Transcript) -> str:
    """What the agent was shown when it looked for the model's key."""
    shown = (one.result for one in transcript.actions if "ANTHROPIC_API_KEY" in one.what)
    found = (re.search(r"sk-ant-[\w-]*placeholder[\w-]*", text) for text in shown)
    return next((match[0] for match in found if match), "")


def phases(started: Started, events: Sequence[Mapping[str, Any]]) -> tuple[Phase, ...]:
    """Where the time went: the keeper's phases, and before its last the agent's work, by the run's events."""
    at = {str(event.get("kind")): float(event.get("at", 0.0)) for event in events}
    spans = [Phase(name, seconds) for name, seconds in started.phases.items()]
    if "run.started" in at and "run.ended" in at:
        agent = at["run.ended"] - at["run.started"] - started.phases.get("end", 0.0)
        place = next((place for place, one in enumerate(spans) if one.name == "end"), len(spans))
        spans.insert(place, Phase("agent", max(agent, 0.0)))
    return (*spans, Phase("in all", started.seconds))


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
def _model(root: Path, key: str, authority: Path | None) -> Iterator[str]:
    """The route's upstream: empty for the API itself, else a scripted model that runs while the block lasts.

    That one speaks TLS, with a certificate that `authority` signs, and answers only who brings `key`.
    """
    if authority is None:
        yield ""
        return
    script = ("--script", str(package_file("script.json")), "--log", str(root / "model.jsonl"))
    demands = ("--tls", MODEL_HOST, "--authority", str(authority), "--key-in", "DEMO_KEY")
    argv = (sys.executable, "-m", "bot_bottle.testing.model", *script, *demands, "--until-eof")
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    with process.background(argv, env={**process.base_environment(), **kept, "DEMO_KEY": key}) as output:
        said = output.readline().decode().strip()
        if not said.startswith("listening on http://"):
            raise HostError("The scripted model did not start", details=said)
        yield said.removeprefix("listening on http://")
