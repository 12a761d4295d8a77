"""What is remembered of a run. The store (`state/store.py`) is the only SQL; these are what goes in and comes out.

`typing` takes a quarter of the time that `bot-bottle list` may take in all, so it is not imported here when running.
"""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
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

else:
    RunRecord = namedtuple(
        "RunRecord",
        (
            "id", "agent", "bottle", "backend", "state", "workspace", "workspace_mode", "run_path", "state_path",
            "started_at", "ended_at", "exit_code", "outcome", "traces",
        ),
        defaults=(None, None, "", "{}"),
    )  # fmt: skip
