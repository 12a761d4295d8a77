"""JSON Schema of the front matter, made from the models, for editors. Never stricter than the loader."""

from typing import Any, Literal

from bot_bottle.manifest.model import Agent, Bottle
from bot_bottle.manifest.strict import Strict

Kind = Literal["bottle", "agent"]
_MODELS: dict[Kind, type[Strict]] = {"bottle": Bottle, "agent": Agent}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of a bottle's or an agent's front matter."""
    made = _MODELS[kind].model_json_schema(by_alias=True)
    return {"$schema": _DIALECT, **_plain(made)}


def _plain(node: Any) -> Any:
    """`node` without the `null` that stands for an absent key in the models: a file can't say `key: null`."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        key: _plain(value) for key, value in node.items() if not (key == "default" and value in (None, []))
    }
    choices = plain.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        if len(rest) == 1:
            del plain["anyOf"]
            return {**rest[0], **plain}
        plain["anyOf"] = rest
    return plain
