"""The `namespace` backend: bottles that the system's bubblewrap makes, for an unprivileged user and for root."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from bot_bottle.backends.base import Backend, Stdio
from bot_bottle.backends.namespace import enter, failures, profile, program, stage, view
from bot_bottle.backends.namespace.bottle import NamespaceBottle
from bot_bottle.backends.namespace.holder import program as holder_program
from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.host import spawn
from bot_bottle.plan.model import Mount, RunPlan

_PATIENCE = 60.0
"""Seconds that bubblewrap may take; it takes 0.01."""


class Group(Protocol):
    """What this backend needs of `host/cgroups.py`."""

    def add(self, pid: int) -> None: ...
    def kill(self) -> None: ...
    def remove(self) -> None: ...


class NamespaceBackend:
    """See `backends.base.Backend`."""

    name = "namespace"

    def mismatches(self, plan: RunPlan) -> Sequence[str]:
        return profile.mismatches(plan)

    def traces(self, plan: RunPlan) -> Mapping[str, Any]:
        return {"cgroups": dict(_cgroups().names(plan.id, plan.limits))}

    def create(self, plan: RunPlan, stdio: Stdio) -> NamespaceBottle:
        if problems := profile.mismatches(plan):
            raise HostError("this bottle can't be made", details="\n".join(problems))
        with ExitStack() as owned:
            group = _make_group(plan, owned)
            bottle = NamespaceBottle(_make_sandbox(plan, group, owned), owned.pop_all())
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
        group = _cgroups().find(recorded)
        group.kill()
        group.remove()
        return [f"removed the control group {folder}" for folder in there if not os.path.isdir(folder)]


def make() -> Backend:
    """The backend, for the registry."""
    return NamespaceBackend()


def _cgroups() -> Any:
    return import_module("bot_bottle.host.cgroups")


def _make_group(plan: RunPlan, owned: ExitStack) -> Group | None:
    group: Group | None = _cgroups().make(plan.id, plan.limits)
    if group:
        owned.callback(group.remove)
        owned.callback(group.kill)
    return group


def _make_sandbox(plan: RunPlan, group: Group | None, owned: ExitStack) -> enter.Way:
    """Starts bubblewrap and waits until everything is in place. What was made is in `owned`, also after a failure."""
    seccomp = program.seccomp_filter()
    life, theirs = socket.socketpair()
    info, said = (os.memfd_create(name) for name in ("info", "said"))
    with theirs:
        owned.callback(os.close, info)
        owned.callback(os.close, said)
        with ExitStack() as until_started:
            nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            until_started.callback(os.close, nothing)
            try:
                bubblewrap = _start_bubblewrap(
                    plan,
                    seccomp=seccomp,
                    info=info,
                    standard=(theirs.fileno(), nothing, said),
                    held=until_started,
                )
            except BaseException:
                life.close()
                raise
    owned.callback(bubblewrap.close)
    owned.callback(_let_end, bubblewrap)
    # First of all when it ends: the holder lives as long as this socket, and everything inside as long as the holder.
    owned.callback(life.close)
    if not spawn.readable(life.fileno(), _PATIENCE):
        raise SandboxError(f"bubblewrap was not done after {_PATIENCE:.0f} s")
    if life.recv(1) != b"\1":
        bubblewrap.wait(1.0)
        raise _failure(said)
    pid = json.loads(_contents(info))["child-pid"]
    holder = os.pidfd_open(pid)
    owned.callback(os.close, holder)
    outer = enter.find_way_in(pid)
    owned.callback(os.close, outer)
    return enter.Way(
        holder=holder,
        outer=outer,
        user=(plan.uid, plan.gid) if os.geteuid() == 0 else None,
        seccomp=seccomp,
        limits=plan.limits,
        join_group=partial(_join, group),
    )


def _let_end(bubblewrap: spawn.Child) -> None:
    """Lets bubblewrap reap the holder and end by itself; nobody else may be there to reap it."""
    if bubblewrap.wait(1.0) is None:
        bubblewrap.kill()
        bubblewrap.wait()


def _start_bubblewrap(
    plan: RunPlan,
    *,
    seccomp: bytes,
    info: int,
    standard: tuple[int, int, int],
    held: ExitStack,
) -> spawn.Child:
    """Opens everything first, and forks then. Not in the group: moving a process costs more than all else here, and the
    holder does nothing; whatever else is in the bottle comes in by `enter`, and joins there."""
    executable = program.find()
    opened = os.open(executable, os.O_PATH | os.O_CLOEXEC)
    held.callback(os.close, opened)
    bound: Sequence[Mount] = profile.mounts(plan)
    steps = [spawn.Step("make a session", os.setsid)]
    trees: Sequence[stage.Tree] = ()
    if os.geteuid() == 0:
        trees = stage.detach(plan, bound, held)
        bound = [tree.mount for tree in trees]
        steps += stage.steps(plan, trees)
    else:
        _must_reach(bound)
    asked = profile.arguments(plan, view.look(), bound, holder=holder_program())
    contents: list[int] = []
    words = ["--info-fd", str(info), "--seccomp", str(_content(seccomp, contents, held))]
    words += [
        str(_content(word.data, contents, held)) if isinstance(word, profile.Content) else word
        for word in asked
    ]
    options, command = words[: words.index("--")], words[words.index("--") :]
    spoken = _content(b"".join(word.encode() + b"\0" for word in options), contents, held)
    steps.append(spawn.Step("set the standard streams", partial(spawn.set_standard, *standard)))
    for_steps = [opened, *standard, *(tree.descriptor for tree in trees)]
    # By its descriptor where the agent's user has no way to its path; that does not work for scripts.
    started = spawn.Program(
        opened if trees and not program.everybody_reaches(executable) else executable,
        ["bwrap", "--args", str(spoken), *command],
        {},
    )
    try:
        return spawn.start(steps, started, keep=[info, *contents], for_steps=for_steps)
    except spawn.ChildFailed as failed:
        raise SandboxError("the bottle could not be made", details=str(failed)) from failed


def _must_reach(bound: Sequence[Mount]) -> None:
    """Raises HostError for what this user can't show; bubblewrap would say it in its own words."""
    for mount in bound:
        needed = os.R_OK | (os.X_OK if os.path.isdir(mount.source) else 0)
        if not os.access(mount.source, needed):
            what = "is not readable" if os.path.exists(mount.source) else "does not exist or can't be reached"
            raise HostError(
                f"{mount.source} {what}", resolution="change its permissions, or start as its owner"
            )


def _content(data: bytes, opened: list[int], held: ExitStack) -> int:
    """A descriptor to read `data` from; remembered in `opened`, closed by `held`."""
    descriptor = os.memfd_create("content")
    held.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    opened.append(descriptor)
    return descriptor


def _join(group: Group | None) -> None:
    if group:
        group.add(os.getpid())


def _contents(descriptor: int) -> bytes:
    return os.pread(descriptor, 65536, 0)


def _failure(said: int) -> BotBottleError:
    words = _contents(said).decode(errors="replace").strip()
    return failures.explain(words, failures.read_settings())
