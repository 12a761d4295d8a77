"""Making a bottle ready before its agent runs: steps as data, one loop that does them.

`steps(plan)` says what there is to do, `provision` does it through the bottle's handle, the same for every
backend. All files go in at once: what a bottle costs to provision is the number of processes started in it.
"""

from collections.abc import Callable

from bot_bottle.backends.base import Bottle
from bot_bottle.errors import SandboxError
from bot_bottle.plan.model import File, RunPlan
from bot_bottle.provision.files import checked
from bot_bottle.typed import NamedTuple

Report = Callable[[str], None]
"""Hears each step's description as it begins."""


class WriteFiles(NamedTuple):
    """Writes `files` inside as the agent's user, parents included; what is there already is replaced."""

    files: tuple[File, ...]

    def describe(self) -> str:
        targets = ", ".join(file.target for file in self.files[:3])
        more = len(self.files) - 3
        return f"write {targets}" + (f" and {more} more" if more > 0 else "")


Step = WriteFiles
"""Everything that provisioning can do; a union as it grows."""


def steps(plan: RunPlan) -> tuple[Step, ...]:
    """What has to be done inside before the agent of `plan` runs; empty when there is nothing."""
    return (WriteFiles(plan.files),) if plan.files else ()


def provision(bottle: Bottle, plan: RunPlan, report: Report = lambda _: None) -> None:
    """Does every step of `plan` in order.

    Raises PlanError when a file's target lies outside the agent's home, and SandboxError when the bottle is
    gone or could not do a step; what was done so far stays, for the caller to destroy with the bottle.
    """
    for step in steps(plan):
        report(step.describe())
        _write(bottle, step)


def _write(bottle: Bottle, step: WriteFiles) -> None:
    try:
        bottle.write_files(checked(step.files))
    except SandboxError as error:
        raise SandboxError(
            f"The bottle could not be provisioned: {step.describe()}",
            details=f"{error.brief}: {error.details}",
            resolution="Inside there must be a home folder that the agent's user can write.",
        ) from error
