"""Which connections of the agent's are open now, what each was let through for, and their end when that is allowed no more.

Every accepted connection is served by a task of its own, and whatever is judged in it (or in a task that it starts) is noted
here, so that nobody who serves connections has to pass anything along. A change of policy judges all of them anew.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextvars import Context, ContextVar
from time import monotonic

from bot_bottle.policy.egress import Decision, intercepts
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.typed import NamedTuple

Judge = Callable[[EgressPolicy], Decision]
"""Asks anew, of another policy, what was asked when a connection was let through."""
POLICY_CHANGED = "policy_changed"
"""Why a connection ended that a new policy forbids."""
CROWDED_OUT = "crowded_out"
"""Why a connection ended that had asked for nothing when there was room for no other."""
_RESET = struct.pack("ii", 1, 0)
_CURRENT: "ContextVar[Connection]" = ContextVar("connection")


class Flow(NamedTuple):
    """Open connections to one place, and the bytes that they carried so far, from the agent (`up`) and to it."""

    host: str
    port: int
    protocol: str
    connections: int
    up: int
    down: int


def _ignored(_: str) -> None:
    return


def _nothing() -> tuple[int, int]:
    return 0, 0


class Connection:
    """One of the agent's connections. `decision` is the last that let something through on it, None before the first.

    `waiting` is since when the agent's next request, or its hello, is waited for; None while something is under way. `once` is the
    approval for one use by which what is under way was let through.
    """

    __slots__ = (
        "_sock",
        "_task",
        "carried",
        "decision",
        "ended_by",
        "judge",
        "once",
        "stop",
        "waiting",
        "whole",
    )

    def __init__(
        self,
        sock: socket.socket | None,
        task: "asyncio.Task[None] | None",
        whole: "Connection | None" = None,
    ) -> None:
        self._sock = sock
        self._task = task
        self.whole = whole
        """The one that it is a stream of; None for one that has a socket of its own."""
        self.decision: Decision | None = None
        self.judge: Judge | None = None
        self.once = ""
        self.carried: Callable[[], tuple[int, int]] = _nothing
        self.stop: Callable[[], object] | None = None
        self.ended_by = ""
        self.waiting: float | None = monotonic()

    @property
    def is_stream(self) -> bool:
        """Whether it is one of several that share a socket, and ends without the others."""
        return self._sock is None

    def end(self, reason: str) -> "asyncio.Task[None] | None":
        """Ends it at once, with a reset, so that nobody takes what has come for the whole; the task that is ending then."""
        self.ended_by = reason
        if self._sock is not None and self._sock.fileno() >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if self.stop is not None:
            self.stop()
        elif self._task is not None:
            self._task.cancel()
        return self._task

    def leave(self, reason: str) -> None:
        """Ends it in order: what was said on it before still arrives."""
        self.ended_by = reason
        if self._task is not None:
            self._task.cancel()


class Live:
    """The open connections of one bottle."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self.once_over: Callable[[str], object] = _ignored
        """Told the approval for one use when what it let through has ended."""

    def __len__(self) -> int:
        return len(self._open)

    def connection(self, sock: socket.socket | None) -> "_Served":
        """One connection, served by the running task, for as long as the context lasts; without a `sock` one stream of it."""
        whole = _CURRENT.get(None) if sock is None else None
        return _Served(self, Connection(sock, asyncio.current_task(), whole))

    def begins(self, connection: Connection) -> None:
        self._open.add(connection)

    def ends(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._over(connection)

    def note(self, decision: Decision, judge: Judge) -> None:
        """Remembers what lets something through on the running connection, and how to ask it anew."""
        connection = _CURRENT.get(None)
        if connection is not None and decision.allowed:
            connection.decision, connection.judge, connection.waiting = decision, judge, None

    def uses_once(self, grant: str) -> None:
        """What was let through on the running connection just now is what `grant` was for."""
        connection = _CURRENT.get(None)
        if connection is None:
            self.once_over(grant)
        else:
            connection.once = grant

    def over(self) -> None:
        """The request that was under way on the running connection has ended."""
        connection = _CURRENT.get(None)
        if connection is not None:
            self._over(connection)

    def _over(self, connection: Connection) -> None:
        grant, connection.once = connection.once, ""
        if grant:
            self.once_over(grant)

    def asks(self) -> None:
        """The running connection waits for a person: nothing is let through on it now, and the agent is not waited for."""
        connection = _CURRENT.get(None)
        if connection is not None:
            connection.decision = connection.judge = connection.waiting = None

    def waits(self) -> None:
        """From now on the running connection waits for what the agent asks next."""
        connection = _CURRENT.get(None)
        if connection is not None:
            connection.waiting = monotonic()

    def end_longest_waiting(self, patience: float) -> float:
        """Ends the connection that has waited longest for the agent to say something; 0 when there was one.

        Else how many seconds it takes until one will have waited for `patience` seconds.
        """
        now = monotonic()
        waiting = [(one.waiting, one) for one in self._open if one.waiting is not None and not one.ended_by]
        since, longest = min(waiting, key=lambda pair: pair[0], default=(now, None))
        if longest is None or now - since < patience:
            return patience - (now - since)
        longest.leave(CROWDED_OUT)
        return 0.0

    def rests(self, judge: Judge) -> None:
        """From now on the running connection is judged anew by `judge`."""
        connection = _CURRENT.get(None)
        if connection is not None:
            connection.judge = judge

    def decision(self) -> Decision | None:
        """What was last let through on the running connection."""
        connection = _CURRENT.get(None)
        return connection.decision if connection is not None else None

    def carries(
        self, carried: Callable[[], tuple[int, int]], stop: Callable[[], object] | None = None
    ) -> None:
        """How to ask what the running connection has carried so far, up and down, and how to end it in order."""
        connection = _CURRENT.get(None)
        if connection is not None:
            connection.carried, connection.stop, connection.waiting = carried, stop, None

    def carries_nothing(self) -> None:
        """What the running connection carried has ended, and is counted."""
        connection = _CURRENT.get(None)
        if connection is not None:
            connection.carried, connection.stop = _nothing, None

    def ended_by(self) -> str:
        """Why the running connection was ended from here; empty when it was not."""
        connection = _CURRENT.get(None)
        return connection.ended_by if connection is not None else ""

    def end_forbidden(self, old: EgressPolicy, new: EgressPolicy) -> "list[asyncio.Task[None]]":
        """Ends every connection that `new` would not have let through, or not in the same way; their tasks, ending."""
        ending = []
        for connection in list(self._open):
            if connection.judge is not None and not _stays(connection.judge, old, new):
                task = connection.end(POLICY_CHANGED)
                if task is not None:
                    ending.append(task)
        return ending

    def flows(self) -> list[Flow]:
        """What is open, by place; connections that nothing was allowed on yet are left out."""
        found: dict[tuple[str, int, str], Flow] = {}
        for connection in self._open:
            if connection.decision is None or connection.is_stream:
                continue
            wanted = connection.decision.wanted
            place = (wanted.host, wanted.port, wanted.protocol)
            up, down = connection.carried()
            before = found.get(place, Flow(*place, 0, 0, 0))
            found[place] = Flow(*place, before.connections + 1, before.up + up, before.down + down)
        return list(found.values())


def whose(variables: Context | None) -> Connection | None:
    """The connection that runs in `variables`, whole where that is a stream of it; None where none does."""
    connection = None if variables is None else variables.get(_CURRENT)
    return connection.whole or connection if connection is not None else None


class _Served:
    """While it lasts, `connection` is open in `live` and the running one."""

    __slots__ = ("_connection", "_live", "_token")

    def __init__(self, live: Live, connection: Connection) -> None:
        self._live = live
        self._connection = connection

    def __enter__(self) -> Connection:
        self._token = _CURRENT.set(self._connection)
        self._live.begins(self._connection)
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._live.ends(self._connection)
        _CURRENT.reset(self._token)


def _stays(judge: Judge, old: EgressPolicy, new: EgressPolicy) -> bool:
    """Whether what was let through may go on as it is. Whatever goes wrong in deciding is a no."""
    try:
        again = judge(new)
        return again.allowed and _treatment(old, judge(old)) == _treatment(new, again)
    except Exception:  # noqa: BLE001 - a decision that can't be made must not let anything go on
        return False


def _treatment(policy: EgressPolicy, decision: Decision) -> tuple[object, ...]:
    """What happens to what is let through: a connection can't be opened, redirected or given a credential half-way."""
    route, wanted = decision.route, decision.wanted
    if route is None:
        return (None,)
    opened = wanted.protocol == "https" and intercepts(policy, host=wanted.host, port=wanted.port)
    return route.upstream, route.credential, opened, (policy.secrets, route.on_match) if route.scan else None
