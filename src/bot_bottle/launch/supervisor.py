"""The keeper's side of the server that the agent asks for help: started when somebody comes, heard, ended when nobody does.

The keeper keeps the listening socket and never reads from it: that it becomes readable is what starts the process, which gets the
socket, the run's token, and a line of its own. The process faces the agent and is believed no further than a bundle: what it says
is bounded in length and rate, and what it asks is `Answers`' to judge.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bot_bottle.backends.base import Bottle, Place
from bot_bottle.door.model import SUPERVISE, Hatch
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import SandboxError
from bot_bottle.host import spawn
from bot_bottle.launch.supervise_process import Message, Process, beside, spawn_server
from bot_bottle.plan.model import RunPlan, Supervise
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from bot_bottle.launch.session import Session

DEATHS = 8
"""How often the process may die in `FORGIVEN` seconds before it is given up; that it ends when idle is no death."""
FORGIVEN = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds after the second death, and at most; after the first it is started again at once."""
_RETRY = 0.02


class Answers(Protocol):
    """Who answers what the agent asks, in the session's loop; `launch.asks.Asks` does."""

    def hear(self, message: Message, answer: Callable[[dict[str, Any]], None]) -> None:
        """One message of the process, any JSON object; `answer` says something to that process, for as long as it lives."""

    def supervisor_gone(self) -> None:
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
        answers: Callable[[], Answers],
        notes: Notes,
        timing: Timing | None = None,
        *,
        place: Place | None = None,
    ) -> None:
        """`answers` is asked for when something is. With a `place`, the process and its listener are there."""
        self.token = new_token()
        self._plan = plan
        self._supervise = supervise
        self._answers = answers
        self._notes = notes
        self._timing = timing or Timing()
        self._place = place
        self._listener: socket.socket | None = None
        """With a place, what tells of somebody who comes."""
        self._session: Session | None = None
        self._process: Process | None = None
        self._deaths: list[float] = []
        self._due: float | None = None
        self._told_of = False

    @property
    def pid(self) -> int:
        return self._process.child.pid if self._process else 0

    def open_door(self, bottle: Bottle) -> None:
        """Has the bottle listen where the agent asks. Raises SandboxError."""
        if self._place is not None:
            bottle.open_door((SUPERVISE,), Hatch(0))
            self._listener = self._place.knocks()
            return
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
            self._process = self._started(self._listener)
        except (spawn.ChildFailed, SandboxError, OSError) as error:
            self._died(str(error))
            return
        self._session.watch(self._process.sock, self._hear)

    def _started(self, listener: socket.socket) -> Process:
        order = self._order()
        if self._place is None:
            return Process(partial(beside, partial(spawn_server, listener.fileno())), order)
        from bot_bottle.launch.placed import begin_server

        return Process(partial(begin_server, self._place, listener, order), order)

    def _order(self) -> dict[str, object]:
        plan, timing = self._plan, self._timing
        return {
            "keeper": self._place.keeper if self._place else os.getpid(),
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
        if process.spoke:
            self._answers().supervisor_gone()
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
            if self._place is not None:
                self._place.shut()

    def _tick(self) -> float | None:
        now = time.monotonic()
        waits: list[float] = []
        if self._due is not None:
            if now >= self._due:
                self._due_now()
            else:
                waits.append(self._due - now)
        if self._process is not None:
            if not self._process.ready:
                waits.append(max(0.0, self._process.due - now))
            if not self._process.flush() or not (self._process.ready or now < self._process.due):
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

    def _heard(self, process: "Process", message: dict[str, Any]) -> None:
        if "ready" in message:
            process.ready = True
            if not self._told_of:
                self._told_of = True
                confined = message.get("confined")
                self._notes.record("supervise.began", {"confined": _facts(confined)})
        elif message.get("idle") is True:
            process.idle = True
        elif "failed" in message:
            process.failed = str(message["failed"])[:300]
        else:
            process.spoke = True
            self._answers().hear(message, partial(self._tell, process))

    def _tell(self, process: "Process", message: Message) -> None:
        if process is self._process:
            process.tell(message)


def _facts(confined: object) -> dict[str, object]:
    """What the process says of its confinement, as far as it has the shape of it."""
    if not isinstance(confined, dict):
        return {}
    return {
        key: confined[key] for key in ("seccomp", "landlock", "uid") if isinstance(confined.get(key), int)
    }
