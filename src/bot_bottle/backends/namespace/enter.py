"""Going into a running bottle from outside: to run something there, confined as the agent is, or to open its door.

The agent itself comes in this way, too, so that there is one confinement and not two that should be alike.
"""

import errno
import os
import resource
import socket
from collections.abc import Callable, Sequence

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.namespace import held
from bot_bottle.door.model import Listener
from bot_bottle.host import kernel, spawn
from bot_bottle.plan.model import Command, Limits
from bot_bottle.typed import NamedTuple, NoReturn

_PATIENCE = 10.0
"""Seconds for being confined, which takes 0.005: the agent can stop whoever comes in, and must not hold up the keeper."""
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_INNER = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)


class Way(NamedTuple):
    """How one gets into a bottle: `holder` is the pidfd of its process 1, `outer` the user namespace that owns the others.

    The user namespace of process 1 is a child of `outer`, made so that nobody in it can make further ones. `user` is the
    agent's user and group on the host when the caller is root.
    """

    holder: int
    outer: int
    user: tuple[int, int] | None
    seccomp: bytes
    limits: Limits
    join_group: Callable[[], object]


def find_way_in(pid: int) -> int:
    """A descriptor of the user namespace that owns the namespaces of process `pid`."""
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return kernel.owning_user_namespace(network)
    finally:
        os.close(network)


class Start:
    """A process on its way in: `finish` gives it once it is there, fully confined."""

    def __init__(self, way: Way, command: Command, stdio: Stdio, *, held_by: int | None = None) -> None:
        """Sends it. With `held_by` it waits inside for what `held.wait` takes from that; if that ends first, so does it."""
        standard = (stdio.stdin, stdio.stdout, stdio.stderr)
        held_from = () if held_by is None else (held_by,)

        def body(say: spawn.Say) -> None:
            _go_in(way)
            told, telling = os.pipe()
            sibling = kernel.fork(kernel.CLONE_PARENT)
            if sibling:
                say(b"%d" % sibling)
                return
            os.close(telling)
            os.read(
                told, 1
            )  # ends with the process that tells our number: nothing is heard of us before that
            os.close(told)
            os.close(way.holder)
            os.close(way.outer)
            _confine(way, stdio)
            say(b"ready")
            if held_by is not None:
                if not held.wait(held_by):
                    os._exit(125)
                os.close(held_by)
            _execute(command)

        self._messenger, self._report = spawn.fork(body, keep=(*standard, *held_from, way.holder, way.outer))

    def finish(self) -> spawn.Child:
        """Waits until it is confined; called once. Raises ChildFailed when it can't be, or the bottle has ended."""
        child: spawn.Child | None = None
        try:
            ready = False
            for message in spawn.hear(self._report, _PATIENCE):  # the two speak at the same time
                if message == b"ready":
                    ready = True
                else:
                    child = spawn.Child(int(message))
                if ready and child:
                    return child
            raise spawn.ChildFailed("start", errno.ESRCH, "it ended before it was confined")
        except BaseException:
            if child:
                child.kill()
                child.wait()
                child.close()
            raise
        finally:
            os.close(self._report)
            os.waitpid(self._messenger, 0)


def open_door(way: Way, listeners: Sequence[Listener], channel: socket.socket) -> None:
    """Opens `listeners` in the bottle's network namespace and passes them over `channel`. Raises ChildFailed."""
    from bot_bottle.door.inside import open_listeners
    from bot_bottle.door.passing import send_listeners

    def body(_: spawn.Say) -> None:
        if way.user:
            spawn.become(*way.user)
        kernel.enter(way.outer, kernel.CLONE_NEWUSER)
        kernel.enter(way.holder, kernel.CLONE_NEWNET)
        send_listeners(channel, open_listeners(listeners))

    helper, report = spawn.fork(body, keep=(channel.fileno(), way.holder, way.outer))
    try:
        for _ in spawn.hear(report):
            pass
    finally:
        os.close(report)
        _, status = os.waitpid(helper, 0)
    if status:
        raise spawn.ChildFailed(
            "door", errno.ESRCH, f"the helper ended with {os.waitstatus_to_exitcode(status)}"
        )


def _go_in(way: Way) -> None:
    """Joins everything. What this process knows and is called can't be seen from inside from here on."""
    user = way.user
    steps = [
        spawn.Step("join the bottle's group", way.join_group),
        *([spawn.Step("become the agent's user", lambda: spawn.become(*user))] if user else []),
        spawn.Step("hide the command line", kernel.blank_command_line),
        spawn.Step("enter the outer user namespace", lambda: kernel.enter(way.outer, kernel.CLONE_NEWUSER)),
        spawn.Step("enter the bottle", lambda: kernel.enter(way.holder, _INNER)),
        spawn.Step("enter the inner user namespace", lambda: kernel.enter(way.holder, kernel.CLONE_NEWUSER)),
        spawn.Step("hide its memory", kernel.hide_memory),
    ]
    spawn.forget_imports()
    for step in steps:
        spawn.perform(step)


def _confine(way: Way, stdio: Stdio) -> None:
    """In the new process inside: the agent's session, limits, and nothing of the privileges that it came with."""
    steps = [
        spawn.Step("die with the keeper", kernel.die_with_parent),
        spawn.Step("make a session", os.setsid),
        spawn.Step(
            "set the standard streams", lambda: spawn.set_standard(stdio.stdin, stdio.stdout, stdio.stderr)
        ),
        *([spawn.Step("take the terminal", spawn.take_terminal)] if stdio.tty else []),
        spawn.Step("set limits", lambda: _limit(way.limits)),
        spawn.Step("drop capabilities", kernel.drop_capabilities),
        spawn.Step("forbid new privileges", kernel.forbid_new_privileges),
        spawn.Step("apply the seccomp filter", lambda: kernel.apply_seccomp(way.seccomp)),
    ]
    for step in steps:
        spawn.perform(step)
    os.umask(0o022)


def _limit(limits: Limits) -> None:
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: limits.files}
    if limits.pids is not None:
        # Counted for this user in this user namespace, and so for the bottle alone (Linux 5.14 and newer).
        wanted[resource.RLIMIT_NPROC] = limits.pids
    for kind, value in wanted.items():
        highest = resource.getrlimit(kind)[1]
        allowed = value if highest == resource.RLIM_INFINITY else min(value, highest)
        resource.setrlimit(kind, (allowed, allowed))


def _execute(command: Command) -> NoReturn:
    """Becomes the command, or says why not on its own stderr and ends with 127 (not found) or 126."""
    code, said = 127, f"{command.argv[0]}: not found"
    environment = dict(command.env)
    try:
        os.chdir(command.cwd)
        for path in _candidates(command.argv[0], environment.get("PATH", _DEFAULT_PATH)):
            try:
                os.execve(path, command.argv, environment)  # noqa: S606 - a list of arguments, as everywhere
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                code, said = 126, f"{path}: {error.strerror}"
    except OSError as error:
        code, said = 126, f"{command.cwd}: {error.strerror}"
    except ValueError as error:  # a null byte in an argument
        code, said = 126, str(error)
    try:
        os.write(2, f"bot-bottle: {said}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def _candidates(name: str, path: str) -> list[str]:
    return [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in path.split(":")]
