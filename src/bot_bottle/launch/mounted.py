"""A mounted workspace over a run's life: what in it makes the person's own git run something is compared at the end."""

import json
import os

from bot_bottle.host import files
from bot_bottle.plan.model import RunPlan
from bot_bottle.provision import gitfiles
from bot_bottle.state.model import RunRecord

REMEMBERED = "gitfiles.json"
EVENT = "workspace.flagged"


def remember(plan: RunPlan) -> None:
    """Keeps how it is before the agent runs. Raises OSError."""
    found = gitfiles.look(plan.workspace.source)
    files.write(os.path.join(plan.paths.state, REMEMBERED), json.dumps(found).encode())


def flagged(record: RunRecord) -> list[str]:
    """What of it is different now, by path; nothing when nothing was remembered."""
    try:
        before = json.loads(files.read(os.path.join(record.state_path, REMEMBERED)))
    except (OSError, ValueError):
        return []
    return gitfiles.changed(before, gitfiles.look(record.workspace))


def warning(paths: list[str]) -> str:
    """What the person has to know before they next use git there."""
    shown = ", ".join(ascii(path)[1:-1] for path in paths[:5]) + (
        f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    )
    return f"The agent changed what your own git acts on: {shown}. Look at it before you run git there."
