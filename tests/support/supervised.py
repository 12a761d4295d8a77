"""A supervise server without a bottle: the real process, started by the real `Supervisor`, on a listener of the test's own.

The loop that a run's session has runs here in a thread of its own; what a keeper would answer is `Desk`'s, which a test
tells what to say.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bot_bottle.door.passing import send_listeners
from bot_bottle.launch.supervisor import Notes, Supervisor, Timing
from bot_bottle.plan.model import Command, Paths, Registration, RunPlan, Supervise, Workspace

NOBODY = 65534
DEADLINE = 60.0

Message = Mapping[str, Any]


def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Waits for `condition` to become true and returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition was never met"
        time.sleep(0.005)
    return value


class Loop:
    """What a supervisor uses of `launch.session.Session`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ticks: list[Callable[[], float | None]] = []
        self._wake, self._woken = socket.socketpair()
        self._due: list[Callable[[], None]] = []
        self._selector.register(self._woken, selectors.EVENT_READ, lambda: self._woken.recv(100))
        self._over = False
        self.turns = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def watch(self, source: Any, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, act)

    def forget(self, source: Any) -> None:
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def also(self, tick: Callable[[], float | None]) -> None:
        self._ticks.append(tick)

    def start(self) -> None:
        self._thread.start()

    def soon(self, act: Callable[[], None]) -> None:
        """Has the loop's thread do something, and waits until it has."""
        done = threading.Event()
        self._due.append(lambda: (act(), done.set())[0])  # type: ignore[func-returns-value]
        self._wake.send(b"x")
        assert done.wait(DEADLINE)

    def stop(self) -> None:
        self._over = True
        self._wake.send(b"x")
        self._thread.join(DEADLINE)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        while not self._over:
            waits = [wait for tick in self._ticks if (wait := tick()) is not None]
            for key, _ in self._selector.select(min(waits, default=None)):
                if key.fd in self._selector.get_map():
                    key.data()
            while self._due:
                self._due.pop(0)()
            self.turns += 1


class Desk:
    """Answers as a keeper would; keeps `supervisor.Answers`. `says` makes of an ask what is said of it at once."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.times_gone = 0
        self.present = True
        self.state = "pending"
        self._waiting: dict[int, tuple[str, Callable[[Message], None]]] = {}
        self.policy: dict[str, Any] = {
            "allowed": ["https api.example.org"],
            "refused": [],
            "grants": [],
            "open": [],
        }
        self.silent = False

    def hear(self, message: Message, tell: Callable[[Message], None]) -> None:
        self.heard.append(dict(message))
        if self.silent:
            return
        if "policy" in message:
            tell({"to": message["policy"], **self.policy})
        elif "ask" in message:
            self._begin(message["ask"], f"p-{message['tool']}", tell)
        elif "await" in message:
            if not str(message["proposal"]).startswith("p-"):
                tell({"to": message["await"], "problem": "There is no such proposal of this run."})
            else:
                self._begin(message["await"], message["proposal"], tell)
        elif "leave" in message:
            self._waiting.pop(message["leave"], None)

    def supervisor_gone(self) -> None:
        self.times_gone += 1
        self._waiting.clear()

    def decide(self, state: str, **more: Any) -> None:
        """Says the same of every call that waits."""
        for number, (proposal, tell) in list(self._waiting.items()):
            if state not in ("pending", "approved"):
                del self._waiting[number]
            tell(self._answer(number, proposal, state) | more)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def asked(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.heard if kind in message]

    def _begin(self, number: int, proposal: str, tell: Callable[[Message], None]) -> None:
        self._waiting[number] = (proposal, tell)
        tell(self._answer(number, proposal, self.state))

    def _answer(self, number: int, proposal: str, state: str) -> dict[str, Any]:
        added = ["https api.example.org"] if state == "applied" else []
        words = f"It is {state}." + ("" if self.present else " Nobody is there.")
        return {
            "to": number, "proposal": proposal, "state": state, "present": self.present, "message": words,
            "added": added, "until": 0, "final": state not in ("pending", "approved"),
        }  # fmt: skip


class HostDoor:
    """The one thing of a bottle that a supervisor uses, with a listener on the host's own loopback."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]

    def open_door(self, _listeners: Sequence[Any], channel: socket.socket) -> None:
        send_listeners(channel, [self.listener])
        self.listener.close()


def plan() -> RunPlan:
    """As much of one as a supervisor reads."""
    paths = Paths("/nonexistent", "/nonexistent")
    return RunPlan(
        id="test", agent="a", bottle="b", bottle_file="", backend="namespace", provider="claude",
        command=Command(("true",), ()), tty=False, workspace=Workspace("/nonexistent", "mount"), paths=paths,
        uid=NOBODY, gid=NOBODY, bundle_uid=NOBODY, bundle_gid=NOBODY,
    )  # fmt: skip


class Supervised:
    """A running server: `url`, `token`, what its keeper answers (`desk`), and what was noted."""

    def __init__(self, *, expected: bool = True, hold: int = 600, timing: Timing | None = None) -> None:
        door = HostDoor()
        self.port = door.port
        self.url = f"http://127.0.0.1:{door.port}/mcp"
        self.desk = Desk()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.warnings: list[str] = []
        notes = Notes(lambda kind, data: self.events.append((kind, dict(data))), self.warnings.append)
        registration = Registration(self.url, program=("claude",)) if expected else None
        supervise = Supervise("127.0.0.1", self.port, self.url, registration, hold)
        self.supervisor = Supervisor(plan(), supervise, lambda: self.desk, notes, timing)
        self.loop = Loop()
        self.supervisor.open_door(door)  # type: ignore[arg-type] # as much of a bottle as it uses
        self.supervisor.serve(self.loop)  # type: ignore[arg-type]
        self.loop.start()

    @property
    def token(self) -> str:
        return self.supervisor.token.reveal()

    @property
    def pid(self) -> int:
        return self.supervisor.pid

    def wait_ready(self) -> int:
        until(lambda: self.told("supervise.began"))
        return self.pid

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [data for told, data in self.events if told == kind]

    def decide(self, state: str, **more: Any) -> None:
        self.loop.soon(lambda: self.desk.decide(state, **more))

    def close(self) -> None:
        self.loop.soon(self.supervisor.stop)
        self.loop.stop()

    def __enter__(self) -> "Supervised":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def memory(pid: int, field: str = "Pss") -> int:
    """Its proportional set in KiB; `Rss` for what does not grow when a child that shared it is gone."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))


def descriptors(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
