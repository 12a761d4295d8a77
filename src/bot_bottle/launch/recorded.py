"""A plan as the record has it: its row, and what would have to be known to say what the run could do."""

import time

from bot_bottle.backends.base import Backend
from bot_bottle.plan.model import RunPlan
from bot_bottle.state.model import RunRecord


def describe(plan: RunPlan) -> dict[str, object]:
    """The plan in a line of the record: what would have to be known to say what this run could do."""
    return {
        "agent": plan.agent,
        "bottle": plan.bottle,
        "backend": plan.backend,
        "provider": plan.provider,
        "workspace": plan.workspace.source,
        "workspace_mode": plan.workspace.mode,
        "policy": plan.egress.fingerprint(),
        "mode": plan.egress.mode,
        "routes": [f"{route.protocol}://{route.host}:{route.port}" for route in plan.egress.routes],
    }


def record_of(plan: RunPlan, backend: Backend) -> RunRecord:
    """The run's row before anything of it exists."""
    import json

    return RunRecord(
        id=plan.id,
        agent=plan.agent,
        bottle=plan.bottle,
        backend=plan.backend,
        state="starting",
        workspace=plan.workspace.source,
        workspace_mode=plan.workspace.mode,
        run_path=plan.paths.run,
        state_path=plan.paths.state,
        started_at=time.time(),
        traces=json.dumps(dict(backend.traces(plan))),
    )
