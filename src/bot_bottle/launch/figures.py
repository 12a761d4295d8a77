"""What a bundle says of its traffic, as numbers that were checked. The bundle faces the agent, so it is not believed further."""

import re
from typing import Any, NamedTuple

from bot_bottle.launch.wishes import Kept

_WORD = re.compile(r"[a-z][a-z0-9_.]{0,39}")
_MOST_KINDS, _MOST_FLOWS = 128, 200
_LARGEST = 1 << 62


class Count(NamedTuple):
    """How often events of a kind (`egress.refused`) came with a reason (`host_not_allowed`)."""

    kind: str
    reason: str
    times: int


class Flow(NamedTuple):
    """Open connections to one place, and the bytes on them so far."""

    host: str
    port: int
    protocol: str
    connections: int
    up: int
    down: int


class Figures(NamedTuple):
    """Since the bundle began, `seconds` ago; `open` are the agent's connections now, whatever they came for."""

    policy: str
    seconds: float
    open: int
    up: int
    down: int
    decisions: tuple[Count, ...]
    flows: tuple[Flow, ...]


def read(said: object) -> Figures | None:
    """The figures in a bundle's answer; None when it is something else."""
    try:
        given: dict[str, Any] = dict(said)  # type: ignore[call-overload]
        decisions = [
            Count(_word(kind), _word(reason), _number(count)) for kind, reason, count in given["decisions"]
        ]
        flows = [
            Flow(_text(host), _number(port), _word(protocol), *map(_number, rest))
            for host, port, protocol, *rest in given["flows"]
        ]
        return Figures(
            policy=_text(given["policy"]),
            seconds=float(min(max(0.0, given["seconds"]), 1e12)),
            open=_number(given["open"]),
            up=_number(given["up"]),
            down=_number(given["down"]),
            decisions=tuple(decisions[:_MOST_KINDS]),
            flows=tuple(flows[:_MOST_FLOWS]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _word(value: object) -> str:
    """A code; anything else is `other`, so that a bundle can't make up metrics without end."""
    return value if isinstance(value, str) and (not value or _WORD.fullmatch(value)) else "other"


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 300:
        raise ValueError("no text")
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError("no number")
    return value


def document(run: Kept, figures: Figures | None) -> dict[str, Any]:
    """One run's state as JSON-able data; `figures` is None when its bundle says nothing."""
    return {
        "run": run.plan.id,
        "agent": run.plan.agent,
        "bottle": run.plan.bottle,
        "policy": run.policy.fingerprint(),
        "mode": run.policy.mode,
        "routes": len(run.policy.routes),
        "way_out": run.has_way_out,
        "restarts": run.restarts,
        "figures": None
        if figures is None
        else {
            **figures._asdict(),
            "decisions": [each._asdict() for each in figures.decisions],
            "flows": [each._asdict() for each in figures.flows],
        },
    }


def from_document(document: dict[str, Any]) -> Figures | None:
    """The figures in what `document` gave."""
    given = document["figures"]
    if given is None:
        return None
    return Figures(
        **{
            **given,
            "decisions": tuple(Count(**each) for each in given["decisions"]),
            "flows": tuple(Flow(**each) for each in given["flows"]),
        }
    )
