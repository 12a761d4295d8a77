"""What the record of the demo's run and the agent's transcript tell: what was refused, asked, pushed, and where the time went."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bot_bottle.operate.transcript import Transcript, clean


class Refusal(NamedTuple):
    """One thing that the bottle's door refused: how it was tried, where it wanted to go, why not."""

    via: str
    target: str
    reason: str


class Asked(NamedTuple):
    """One thing that the agent asked for: the change that was shown, the agent's words, who decided, what became of it.

    `seconds` are from the decision to its being seen in force; 0.0 when it never was.
    """

    id: str
    title: str
    added: tuple[str, ...]
    words: str
    by: str = "nobody"
    state: str = "pending"
    seconds: float = 0.0


class Phase(NamedTuple):
    """A part of the run, and how long it took."""

    name: str
    seconds: float


class Started(NamedTuple):
    """A run that has ended: its id, its exit code, what the agent printed, how long what took in seconds."""

    run: str
    code: int
    output: bytes
    phases: Mapping[str, float]
    seconds: float


def became(asked: Asked, events: Sequence[Mapping[str, Any]]) -> Asked:
    """What the record says of it."""
    at = {
        str(event["kind"]).removeprefix("proposal."): float(event["at"])
        for event in events
        if str(event.get("kind", "")).startswith("proposal.") and event["data"].get("proposal") == asked.id
    }
    state = next((state for state in ("applied", "failed", "rejected", "approved") if state in at), "pending")
    seconds = at["applied"] - at["approved"] if {"applied", "approved"} <= set(at) else 0.0
    return asked._replace(state=state, seconds=max(seconds, 0.0))


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
        if event.get("kind") == "git.refused":
            ref = str(data.get("ref", "")).removeprefix("refs/heads/")
            line = f":{data['line']}" if data.get("line") else ""
            place = f"{ref} {data.get('path', '')}{line}".rstrip()
            found[
                Refusal("git gate", clean(place, 100), clean(f"{data.get('rule')}: {data.get('why')}", 200))
            ] = None
    return tuple(found)


def pushed(events: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The refs that the upstream has of the agent, by the record."""
    refs = (str(event["data"].get("refs", "")) for event in events if event.get("kind") == "git.pushed")
    return tuple(clean(ref.partition(" ")[0].removeprefix("refs/heads/"), 100) for ref in refs)


def placeholder(transcript: Transcript) -> str:
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
