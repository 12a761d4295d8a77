"""What the scripted model says: a script of turns, and which of them answers a conversation. Pure.

A script is JSON: `{"turns": [TURN, …]}`, and for several prompts, beside or instead of it,
`{"scripts": [{"match": REGEX, "turns": […]}, …]}`, of which the first whose REGEX is found in the latest
human prompt is played. A turn:

    text           what the model says; {{last_result}} stands for the text of the last tool result
    tool, input    one tool call; `tools: [{tool, input}, …]` several at once. Without a call it ends the
                   agent's work
    repeat_until   REGEX: said again until its tool result matches, `max_repeat` (10) times at most
    branch         [{when: REGEX, goto: LABEL}, …]: where to go on by the tool result, not at the next turn
    label          a name for goto, and for the log
    delay          seconds before the answer
    http_status    answer this error instead

The place in the script is worked out from each request's own messages, so nothing is kept between requests:
an agent that retries, several agents at once and a server that was started anew all get the same answers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bot_bottle.errors import UsageError

Json = Mapping[str, Any]

_LAST = "{{last_result}}"
_TURN_KEYS = {
    *("text", "tool", "input", "tools", "label", "delay", "http_status"),
    *("repeat_until", "max_repeat", "branch"),
}
_MOST_DELAY = 3600.0


class Call(NamedTuple):
    """One tool call of the model's."""

    tool: str
    input: Json


class Branch(NamedTuple):
    """Go on at turn `goto` when the tool result matches."""

    when: re.Pattern[str]
    goto: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer of the model's; `repeat_until` None says it once."""

    label: str
    text: str | None = None
    calls: tuple[Call, ...] = ()
    repeat_until: re.Pattern[str] | None = None
    max_repeat: int = 10
    branches: tuple[Branch, ...] = ()
    delay: float = 0.0
    http_status: int | None = None


class Script(NamedTuple):
    """Turns for the prompts that match; None matches every one."""

    match: re.Pattern[str] | None
    turns: tuple[Turn, ...]


class Reply(NamedTuple):
    """The turn that answers a conversation, with the text of the last tool result in it."""

    turn: Turn
    last_result: str


def parse(document: Any) -> tuple[Script, ...]:
    """The scripts of `document` in the order in which they are tried. Raises UsageError that says where it
    is wrong."""
    try:
        scripts = [
            Script(re.compile(one["match"], re.S), _turns(one["turns"], f"scripts[{number}]"))
            for number, one in enumerate(document.get("scripts", ()))
        ]
        if "turns" in document:
            scripts.append(Script(None, _turns(document["turns"], "turns")))
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise UsageError("The model's script is wrong", details=f"{type(error).__name__}: {error}") from error
    if not scripts:
        raise UsageError("The model's script has neither `turns` nor `scripts`")
    return tuple(scripts)


def _turns(raw: Sequence[Json], where: str) -> tuple[Turn, ...]:
    labels = {one["label"]: place for place, one in enumerate(raw) if "label" in one}
    return tuple(_turn(one, labels, f"{where}[{place}]", str(place)) for place, one in enumerate(raw))


def _turn(raw: Json, labels: Mapping[str, int], where: str, name: str) -> Turn:
    unknown = sorted(set(raw) - _TURN_KEYS)
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}")
    branches = raw.get("branch", ())
    for one in branches:
        if one["goto"] not in labels:
            raise ValueError(f"{where}: no turn is labelled {one['goto']!r}")
    calls = raw.get("tools", [raw] if "tool" in raw else [])
    until = raw.get("repeat_until")
    return Turn(
        label=str(raw.get("label", name)),
        text=None if raw.get("text") is None else str(raw["text"]),
        calls=tuple(Call(str(one["tool"]), dict(one.get("input", {}))) for one in calls),
        repeat_until=None if until is None else re.compile(until, re.S),
        max_repeat=int(raw.get("max_repeat", 10)),
        branches=tuple(Branch(re.compile(one["when"], re.S), labels[one["goto"]]) for one in branches),
        delay=min(max(float(raw.get("delay", 0)), 0.0), _MOST_DELAY),
        http_status=None if raw.get("http_status") is None else int(raw["http_status"]),
    )


def reply(scripts: Sequence[Script], messages: Sequence[Json], offered: Sequence[str]) -> Reply:
    """What the model says to `messages`, with its calls spelled like the tools that are `offered`."""
    prompt, results = _exchanges(messages)
    turns = next((one.turns for one in scripts if one.match is None or one.match.search(prompt)), ())
    place = _place(turns, results)
    turn = turns[place] if place < len(turns) else Turn(label="end", text="The script has ended.")
    last = results[-1] if results else ""
    text = None if turn.text is None else turn.text.replace(_LAST, last)
    calls = tuple(Call(_spelling(call.tool, offered), _filled(call.input, last)) for call in turn.calls)
    if text is None and not calls:
        text = "ok"
    filled = Turn(label=turn.label, text=text, calls=calls, delay=turn.delay, http_status=turn.http_status)
    return Reply(filled, last)


def _place(turns: Sequence[Turn], results: Sequence[str]) -> int:
    """Plays the script over the results so far; the place of the turn that comes now."""
    place = said = 0
    for result in results:
        if place >= len(turns):
            break
        turn, said = turns[place], said + 1
        again = turn.repeat_until is not None and not turn.repeat_until.search(result)
        if again and said < turn.max_repeat:
            continue
        place = next((one.goto for one in turn.branches if one.when.search(result)), place + 1)
        said = 0
    return place


def _exchanges(messages: Sequence[Json]) -> tuple[str, list[str]]:
    """The latest human prompt, and for each answer of the model's since then the text that came back."""
    prompts = [place for place in range(len(messages)) if _is_prompt(messages, place)]
    start = prompts[-1] if prompts else 0
    results: list[str] = []
    for message in messages[start + 1 :]:
        if message.get("role") == "assistant":
            results.append("")
        elif message.get("role") == "user" and results:
            blocks = _tool_results(message)
            texts = [_text(block.get("content")) for block in blocks] or [_text(message.get("content"))]
            results[-1] = "\n".join([results[-1], *texts]).strip("\n")
    return (_text(messages[start].get("content")) if messages else ""), results


def _is_prompt(messages: Sequence[Json], place: int) -> bool:
    """Whether a person said this: a user message without a tool result, at the start or after the model.

    What the agent itself reports of a call that it moved to the background looks the same but for its marker.
    """
    message = messages[place]
    opens = place == 0 or messages[place - 1].get("role") == "assistant"
    said = message.get("role") == "user" and not _tool_results(message)
    return opens and said and "<task-notification>" not in _text(message.get("content"))


def _tool_results(message: Json) -> list[Json]:
    content = message.get("content")
    return [one for one in content if one.get("type") == "tool_result"] if isinstance(content, list) else []


def _text(content: Any) -> str:
    """The text in a message's or a tool result's content."""
    if isinstance(content, str):
        return content
    parts = []
    for block in content or ():
        if block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") == "tool_result":
            parts.append(_text(block.get("content")))
    return "\n".join(parts)


def _filled(value: Any, last: str) -> Any:
    if isinstance(value, str):
        return value.replace(_LAST, last)
    if isinstance(value, list):
        return [_filled(one, last) for one in value]
    if isinstance(value, Mapping):
        return {key: _filled(one, last) for key, one in value.items()}
    return value


def _spelling(tool: str, offered: Sequence[str]) -> str:
    """`tool` as this agent spells it (`Bash` or `bash`, `mcp__supervise__policy` or `supervise_policy`).

    What isn't offered is sent as it stands: an agent may defer tools, and still run them by name.
    """
    if tool in offered:
        return tool
    flat = tool.removeprefix("mcp__").replace("__", "_") if tool.startswith("mcp__") else tool
    alike = [name for name in offered if _plain(name) in (_plain(tool), _plain(flat))] if flat != tool else []
    for name in (*alike, *offered):
        if name in alike or name.lower() == tool.lower() or (flat != tool and name.endswith("__" + flat)):
            return name
    return tool


def _plain(name: str) -> str:
    """A tool's name without what agents spell in their own ways."""
    return name.replace("-", "_").replace("__", "_")
