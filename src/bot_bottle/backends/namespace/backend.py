"""The `namespace` backend: bottles that the system's bubblewrap makes, for an unprivileged user and for root."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from bot_bottle.backends import seccomp
from bot_bottle.backends.base import Backend, Stdio
from bot_bottle.backends.namespace import enter, profile, sandbox
from bot_bottle.backends.namespace.bottle import NamespaceBottle
from bot_bottle.errors import HostError
from bot_bottle.host import cgroups
from bot_bottle.host.cgroups import Group
from bot_bottle.host.spawn import nothing
from bot_bottle.plan.model import RunPlan
from bot_bottle.typed import Any


class NamespaceBackend:
    """See `backends.base.Backend`."""

    name = "namespace"

    def needs_copy(self) -> bool:
        return False

    def mismatches(self, plan: RunPlan) -> Sequence[str]:
        return profile.mismatches(plan)

    def traces(self, plan: RunPlan) -> Mapping[str, Any]:
        return {"cgroups": dict(cgroups.names(plan.id, plan.limits))}

    def prepare(self, plan: RunPlan, say: Callable[[str], None]) -> None:
        """Everything is the host's own."""

    def place(self, _: RunPlan) -> None:
        """Beside the keeper, whose kernel it is."""

    def create(
        self, plan: RunPlan, stdio: Stdio, *, meanwhile: Callable[[], object] = nothing
    ) -> NamespaceBottle:
        if problems := profile.mismatches(plan):
            raise HostError("This bottle can't be made", details="\n".join(problems))
        with ExitStack() as owned:
            group = _make_group(plan, owned)
            rules = seccomp.agents_filter()
            made = sandbox.make(plan, rules, owned, meanwhile)
            way = enter.Way(
                holder=made.holder,
                outer=made.outer,
                user=(plan.uid, plan.gid) if os.geteuid() == 0 else None,
                seccomp=rules,
                limits=plan.limits,
                join_group=partial(_join, group),
            )
            bottle = NamespaceBottle(way, owned.pop_all())
        try:
            bottle.hold_agent(plan.command, stdio)
        except BaseException:
            bottle.destroy()
            raise
        return bottle

    def reap(self, traces: Mapping[str, Any]) -> Sequence[str]:
        """Processes end with their keeper by the kernel's doing; what can be left is the group, and what is in it."""
        recorded = traces.get("cgroups") or {}
        there = sorted({folder for folder in recorded.values() if os.path.isdir(folder)})
        if not there:
            return []
        group = cgroups.find(recorded)
        group.kill()
        group.remove()
        return [f"removed the control group {folder}" for folder in there if not os.path.isdir(folder)]


def make() -> Backend:
    """The backend, for the registry."""
    return NamespaceBackend()


def _make_group(plan: RunPlan, owned: ExitStack) -> Group | None:
    group = cgroups.make(plan.id, plan.limits)
    if group:
        owned.callback(group.remove)
        owned.callback(group.kill)
    return group


def _join(group: Group | None) -> None:
    if group:
        group.add(os.getpid())
