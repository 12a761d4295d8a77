"""What the keeper says of a call, as the result that a model reads: the status first, then the keeper's own words.

Nothing here turns a no into a yes: a status that this does not know is a failure, and only `applied` is said to be in force.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

FINAL = frozenset(("applied", "failed", "rejected", "expired", "withdrawn"))
OPEN = frozenset(("pending", "approved"))
_MOST_TEXT = 8000
_MOST_LINES = 200


class Result(NamedTuple):
    """One result: `structured` says the same as `text`; `is_error` when the call itself failed."""

    text: str
    structured: dict[str, Any]
    is_error: bool = False


def has_ended(message: Mapping[str, Any]) -> bool:
    """Whether the keeper says nothing more of it. A `problem` comes without a state."""
    return _text(message.get("state")) not in OPEN


def is_answer(message: Mapping[str, Any]) -> bool:
    """Whether there is nothing more to wait for: it has ended, or is approved and of a kind that is only recorded."""
    return has_ended(message) or message.get("final") is True


def nobody_decides(message: Mapping[str, Any]) -> bool:
    """Whether it waits for a person and none is there."""
    return message.get("state") == "pending" and message.get("present") is not True


def outcome(message: Mapping[str, Any]) -> Result:
    """The result of a call whose keeper said `message` last."""
    if "problem" in message:
        return problem(_text(message["problem"]))
    state, proposal = _text(message.get("state")), _text(message.get("proposal"), 64)
    if state not in FINAL | OPEN:
        return problem("The answer can't be understood: take it as a no")
    waits = not is_answer(message)
    status = "pending" if waits else state
    said = _text(message.get("message"))
    structured: dict[str, Any] = {"status": status, "message": said, "proposal_id": proposal}
    text = [f"Status: {status}", said, f"Proposal: {proposal}"]
    if waits:
        structured["next"] = "supervise-await"
        text.append(f'Next: call supervise-await with {{"proposal": "{proposal}"}} later.')
    lines = _lines(message.get("added")) if status == "applied" else []
    if lines:
        structured["allowed"] = lines
        text.append("Allowed now:\n" + "\n".join(lines))
    if until := _moment(message.get("until")) if status == "applied" else "":
        structured["until"] = until
        text.append(f"Until: {until}")
    return Result("\n".join(part for part in text if part), structured)


def survey(message: Mapping[str, Any]) -> Result:
    """The result of `policy`."""
    if "problem" in message:
        return problem(_text(message["problem"]))
    found = {name: _items(message.get(name)) for name in ("allowed", "refused", "grants", "open")}
    text = []
    for name, heading in (
        ("allowed", "Allowed now"),
        ("refused", "Refused lately"),
        ("grants", "Granted on request"),
        ("open", "Asked for and not decided"),
    ):
        lines = [_in_words(item) for item in found[name]]
        text.append(f"{heading}:\n" + ("\n".join(f"  {line}" for line in lines) or "  nothing"))
    return Result("\n".join(text), {"status": "ok", **found})


def problem(said: str) -> Result:
    """The result of a call that did not get so far."""
    return Result(f"Status: error\n{said}", {"status": "error", "message": said}, is_error=True)


def _in_words(item: object) -> str:
    if isinstance(item, Mapping):
        return ", ".join(f"{key} {value}" for key, value in item.items())[:500]
    return str(item)[:500]


def _items(value: object) -> list[Any]:
    return value[:_MOST_LINES] if isinstance(value, list) else []


def _lines(value: object) -> list[str]:
    return [str(item)[:500] for item in _items(value)]


def _text(value: object, most: int = _MOST_TEXT) -> str:
    return value[:most] if isinstance(value, str) else ""


def _moment(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e11:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
