"""The APIs that the scripted model speaks: what was asked and offered, as Anthropic's messages, and the answer in each one's shape.

Anthropic's shape is the one that scripts are played over (`testing/script.py`); the other two are turned into it.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bot_bottle.testing.script import Call, Turn

Json = Mapping[str, Any]
_SEPARATOR = "__"
"""Between the server's name and the tool's, where a dialect names both."""


class Dialect(NamedTuple):
    """One API: what a request says, and an answer as one document or as events."""

    messages: Callable[[Json], Sequence[Json]]
    tools: Callable[[Json], list[str]]
    document: Callable[[str, Turn], dict[str, Any]]
    events: Callable[[Json], Iterator[Json]]
    side: Callable[[Json], str] = lambda _: "ok"
    """The answer to an agent's side question, which offers no tools."""


def spoken_at(path: str) -> Dialect | None:
    """The API that is spoken at `path`; None where none is."""
    if path.startswith("/v1beta/models/") and path.rpartition(":")[2] in (
        "generateContent",
        "streamGenerateContent",
    ):
        return GOOGLE
    return {"/v1/messages": ANTHROPIC, "/v1/responses": OPENAI}.get(path)


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _joined(parts: Iterator[tuple[str, Json]]) -> Sequence[Json]:
    """Messages out of blocks with their roles: what one side says in a row is one message."""
    messages: list[dict[str, Any]] = []
    for role, block in parts:
        if not messages or messages[-1]["role"] != role:
            messages.append({"role": role, "content": []})
        messages[-1]["content"].append(block)
    return messages


def _said(text: Any) -> Json:
    return {"type": "text", "text": str(text)}


def _came_back(text: Any) -> Json:
    return {"type": "tool_result", "content": [_said(text)]}


# Anthropic: Messages


def _anthropic_tools(request: Json) -> list[str]:
    return [str(tool.get("name") or "") for tool in request.get("tools") or ()]


def _anthropic_document(model: str, turn: Turn) -> dict[str, Any]:
    blocks: list[Json] = [] if turn.text is None else [_said(turn.text)]
    blocks += [
        {"type": "tool_use", "id": _id("toolu"), "name": call.tool, "input": call.input}
        for call in turn.calls
    ]
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {
        "id": _id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": "tool_use" if turn.calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1, **cached},
    }


def _anthropic_events(message: Json) -> Iterator[Json]:
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            begin: dict[str, Any] = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            begin = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": begin}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 1}}
    yield {"type": "message_stop"}


ANTHROPIC = Dialect(
    lambda request: request.get("messages", ()), _anthropic_tools, _anthropic_document, _anthropic_events
)


# OpenAI: Responses


def _openai_messages(request: Json) -> Sequence[Json]:
    given = request.get("input", ())
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return _joined(part for item in items for part in _openai_parts(item))


def _openai_parts(item: Json) -> Iterator[tuple[str, Json]]:
    kind = item.get("type", "message")
    if kind == "message" and item["role"] in ("user", "assistant"):
        yield item["role"], _said(_openai_text(item.get("content")))
    elif kind.endswith("_call"):
        yield "assistant", {"type": "tool_use", "name": item.get("name", "")}
    elif kind.endswith("_call_output"):
        yield "user", _came_back(_openai_text(item.get("output")))


def _openai_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content or ())


def _openai_tools(request: Json) -> list[str]:
    """A namespace's tools are named with it, so that the call can name both again; some models are told of tools in the input."""
    found: list[str] = []
    items = request.get("input", ())
    told = [item for item in items if isinstance(item, dict) and item.get("type") == "additional_tools"]
    for tool in (*(request.get("tools") or ()), *(tool for item in told for tool in item["tools"])):
        if tool.get("type") == "namespace":
            found += [f"{tool['name']}{_SEPARATOR}{one['name']}" for one in tool.get("tools") or ()]
        else:
            found.append(str(tool.get("name") or tool.get("type") or ""))
    return found


def _openai_call(call: Call) -> dict[str, Any]:
    """A call whose input is nothing but an `input` is one of a tool that takes plain text."""
    space, _, name = call.tool.rpartition(_SEPARATOR)
    named = {"name": name, "namespace": space} if space else {"name": call.tool}
    if set(call.input) == {"input"}:
        return {
            "type": "custom_tool_call",
            "id": _id("ctc"),
            "call_id": _id("call"),
            **named,
            "input": call.input["input"],
        }
    arguments = json.dumps(call.input)
    return {"type": "function_call", "id": _id("fc"), "call_id": _id("call"), **named, "arguments": arguments}


def _openai_document(model: str, turn: Turn) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    if turn.text is not None:
        content = [{"type": "output_text", "text": turn.text, "annotations": []}]
        items.append({"type": "message", "id": _id("msg"), "role": "assistant", "content": content})
    items += [_openai_call(call) for call in turn.calls]
    return {
        "id": _id("resp"),
        "object": "response",
        "model": model,
        "status": "completed",
        "output": [{**item, "status": "completed"} for item in items],
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 1,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 2,
        },
    }


def _openai_events(response: Json) -> Iterator[Json]:
    yield {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
    for index, item in enumerate(response["output"]):
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**item, "status": "in_progress"},
        }
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": response}


OPENAI = Dialect(_openai_messages, _openai_tools, _openai_document, _openai_events)


# Google: generateContent


def _google_messages(request: Json) -> Sequence[Json]:
    return _joined(
        one
        for content in request.get("contents", ())
        for part in content.get("parts", ())
        if (one := _google_part(content.get("role", "user"), part))
    )


def _google_part(role: str, part: Json) -> tuple[str, Json] | None:
    if "functionCall" in part:
        return "assistant", {"type": "tool_use", "name": part["functionCall"].get("name", "")}
    if "functionResponse" in part:
        answer = part["functionResponse"].get("response", {})
        return "user", _came_back(answer.get("output", json.dumps(answer)))
    if "text" in part:
        return ("assistant" if role == "model" else "user"), _said(part["text"])
    return None


def _google_tools(request: Json) -> list[str]:
    declared = [one for tool in request.get("tools") or () for one in tool.get("functionDeclarations") or ()]
    return [str(one.get("name") or "") for one in declared]


def _google_document(model: str, turn: Turn) -> dict[str, Any]:
    parts: list[Json] = [] if turn.text is None else [{"text": turn.text}]
    parts += [{"functionCall": {"name": call.tool, "args": call.input}} for call in turn.calls]
    return {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        "modelVersion": model,
        "responseId": _id("r"),
    }


def _google_side(request: Json) -> str:
    """A side question may want JSON of a certain shape."""
    wanted = request.get("generationConfig", {}).get("responseJsonSchema")
    return json.dumps(_least(wanted)) if wanted else "ok"


def _least(schema: Json) -> Any:
    """The least that fits a schema of objects, texts, numbers and lists."""
    kind = str(schema.get("type", "")).lower()
    if kind == "object":
        known = schema.get("properties", {})
        return {name: _least(known.get(name, {})) for name in schema.get("required", ())}
    if schema.get("enum"):
        return schema["enum"][0]
    return {"string": "ok", "integer": 1, "number": 1, "boolean": True, "array": []}.get(kind)


GOOGLE = Dialect(
    _google_messages, _google_tools, _google_document, lambda document: iter((document,)), _google_side
)
