"""A workspace's copy over a run's life: made, remembered beside everything else that starts, kept and removed at the end."""

import json
import os

from bot_bottle.errors import HostError
from bot_bottle.host import spawn
from bot_bottle.plan.model import RunPlan
from bot_bottle.state.model import RunRecord


class Remembering:
    """Remembers what the copy looks like at the start, in a process of its own; the agent must not run before `wait`.

    It takes as long as making the sandbox, and on a second core costs nothing.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._pid, self._report = spawn.fork(lambda say: _remember(plan, say), keep=())
        self._waited = False

    def wait(self) -> None:
        """Until it is remembered. Raises HostError when it can't be."""
        try:
            for message in spawn.hear(self._report):
                said = json.loads(message)
                raise HostError(said["brief"], details=said["details"], resolution=said["resolution"])
        except spawn.ChildFailed as failed:
            raise HostError("The start of the workspace can't be remembered", details=failed.said) from failed
        finally:
            self.close()

    def close(self) -> None:
        """Waits for its end, whatever came of it. Idempotent."""
        if not self._waited:
            self._waited = True
            os.close(self._report)
            os.waitpid(self._pid, 0)


def copy(plan: RunPlan) -> tuple[str, ...]:
    """Copies the workspace; what could not be copied, a line each. Raises HostError."""
    from bot_bottle.provision import workspace

    return workspace.copy_files(plan)


def put_away(record: RunRecord) -> bool:
    """Saves what the agent changed and removes the copy; whether there is anything to show. Does nothing the second time.

    The copy is only removed once its changes are on the disk. Raises HostError.
    """
    from bot_bottle.provision import changes

    saved = changes.save(record)
    changes.remove_copy(record)
    return bool(saved and saved.patch)


def _remember(plan: RunPlan, say: spawn.Say) -> None:
    from bot_bottle.provision import workspace

    try:
        workspace.remember_start(plan)
    except HostError as error:
        said = {"brief": error.brief, "details": error.details, "resolution": error.resolution}
        say(json.dumps(said).encode())
