"""The keeper's side of the server that the agent asks for help: started when somebody comes, heard, ended when nobody does.

The keeper keeps the listening socket and never reads from it: that it becomes readable is what starts the process, which gets the
socket, the run's token, and a line of its own. The process faces the agent and is believed no further than a bundle: what it says
is bounded in length and rate, and what it asks is `Answers`' to judge.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bot_bottle.backends.base import Bottle
from bot_bottle.door.model import SUPERVISE
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import SandboxError
from bot_bottle.host import spawn
from bot_bottle.launch.heard import parse
from bot_bottle.plan.model import RunPlan, Supervise
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from bot_bottle.launch.session import Session

DEATHS = 8
"""How often the process may die in `FORGIVEN` seconds before it is given up; that it ends when idle is no death."""
FORGIVEN = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds after the second death, and at most; after the first it is started again at once."""
LONGEST_LINE = 64 * 1024
LONGEST_BACKLOG = 4 << 20
"""Bytes that may wait for a process that does not read."""
BURST, RATE = 256, 64.0
"""Messages that are taken at once, and messages a second that they are made up by; what comes faster waits in the socket."""
_START = (
    "import sys; sys.path[:0] = sys.argv[3:]; from bot_bottle.bundle.supervise import main;"
    " main.serve(*map(int, sys.argv[1:3]))"
)
_RETRY = 0.02

Message = Mapping[str, Any]


class Answers(Protocol):
    """Who answers what the agent asks; called in the session's loop."""

    def hear(self, message: Message, tell: Callable[[Message], None]) -> None:
        """One message of the process, any JSON object; `tell` says something to that process, for as long as it lives."""

    def gone(self) -> None:
        """The process has ended: nobody waits any more for anything that it asked."""


class Notes(NamedTuple):
    """Where what happens is told: the record, and the person."""

    record: Callable[[str, Mapping[str, object]], None]
    warn: Callable[[str], None]


class Timing(NamedTuple):
    """Seconds that the process goes by, beside the plan's."""

    progress: float = 10.0
    idle: float = 60.0
    request: float = 10.0
    reading: float = 30.0


def new_token() -> Secret:
    """The bearer token of one run."""
    from base64 import urlsafe_b64encode

    return Secret(urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode())


class Supervisor:
    """One run's server. `token` is what the agent shows it; `pid` is its process while it runs, else 0."""

    def __init__(
        self,
        plan: RunPlan,
        supervise: Supervise,
        answers: Answers,
        notes: Notes,
        timing: Timing | None = None,
    ) -> None:
        self.token = new_token()
        self._plan = plan
        self._supervise = supervise
        self._answers = answers
        self._notes = notes
        self._timing = timing or Timing()
        self._listener: socket.socket | None = None
        self._session: Session | None = None
        self._process: _Process | None = None
        self._deaths: list[float] = []
        self._due: float | None = None
        self._told_of = False

    @property
    def pid(self) -> int:
        return self._process.child.pid if self._process else 0

    def open_door(self, bottle: Bottle) -> None:
        """Has the bottle listen where the agent asks. Raises SandboxError."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            bottle.open_door((SUPERVISE,), theirs)
            try:
                (self._listener,) = receive_listeners(ours, 1, 0)
            except OSError as error:
                raise SandboxError(
                    "The supervise server's listener did not come", details=str(error)
                ) from error

    def serve(self, session: "Session") -> None:
        """Watches, in the session's loop, for the first who comes; starts at once where the agent's tool will come anyway."""
        self._session = session
        session.also(self._tick)
        if self._supervise.expected:
            self._due = 0.0
        else:
            self._wait_for_somebody()

    def leave(self) -> None:
        """The agent has ended: nobody comes any more. Idempotent."""
        self.stop()

    def stop(self) -> None:
        """Ends the process and closes the door. Idempotent."""
        self._due = None
        self._end_process()
        self._close()

    # Beginning and ending

    def _wait_for_somebody(self) -> None:
        if self._session and self._listener:
            self._session.watch(self._listener, self._begin)

    def _begin(self) -> None:
        assert self._session is not None
        if self._listener is None or self._process is not None:
            return
        self._session.forget(self._listener)
        self._due = None
        try:
            self._process = _Process(self._listener, self._order())
        except (spawn.ChildFailed, OSError) as error:
            self._died(str(error))
            return
        self._session.watch(self._process.sock, self._hear)

    def _order(self) -> dict[str, object]:
        plan, timing = self._plan, self._timing
        return {
            "keeper": os.getpid(),
            "token": self.token.reveal(),
            "uid": plan.bundle_uid,
            "gid": plan.bundle_gid,
            "port": self._supervise.port,
            "hold": self._supervise.hold,
            **timing._asdict(),
        }

    def _ended(self) -> None:
        """The process is gone, or as good as."""
        process = self._process
        assert process is not None
        idle = process.idle
        why = process.failed
        code = self._end_process()
        if idle:
            self._wait_for_somebody()
        else:
            self._died(why or f"it ended with {code}")

    def _end_process(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if self._session:
            self._session.forget(process.sock)
        code = process.end()
        self._answers.gone()
        return code

    def _died(self, why: str) -> None:
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < FORGIVEN] + [now]
        times = len(self._deaths)
        self._notes.record("supervise.died", {"why": why[:300], "times": times})
        if times >= DEATHS:
            self._close()
            self._notes.warn("The supervise server died again and again; the agent can't ask any more.")
            return
        pause = min(FIRST_PAUSE * 2 ** (times - 2), LONGEST_PAUSE) if times > 1 else 0.0
        self._due = now + pause

    def _close(self) -> None:
        """What is not answered is refused, so that the agent's tool does not wait for nothing."""
        listener, self._listener = self._listener, None
        if listener is not None:
            if self._session:
                self._session.forget(listener)
            listener.close()

    def _tick(self) -> float | None:
        now = time.monotonic()
        waits: list[float] = []
        if self._due is not None:
            if now >= self._due:
                self._due_now()
            else:
                waits.append(self._due - now)
        if self._process is not None:
            if not self._process.flush(now):
                self._ended()
            elif self._process.waiting or self._process.held_back:
                if self._process.held_back and self._process.room(now) and self._session:
                    self._process.held_back = False
                    self._session.watch(self._process.sock, self._hear)
                waits.append(_RETRY)
        return min(waits, default=None)

    def _due_now(self) -> None:
        """After a death it waits for somebody; at the beginning it does not."""
        self._due = None
        if self._deaths:
            self._wait_for_somebody()
        else:
            self._begin()

    # What it says

    def _hear(self) -> None:
        process = self._process
        assert process is not None
        messages = process.read()
        if messages is None:
            self._ended()
            return
        for message in messages:
            if process is self._process:
                self._heard(process, message)
        if self._session and process is self._process and not process.room(time.monotonic()):
            process.held_back = True
            self._session.forget(process.sock)

    def _heard(self, process: "_Process", message: dict[str, Any]) -> None:
        if "ready" in message:
            if not self._told_of:
                self._told_of = True
                confined = message.get("confined")
                self._notes.record("supervise.began", {"confined": _facts(confined)})
        elif message.get("idle") is True:
            process.idle = True
        elif "failed" in message:
            process.failed = str(message["failed"])[:300]
        else:
            self._answers.hear(message, partial(self._tell, process))

    def _tell(self, process: "_Process", message: Message) -> None:
        if process is self._process:
            process.tell(message)


def _facts(confined: object) -> dict[str, object]:
    """What the process says of its confinement, as far as it has the shape of it."""
    if not isinstance(confined, dict):
        return {}
    return {
        key: confined[key] for key in ("seccomp", "landlock", "uid") if isinstance(confined.get(key), int)
    }


class _Process:
    """One process, and the line to it."""

    def __init__(self, listener: socket.socket, order: Mapping[str, object]) -> None:
        """Starts it. Raises ChildFailed, OSError."""
        self.idle = False
        self.failed = ""
        self.held_back = False
        self.waiting = bytearray()
        self._buffer = b""
        self._room = float(BURST)
        self._filled_at = time.monotonic()
        self.sock, theirs = socket.socketpair()
        try:
            with theirs:
                self.sock.setblocking(False)
                self.child = _spawn(listener.fileno(), theirs.fileno())
            self.tell(order)
        except BaseException:
            self.sock.close()
            raise

    def tell(self, message: Message) -> None:
        """Sends it one object, now or as soon as it reads; one that reads nothing is found out by `flush`."""
        import json

        self.waiting += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self.flush(0.0)

    def flush(self, _now: float) -> bool:
        """Sends what waits; False when too much does, or nobody reads any more."""
        try:
            while self.waiting:
                del self.waiting[: self.sock.send(self.waiting)]
        except BlockingIOError:
            return len(self.waiting) <= LONGEST_BACKLOG
        except OSError:
            return False
        return True

    def room(self, now: float) -> bool:
        """Whether more of what it says is taken now."""
        self._room = min(BURST, self._room + (now - self._filled_at) * RATE)
        self._filled_at = now
        return self._room >= 1

    def read(self) -> list[dict[str, Any]] | None:
        """The messages that have come; None at the end, or when it says what no message is."""
        try:
            data = self.sock.recv(LONGEST_LINE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._room -= len(lines)
        messages = [parse(line) for line in lines if len(line) <= LONGEST_LINE]
        if not data or len(self._buffer) > LONGEST_LINE or None in messages or len(messages) < len(lines):
            return None
        return [message for message in messages if message is not None]

    def end(self) -> int | None:
        """Ends it at once; its exit code. Idempotent."""
        self.child.kill()
        code = self.child.wait()
        self.child.close()
        self.sock.close()
        return code


def _spawn(listener: int, line: int) -> spawn.Child:
    """Starts the program, with nothing of the keeper's: not its terminal, its folder, its environment or its memory."""
    places = [path for path in sys.path if os.path.isabs(path)]
    argv = (sys.executable, "-I", "-S", "-c", _START, str(listener), str(line), *places)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return spawn.start(
            [
                spawn.Step("streams", partial(spawn.set_standard, null, null, null)),
                spawn.Step("session", os.setsid),
                spawn.Step("folder", partial(os.chdir, "/")),
            ],
            spawn.Program(sys.executable, argv, {"LC_ALL": "C.UTF-8"}),
            keep=(listener, line),
            for_steps=(null,),
        )
    finally:
        os.close(null)
