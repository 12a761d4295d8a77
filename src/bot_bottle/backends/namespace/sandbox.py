"""Making the place: bubblewrap is started, sets everything up and leaves the holder there, with nothing running in it.

The holder, and with it the bottle, lives as long as the keeper's end of one socket is open; the kernel closes that
whenever and however the keeper ends. bubblewrap's own way (`--die-with-parent`) is not used: when bubblewrap is killed
between making its child and letting it go on, the child waits for ever.
"""

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from bot_bottle.backends.namespace import enter, failures, profile, program, stage, view
from bot_bottle.backends.namespace.holder import program as holder_program
from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.host import kernel, lifeline, spawn
from bot_bottle.plan.model import Mount, RunPlan
from bot_bottle.typed import NamedTuple

_PATIENCE = 60.0
"""Seconds that bubblewrap may take; it takes 0.01."""


class Sandbox(NamedTuple):
    """`holder` is the pidfd of its process 1, `outer` the user namespace that owns its other namespaces."""

    holder: int
    outer: int


def make(
    plan: RunPlan, seccomp: bytes, owned: ExitStack, meanwhile: Callable[[], object] = spawn.nothing
) -> Sandbox:
    """Makes the place and waits until everything is in it, doing `meanwhile` first. What was made is in `owned`, also after a
    failure."""
    life, theirs = lifeline.pair(owned)
    info, said = (os.memfd_create(name) for name in ("info", "said"))
    owned.callback(os.close, info)
    owned.callback(os.close, said)
    with theirs, ExitStack() as until_started:
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        until_started.callback(os.close, nothing)
        standard = (theirs.fileno(), nothing, said)
        bubblewrap = _start(
            plan, seccomp=seccomp, info=info, standard=standard, held=until_started, meanwhile=meanwhile
        )
    owned.callback(bubblewrap.close)
    owned.callback(_end, bubblewrap, info)
    owned.callback(life.close)
    waiting = select.poll()
    waiting.register(life, select.POLLIN)
    waiting.register(bubblewrap, select.POLLIN)
    if not waiting.poll(_PATIENCE * 1000):
        raise SandboxError(f"Bubblewrap was not done after {_PATIENCE:.0f} s")
    if not spawn.readable(life.fileno(), 0) or life.recv(1) != b"\1":
        bubblewrap.wait(1.0)
        raise _failure(said)
    pid = _child_of(info)
    holder = os.pidfd_open(pid)
    owned.callback(os.close, holder)
    outer = enter.find_way_in(pid)
    owned.callback(os.close, outer)
    return Sandbox(holder, outer)


def _end(bubblewrap: spawn.Child, info: int) -> None:
    """Lets bubblewrap reap the holder and end by itself: nobody else may be there to reap it."""
    if bubblewrap.wait(1.0) is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            os.kill(_child_of(info), signal.SIGKILL)  # not reaped before its parent is
        bubblewrap.kill()
        bubblewrap.wait()


def _start(
    plan: RunPlan,
    *,
    seccomp: bytes,
    info: int,
    standard: tuple[int, int, int],
    held: ExitStack,
    meanwhile: Callable[[], object],
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
    steps.append(spawn.Step("let the lifeline alone end it", partial(kernel.die_with_parent, 0)))
    # By its descriptor where the agent's user has no way to its path; that does not work for scripts.
    started = spawn.Program(
        opened if trees and not program.everybody_reaches(executable) else executable,
        ["bwrap", "--args", str(spoken), *command],
        {},
    )
    try:
        return spawn.start(steps, started, keep=[info, *contents], for_steps=for_steps, meanwhile=meanwhile)
    except spawn.ChildFailed as failed:
        raise SandboxError("The bottle could not be made", details=str(failed)) from failed


def _must_reach(bound: Sequence[Mount]) -> None:
    """Raises HostError for what this user can't show; bubblewrap would say it in its own words."""
    for mount in bound:
        needed = os.R_OK | (os.X_OK if os.path.isdir(mount.source) else 0)
        if not os.access(mount.source, needed):
            what = "is not readable" if os.path.exists(mount.source) else "does not exist or can't be reached"
            raise HostError(
                f"{mount.source} {what}", resolution="Change its permissions, or start as its owner"
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


def _contents(descriptor: int) -> bytes:
    return os.pread(descriptor, 65536, 0)


def _child_of(info: int) -> int:
    """The number of process 1, as bubblewrap tells it."""
    return int(json.loads(_contents(info))["child-pid"])


def _failure(said: int) -> BotBottleError:
    words = _contents(said).decode(errors="replace").strip()
    return failures.explain(words, failures.read_settings())
