"""What an agent did, from what it printed: Claude Code's `stream-json`, one JSON object a line. Pure.

The text is the agent's, and so nobody's word: it is cut, and cleaned of what a terminal would obey.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_MOST_ACTIONS = 500
_MOST_TEXT = 2000


class Action(NamedTuple):
    """One tool call: the tool, what it was called with (a command, a file), whether it went well, what came
    back."""

    tool: str
    what: str
    ok: bool | None
    result: str


class Transcript(NamedTuple):
    """The agent's actions in order, and its last word; `more` is how many actions were left off."""

    actions: tuple[Action, ...]
    last_word: str
    more: int


def read_transcript(output: bytes) -> Transcript:
    """The transcript in `output`; lines that are no such JSON are left out."""
    calls: dict[str, Action] = {}
    last_word = ""
    more = 0
    for message in _messages(output):
        for block in _blocks(message):
            number = str(block.get("id") or block.get("tool_use_id"))
            if block.get("type") == "tool_use" and message.get("type") == "assistant":
                if len(calls) < _MOST_ACTIONS:
                    calls[number] = Action(clean(block.get("name"), 60), _what(block.get("input")), None, "")
                else:
                    more += 1
            elif block.get("type") == "tool_result" and number in calls:
                ok, result = not block.get("is_error"), clean(_text(block.get("content")))
                calls[number] = calls[number]._replace(ok=ok, result=result)
        if message.get("type") == "result":
            last_word = clean(message.get("result"))
    return Transcript(tuple(calls.values()), last_word, more)


def clean(text: object, most: int = _MOST_TEXT) -> str:
    """`text` without control characters but line breaks, and at most `most` characters of it."""
    shown = str(text if text is not None else "").replace("\t", "    ")
    return "".join(one for one in shown if one == "\n" or one.isprintable())[:most]


def _messages(output: bytes) -> Iterator[Mapping[str, Any]]:
    for line in output.splitlines():
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict):
            yield message


def _blocks(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inner = message.get("message")
    content = inner.get("content") if isinstance(inner, dict) else None
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            yield block


def _what(given: object) -> str:
    """The one argument that says most about a call."""
    if not isinstance(given, dict):
        return ""
    for name in ("command", "file_path", "path", "pattern", "url", "query", "skill"):
        if isinstance(given.get(name), str):
            return clean(given[name])
    return clean(json.dumps(given))


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(one.get("text", "")) for one in content if isinstance(one, dict))
    return str(content or "")
