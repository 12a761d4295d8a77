"""What is remembered of a run. The store (`state/store.py`) is the only SQL; these are what goes in and comes out."""

from typing import Literal, NamedTuple

RunState = Literal["starting", "running", "stopping", "ended"]


class RunRecord(NamedTuple):
    """One start of an agent. Times are seconds since the epoch; `ended_at` and `exit_code` stay None until it ended."""

    id: str
    agent: str
    bottle: str
    backend: str
    state: RunState
    workspace: str
    workspace_mode: str
    run_path: str
    state_path: str
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    outcome: str = ""
    """Why it ended: `exited`, `stopped`, `failed: …`, `reaped`."""
    traces: str = "{}"
    """JSON of the backend's own: what `reap` needs to find everything that was made (cgroup paths, names)."""
