"""Talking to smolvm: one function for each verb. Every call has a bound, a scrubbed environment and no standard input."""

import json
import os
from collections.abc import Sequence

from bot_bottle.backends.smolmachines import arguments, failures
from bot_bottle.backends.smolmachines.arguments import Machine
from bot_bottle.backends.smolmachines.guard import Guard
from bot_bottle.backends.smolmachines.program import Program
from bot_bottle.errors import HostError, SandboxError
from bot_bottle.host.process import Begun, Finished, run
from bot_bottle.typed import Any

SECONDS = 120.0
"""For everything but a start."""
STARTING = 300.0
"""For a start, which takes 0.2 s on a machine with KVM and up to a minute on an emulated one."""


class Smolvm:
    """smolvm with its state below one folder of ours, so that the user's own machines and ours never meet."""

    def __init__(self, program: Program, state: str) -> None:
        self._program = program
        self._state = state

    def create(self, machine: Machine) -> None:
        """Raises SandboxError, also for what smolvm would take in silence."""
        self.begin_create(machine).finish()

    def begin_create(self, machine: Machine) -> "Making":
        """A `create` that is waited for later. Raises what it does, as far as that is known at once."""
        if problems := arguments.wrong(machine):
            raise SandboxError("The bottle's machine can't be made", details="\n".join(problems))
        argv, env = self._told(arguments.create(machine))
        return Making(Begun(argv, env=env, cwd="/"), "create", seconds=SECONDS)

    def start(self, name: str) -> None:
        """Raises HostError when the machine lacks what a microVM needs, SandboxError when it failed otherwise."""
        self._must("start", arguments.start(name), timeout=STARTING)

    def begin(self, name: str) -> "Starting":
        """A start that is waited for later; a keeper that is killed meanwhile has its machine stopped. Raises HostError."""
        argv, env = self._told(arguments.start(name))
        stop, _ = self._told(arguments.stop(name, seconds=0))
        begun = Begun(argv, env=env, cwd="/")
        try:
            return Starting(begun, Guard(begun.pid, stop, env, seconds=STARTING))
        except OSError as error:
            begun.drop()
            raise HostError("The bottle's machine can't be started", details=str(error)) from error

    def execute(self, name: str, command: Sequence[str], *, user: str = "0:0", seconds: int = 60) -> Finished:
        """What came of a command inside. Its code and words are the machine's: whoever reads them believes nothing of them."""
        return self._call(arguments.execute(name, command, user=user, seconds=seconds), SECONDS + seconds)

    def copy_in(self, name: str, source: str, target: str, *, mode: int = 0o600) -> None:
        """Raises SandboxError."""
        self._must("copy into", arguments.copy_in(name, source, target, mode=mode))

    def stop(self, name: str, *, seconds: int = 0) -> bool:
        """Whether there was such a machine. Raises SandboxError when it could not be stopped."""
        return self._unless_missing("stop", arguments.stop(name, seconds=seconds))

    def delete(self, name: str) -> bool:
        """Whether there was such a machine. Raises SandboxError when it could not be removed."""
        return self._unless_missing("delete", arguments.delete(name))

    def status(self, name: str) -> dict[str, Any] | None:
        """What smolvm knows of a machine; None when there is none. Raises SandboxError."""
        done = self._call(arguments.status(name), SECONDS)
        if done.code:
            failure = failures.read(done.code, done.stderr)
            if failure.kind == "missing":
                return None
            raise failures.explain(failure, "look at")
        found = _json(done.stdout)
        if not isinstance(found, dict):
            raise SandboxError("Smolvm's answer can't be read", details=done.said[:200])
        return found

    def names(self) -> list[str]:
        """The machines that are there. Raises SandboxError."""
        found = _json(self._must("list", arguments.listing()).stdout)
        if not isinstance(found, list):
            raise SandboxError("Smolvm's answer can't be read")
        return [str(one["name"]) for one in found if isinstance(one, dict) and "name" in one]

    def _unless_missing(self, verb: str, argv: Sequence[str]) -> bool:
        done = self._call(argv, SECONDS)
        if not done.code:
            return True
        failure = failures.read(done.code, done.stderr)
        if failure.kind == "missing":
            return False
        raise failures.explain(failure, verb)

    def _must(self, verb: str, argv: Sequence[str], *, timeout: float = SECONDS) -> Finished:
        done = self._call(argv, timeout)
        if done.code:
            raise failures.explain(failures.read(done.code, done.stderr), verb)
        return done

    def _call(self, argv: Sequence[str], timeout: float) -> Finished:
        whole, env = self._told(argv)
        return run(whole, env=env, cwd="/", timeout=timeout)

    def _told(self, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        os.makedirs(self._state, mode=0o700, exist_ok=True)
        program = self._program
        env = {**program.environment(self._state), "XDG_RUNTIME_DIR": self._state}
        return [program.path, "--state-dir", self._state, *argv], env


class Making:
    """What smolvm was asked to do and may still be at; `verb` names it."""

    def __init__(self, begun: Begun, verb: str, *, seconds: float) -> None:
        self._begun = begun
        self._verb = verb
        self._seconds = seconds

    def finish(self) -> None:
        """Waits until it is done. Raises HostError, SandboxError."""
        done = self._begun.finish(self._seconds)
        if done.code:
            raise failures.explain(failures.read(done.code, done.stderr), self._verb)

    def drop(self) -> None:
        """Ends smolvm's own part of it. Idempotent."""
        self._begun.drop()


class Starting(Making):
    """A machine that is being started."""

    def __init__(self, begun: Begun, guard: Guard) -> None:
        super().__init__(begun, "start", seconds=STARTING)
        self._guard = guard

    def drop(self) -> None:
        super().drop()
        self._guard.over()

    def guarded(self) -> None:
        """From now on, somebody else ends the machine with its keeper. Idempotent."""
        self._guard.over()


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SandboxError("Smolvm's answer can't be read", details=str(error)) from error
