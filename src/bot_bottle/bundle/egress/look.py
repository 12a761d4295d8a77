"""What the guard says of what is on its way out, asked so that its own failure refuses, and its absence where it is needed."""

from collections.abc import Callable
from types import TracebackType

from bot_bottle.bundle.egress.denial import Refusal, explain
from bot_bottle.bundle.egress.heads import BadMessage, Body, Headers
from bot_bottle.bundle.egress.held import turn
from bot_bottle.bundle.egress.hooks import Filter, Guard, Head
from bot_bottle.bundle.egress.pardon import Pardon
from bot_bottle.bundle.egress.wire import Ended, Wire
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, Route
from bot_bottle.typed import Any

_AGENTS_WORDS = frozenset({"host", "path", "method", "target", "server_name"})


class Look:
    """`guard` is None where there is nothing to look for. Everything here raises Refusal for what may not go on."""

    def __init__(self, policy: Callable[[], EgressPolicy]) -> None:
        self._policy = policy
        self.guard: Guard | None = None

    def at_name(self, name: str) -> str:
        """Why the guard lets nobody name this host below a wildcard, as a name can carry something out; empty for no reason."""
        if self.guard is None:
            return ""
        try:
            return self.guard.host(name)
        except Exception:  # noqa: BLE001 - a decision that can't be made must not let anything through
            return "undecided"

    async def at_head(self, wanted: Wanted, route: Route, method: str, head: Head, pardon: Pardon) -> Head:
        """`head` as it may go on."""
        guard = self._needed(wanted)
        if guard is None:
            return head
        target, headers = head
        await turn(len(target) + sum([len(name) + len(value) for name, value in headers]))
        with _Undecided(wanted):
            return await pardon.through(
                lambda passed: guard.head(wanted, route, method, target, headers, passed)
            )

    def before_body(self, framing: Body, headers: Headers, wanted: Wanted, route: Route) -> None:
        """What is to be said before the body was read."""
        guard = self._needed(wanted)
        if guard is not None:
            with _Undecided(wanted):
                guard.before_body(framing, headers, wanted, route)

    async def at_body(
        self, agent: Wire, framing: Body, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes | None:
        """The body as it may go on, None to stream it. Raises as reading it does, too."""
        guard = self._needed(wanted)
        if guard is None:
            return None
        with _Undecided(wanted, BadMessage, Ended, OSError, TimeoutError):
            return await guard.body(agent, framing, headers, wanted, route, pardon)

    async def at_whole(self, data: bytes, headers: Headers, wanted: Wanted, route: Route) -> bytes:
        """A packed message that is here already, as it may go on."""
        guard = self._needed(wanted)
        if guard is None:
            return data
        with _Undecided(wanted):
            return await guard.whole(data, headers, wanted, route)

    async def at_collected(
        self, data: bytes, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes:
        """The same of a whole body, which a person may let go with a secret in it."""
        guard = self._needed(wanted)
        if guard is None:
            return data
        with _Undecided(wanted):
            return await guard.collected(data, headers, wanted, route, pardon)

    def message_limit(self, wanted: Wanted, route: Route) -> int | None:
        """Up to which size messages have to be looked at whole, None for not at all."""
        guard = self._needed(wanted)
        if guard is None:
            return None
        with _Undecided(wanted):
            return guard.message_limit(route)

    async def at_message(self, data: bytes, wanted: Wanted, route: Route) -> bytes:
        """One message as it may go on."""
        guard = self._needed(wanted)
        if guard is None:
            return data
        with _Undecided(wanted):
            return await guard.frame(data, wanted, route)

    def reflection(self, route: Route) -> Filter | None:
        """A filter for the head or the body of a response on `route`."""
        return None if self.guard is None else self.guard.reflection(route)

    def shown(self, text: str) -> str:
        """The agent's text as a person may read it. Raises what the guard raises."""
        return text if self.guard is None else self.guard.shown(text)

    def recorded(self, data: dict[str, Any]) -> dict[str, Any]:
        """`data` of an event with the agent's own words as they may stand in the record."""
        if self.guard is None:
            return data
        try:
            return {key: self.shown(data[key]) if key in _AGENTS_WORDS else data[key] for key in data}
        except Exception:  # noqa: BLE001 - the record does without them then
            return {key: value for key, value in data.items() if key not in _AGENTS_WORDS}

    def _needed(self, wanted: Wanted) -> Guard | None:
        """The guard: a policy that wants secrets to be looked for must not be served without what does it."""
        if self.guard is None and self._policy().secrets is not None:
            raise _undecided(wanted)
        return self.guard


class _Undecided:
    """Whatever goes wrong within it refuses, but for what is of `passing`, which goes on as it is."""

    __slots__ = ("_passing", "_wanted")

    def __init__(self, wanted: Wanted, *passing: type[Exception]) -> None:
        self._wanted = wanted
        self._passing = passing

    def __enter__(self) -> None:
        return

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, (Refusal, *self._passing)):
            raise _undecided(self._wanted) from error


def _undecided(wanted: Wanted) -> Refusal:
    return Refusal(403, "undecided", explain("undecided"), wanted=wanted)
