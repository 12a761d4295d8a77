"""The contract that every backend keeps. `testing/conformance.py` holds each of them to it.

A backend makes a bottle from a plan. The order is fixed:

    backend.prepare(plan, say)               what outlives the run is there
    bottle = backend.create(plan, stdio)     the sandbox exists, the agent in it does not run yet
    bottle.open_door(listeners, channel)     listeners opened inside, passed to the bundle over `channel`
    bottle.write_files(files)                provisioning: files, and whatever `spawn` does inside
    bottle.release()                         the agent runs
    bottle.agent.wait()                      ... and ends
    bottle.destroy()                         nothing of it is left; may be called at any point, any number of times

A command that failed is a result (its exit code); a sandbox that is gone is a `SandboxError`. Whoever dies in between,
`backend.reap(traces)` removes what is left, from what `backend.traces(plan)` said before anything was made.
"""

from collections.abc import Callable, Mapping, Sequence
from socket import socket

from bot_bottle.door.model import Hatch, Listener
from bot_bottle.plan.model import Command, File, RunPlan
from bot_bottle.typed import Any, NamedTuple, Protocol


class Stdio(NamedTuple):
    """Descriptors of the caller's that become 0, 1 and 2 of a process inside; the caller still closes its own.

    With `tty` they are one pseudo-terminal's slave, which becomes the controlling terminal of a new session.
    """

    stdin: int
    stdout: int
    stderr: int
    tty: bool = False


class Process(Protocol):
    """A process inside a bottle, seen from outside."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended, for `select`."""

    def poll(self) -> int | None:
        """The exit code if it has ended, 128 + N if signal N ended it; None while it runs. Never raises."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits at most `timeout` seconds (None: as long as it takes) and answers like `poll`."""

    def signal(self, number: int) -> None:
        """Sends signal `number` to the process's own group inside; nothing happens when it has ended."""


class Bottle(Protocol):
    """One bottle, held by the process that created it."""

    @property
    def agent(self) -> Process:
        """The agent's own process. Before `release` it is there, but has not run a single instruction of its own.

        Raises SandboxError when the bottle has ended before it was there.
        """

    def open_door(self, listeners: Sequence[Listener], channel: socket | Hatch) -> None:
        """Opens `listeners` inside and passes them, in order, over the unix socket `channel` in one message.

        Where the plan's backend has a `Place`, `channel` is one of its hatches instead, and they stay there.

        May be called again while the agent runs, for further ones: a port that is open, or that the agent took, is refused.
        Nothing is waited for when `channel` is non-blocking and its other end takes nothing.

        Raises SandboxError when the sandbox is gone or refuses one of them; then none was passed.
        """

    def spawn(self, command: Command, stdio: Stdio) -> Process:
        """Starts `command` inside, as the agent's user, with no descriptor but `stdio` and no environment but its own.

        It is confined exactly as the agent is. Works before and after `release`. An argv[0] that does not exist or can't
        be run is a result: exit code 127 or 126. Raises SandboxError when the bottle has ended.
        """

    def write_files(self, files: Sequence[File]) -> None:
        """Writes `files` inside as the agent's user; what is there already is replaced, links are not written through.

        Folders on the way are made for the agent's user alone. Works before and after `release`; a backend that knows no
        quicker way takes `backends.copying.write_files`. Raises SandboxError, also when the bottle has ended.
        """

    def release(self) -> None:
        """Lets the agent run. Raises SandboxError when the bottle has ended."""

    def destroy(self) -> None:
        """Ends every process inside and removes everything made. Idempotent; succeeds when nothing is there."""


class Place(Protocol):
    """Where a run's bundle and supervise server run when that is not beside the keeper: with the bottle, on another kernel.

    Each has a `channel`, and a socket here on which it says and hears the same lines as beside the keeper. Everything in it ends
    with the keeper. The methods raise SandboxError when it is gone.
    """

    keeper: int
    """The process id of the keeper's deputy there: what is started has it as its parent."""

    local: bool
    """Whether it is on this kernel: then what runs beside the keeper can still be handed listeners of the bottle's."""

    def bundle(self) -> tuple[int, socket]:
        """Starts a bundle that waits for its config: its channel, and the line to it."""

    def server(self, order: object) -> tuple[int, socket]:
        """Starts the supervise server on the listener that came through `Hatch(0)`: its channel, and the line to it."""

    def knocks(self) -> socket:
        """Becomes readable when somebody wants to talk to the supervise server and it does not run."""

    def shut(self) -> None:
        """Closes the supervise server's listener. Idempotent; never raises."""

    def end(self, channel: int) -> int | None:
        """Ends at once what is behind `channel`; its exit code, None where nobody knows. Idempotent; never raises."""

    def refresh(self) -> None:
        """The bottle's certificate stores have changed here: shows them there, too."""

    def close(self) -> None:
        """Ends and removes everything. Idempotent."""


class Backend(Protocol):
    """Makes bottles of one kind. Found by name through `backends/registry.py`."""

    name: str

    def needs_copy(self) -> bool:
        """Whether bottles are where the operator's folders can't be shown: then they work on copies unless told otherwise.

        Nothing is connected for it. Raises HostError.
        """

    def mismatches(self, plan: RunPlan) -> Sequence[str]:
        """Everything in `plan` that this backend can't do, one sentence each; pure, called when planning."""

    def traces(self, plan: RunPlan) -> Mapping[str, Any]:
        """JSON-able names of everything that `create` will make outside `plan.paths`; pure, recorded before `create`."""

    def prepare(self, plan: RunPlan, say: Callable[[str], None]) -> None:
        """Makes ready what outlives the run and may take long (an image), saying by `say` what is done; called before `create`.

        `create` does without: it says nothing then. Interrupted at any point, it leaves nothing behind.

        Raises what `create` does, and what is wrong with the files that it is made from.
        """

    def place(self, plan: RunPlan) -> Place | None:
        """Where the bundle of this run is to be, made now; None: beside the keeper. Called once, before `create`.

        Raises HostError, SandboxError.
        """

    def create(self, plan: RunPlan, stdio: Stdio, *, meanwhile: Callable[[], object]) -> Bottle:
        """Makes the bottle, with the agent (`plan.command`) held back, its standard streams being `stdio`.

        `meanwhile` is what the caller has to do at any rate: it is called once, and where the making has to be waited for it
        is called there. What it raises is raised.

        Raises HostError when the machine lacks something (and says what to do), SandboxError when it failed otherwise;
        either way nothing is left behind.
        """

    def reap(self, traces: Mapping[str, Any]) -> Sequence[str]:
        """Removes what a dead keeper left; a sentence for each thing removed. Succeeds when nothing is there."""
