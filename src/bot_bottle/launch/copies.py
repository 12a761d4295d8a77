"""A workspace's copy over a run's life: made beside everything else that starts, kept and removed at the end."""

import json
import os

from bot_bottle.errors import HostError
from bot_bottle.host import spawn
from bot_bottle.plan.model import RunPlan
from bot_bottle.state.model import RunRecord

_LEFT_OUT = "left out"


class Copying:
    """Copies the workspace and remembers what the copy looks like, in a process of its own.

    The copy's folder is there at once, and empty, so that the sandbox can be made around it; the agent must not run before
    `wait`. It takes as long as making the sandbox, and on a second core costs nothing.
    """

    def __init__(self, plan: RunPlan) -> None:
        """Makes the folder. Raises HostError."""
        from bot_bottle.provision import workspace

        workspace.make_folder(plan)
        self._plan = plan
        self._pid = 0

    def begin(self) -> None:
        """Begins to copy."""
        self._pid, self._report = spawn.fork(lambda say: _copy(self._plan, say), keep=())

    def wait(self) -> tuple[str, ...]:
        """Until all of it is there and remembered; what could not be copied, a line each. Raises HostError."""
        left_out: tuple[str, ...] | None = None
        try:
            for message in spawn.hear(self._report):
                said = json.loads(message)
                if _LEFT_OUT not in said:
                    raise HostError(said["brief"], details=said["details"], resolution=said["resolution"])
                left_out = tuple(said[_LEFT_OUT])
        except spawn.ChildFailed as failed:
            raise HostError("The workspace can't be copied", details=failed.said) from failed
        finally:
            self.close()
        if left_out is None:
            raise HostError("The workspace can't be copied", details="the process that copied it was killed")
        return left_out

    def close(self) -> None:
        """Waits for its end, whatever came of it. Idempotent."""
        if self._pid:
            pid, self._pid = self._pid, 0
            os.close(self._report)
            os.waitpid(pid, 0)


def agent_begins(plan: RunPlan) -> None:
    """To be called before the agent is let go. Raises HostError."""
    from bot_bottle.provision import workspace

    workspace.agent_begins(plan)


def put_away(record: RunRecord) -> bool:
    """Saves what the agent changed and removes the copy; whether there is anything to show. Does nothing the second time.

    The copy is only removed once its changes are on the disk. Raises HostError.
    """
    from bot_bottle.provision import changes

    saved = changes.save(record)
    changes.remove_copy(record)
    return bool(saved and saved.patch)


def _copy(plan: RunPlan, say: spawn.Say) -> None:
    from bot_bottle.provision import workspace

    try:
        left_out = workspace.copy_files(plan)
        workspace.remember_start(plan)
        said: dict[str, object] = {_LEFT_OUT: left_out}
    except HostError as error:
        said = {"brief": error.brief, "details": error.details, "resolution": error.resolution}
    say(json.dumps(said).encode())
