"""The messages of one WebSocket: which of them are looked at, how they are carried, and what is recorded of their end."""

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.denial import Refusal
from bot_bottle.bundle.egress.held import Held
from bot_bottle.bundle.egress.hooks import Filter
from bot_bottle.bundle.egress.websocket.looking import Looking, Passing, Starring, Through
from bot_bottle.bundle.egress.websocket.relay import relay
from bot_bottle.bundle.egress.wire import Wire
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import Route


class Messages:
    """What will be done with the messages to and from one place. Made before anything goes there; raises Refusal."""

    def __init__(self, context: Context, wanted: Wanted, route: Route) -> None:
        self._context = context
        self._wanted = wanted
        self._route = route
        self._limit = context.look.message_limit(wanted, route)
        self._stars = context.look.reflection(route) is not None

    @property
    def readable(self) -> bool:
        """Whether they have to be uncompressed, as somebody here reads them."""
        return self._limit is not None or self._stars

    async def carry(self, via: str, agent: Wire, upstream: Wire, *, deflate: bool) -> str:
        """Carries them until the end, and says how that came."""
        held = Held(self._wanted, self._limit or 0)
        up: Through = Passing() if self._limit is None else Looking(self._look, self._limit, held)
        down: Through = Starring(self._filter) if self._stars else Passing()
        try:
            async with held.coming():
                end = await relay(agent, upstream, up=up, down=down, deflate=deflate)
        except Refusal as refusal:
            self._context.refused(via, refusal.reason, self._wanted)
            agent.abort()
            return refusal.reason
        finally:
            held.nothing()
        if end.refused is not None:
            self._context.refused(via, end.refused.reason, self._wanted, **end.refused.what)
        elif end.reason == "bad_frame":
            self._context.refused(via, end.reason, self._wanted, detail=end.detail)
        elif end.reason == "upstream_malformed":
            self._context.failed(via, end.reason, self._wanted, detail=end.detail)
        return end.reason

    async def _look(self, data: bytes) -> bytes:
        return await self._context.look.at_message(data, self._wanted, self._route)

    def _filter(self) -> Filter:
        made = self._context.look.reflection(self._route)
        return made if made is not None else _Nothing()


class _Nothing:
    """For a route whose credential went away meanwhile."""

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""
