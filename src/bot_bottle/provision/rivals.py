"""A repository's own MCP server by the name of supervise: some agents' tools would ask that one in the place of ours.

Claude Code is told to take ours alone. Of the others a repository's file comes before the user's, so the person is told before the
agent runs. What the repository says is hostile: it is only looked at, never followed out of it, and never quoted.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from typing import Any

from bot_bottle.plan.model import SUPERVISE_NAME

PLACES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "codex": ((".codex/config.toml", "mcp_servers"),),
    "gemini": ((".gemini/settings.json", "mcpServers"),),
    "opencode": tuple(
        (f"{folder}opencode.{ending}", "mcp") for folder in ("", ".opencode/") for ending in ("json", "jsonc")
    ),
}
"""The files of a repository that a tool reads, and where in them its servers stand."""
LARGEST = 1 << 20
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def rivals(folder: str, provider: str) -> tuple[str, ...]:
    """A sentence for each file in the repository at `folder` that has such a server, or can't be read as one that has none."""
    return tuple(
        f"{name} in the repository has an MCP server called {SUPERVISE_NAME}, or may have: the agent could take its answers for "
        "yours. Look at it; what is approved is still decided by you alone."
        for name, key in PLACES.get(provider, ())
        if _has(folder, name, key)
    )


def _has(folder: str, name: str, key: str) -> bool:
    try:
        content = _read(folder, name)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    text = content.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        found: Any = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except (ValueError, RecursionError):  # it has comments, or is read more leniently by others
        return SUPERVISE_NAME in _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).lower()
    servers = found.get(key) if isinstance(found, dict) else None
    return isinstance(servers, dict) and any(str(each).lower() == SUPERVISE_NAME for each in servers)


def _read(folder: str, name: str) -> bytes:
    """Raises OSError, and ValueError for what is no file of the repository's, or a very long one."""
    top, real = os.path.realpath(folder), os.path.realpath(os.path.join(folder, name))
    if os.path.commonpath((top, real)) != top:
        raise ValueError("it leads out of the repository")
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("it is too long")
    return content
