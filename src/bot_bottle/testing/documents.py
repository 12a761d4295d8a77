"""Checked documents and plans as tests need them: everything filled in, each part to be replaced by
keyword."""

from pathlib import Path
from typing import Any, cast

from bot_bottle.manifest.document import AgentDocument
from bot_bottle.plan.model import Command, Paths, RunPlan, Workspace


def agent_document(**parts: Any) -> AgentDocument:
    """An agent `fixer` of provider `claude` in bottle `work`, without skills, text or environment."""
    whole = {
        "name": "fixer",
        "file": "/home/someone/.bot-bottle/agents/fixer.md",
        "from_repository": False,
        "provider": "claude",
        "bottle": "work",
        "bottle_file": "",
        "command": [],
        "model": None,
        "base_url": None,
        "skills": [],
        "env": {},
        "prompt": "",
    }
    unknown = set(parts) - set(whole)
    if unknown:
        raise TypeError(f"an agent has no {sorted(unknown)}")
    return cast("AgentDocument", {**whole, **parts})


def run_plan(root: Path, **parts: Any) -> RunPlan:
    """A plan whose paths are all below `root`; the agent is `true`."""
    whole: dict[str, Any] = {
        "id": "fixer-2345",
        "agent": "fixer",
        "bottle": "work",
        "bottle_file": "",
        "backend": "namespace",
        "provider": "command",
        "command": Command(argv=("true",), env=(("PATH", "/usr/bin:/bin"),)),
        "tty": False,
        "workspace": Workspace(source=str(root / "workspace"), mode="mount"),
        "paths": Paths(run=str(root / "run"), state=str(root / "state")),
        "uid": 65000,
        "gid": 65000,
        "bundle_uid": 65001,
        "bundle_gid": 65001,
    }
    return RunPlan(**{**whole, **parts})
