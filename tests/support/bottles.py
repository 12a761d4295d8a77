"""Bottles and agents for tests, as a person would write them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import engine
from support.place import Place


def front_matter(keys: dict[str, Any], body: str = "") -> str:
    """A manifest file: JSON is YAML, so nothing has to be quoted by hand."""
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in keys.items()), "---", body])


def write_bottle(place: Place, name: str = "default", **keys: Any) -> Path:
    """A bottle's file in the place's home, for the place's own backend unless it says otherwise."""
    if place.backend == "docker":
        keys = {"backend": "docker", "image": engine.BASE, **keys}
    return place.write(f".bot-bottle/bottles/{name}.md", front_matter(keys))


def write_agent(place: Place, name: str, argv: Sequence[str], *, body: str = "", **keys: Any) -> Path:
    """An agent that runs `argv`; with a bottle that allows nothing when there is no other."""
    if not (place.home / ".bot-bottle/bottles/default.md").exists():
        write_bottle(place)
    text = front_matter({"provider": "command", "command": list(argv), **keys}, body)
    return place.write(f".bot-bottle/agents/{name}.md", text)


def write_script(place: Place, name: str, script: str, **keys: Any) -> Path:
    """An agent that runs a shell script."""
    return write_agent(place, name, ["sh", "-c", script], **keys)
