"""Where others have a say in a request that the policy allows: the shapes of what they are asked and answer.

The order is fixed: judged, looked at by the guard (head, then body), sent on with the credential put in, answered through the
guard's filters. The guard sees what the agent sent, never the injected credential.
"""

from bot_bottle.bundle.egress.heads import Body, Headers
from bot_bottle.bundle.egress.pardon import Pardon, Passed
from bot_bottle.bundle.egress.wire import Wire
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import Route
from bot_bottle.typed import NamedTuple, Protocol


class Head(NamedTuple):
    """A request's target (origin form) and fields as they go on."""

    target: bytes
    headers: Headers


class Filter(Protocol):
    """Changes a stream of bytes without changing its length; `feed` may hold some back, `end` gives those."""

    def feed(self, data: bytes, /) -> bytes: ...
    def end(self) -> bytes: ...


class Guard(Protocol):
    """Looks for what must not leave, and hides in responses what must not come back. Raises Refusal; anything else that it
    raises refuses, too."""

    def host(self, name: str) -> str:
        """Why the name of a host below a wildcard is not to be reached; empty when there is no reason."""
        ...

    def shown(self, text: str) -> str:
        """The agent's text as it may stand in the record."""
        ...

    def head(
        self, wanted: Wanted, route: Route, method: str, target: bytes, headers: Headers, passed: Passed
    ) -> Head:
        """The head as it may go on, with the secrets in `passed` left in it. Raises SecretHeld for what a person may let go."""
        ...

    def before_body(self, framing: Body, headers: Headers, wanted: Wanted, route: Route) -> None:
        """What can be said before the agent was asked for the body."""
        ...

    async def body(
        self, agent: Wire, framing: Body, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes | None:
        """The whole body, read from `agent`, as it may go on; None when it is to be streamed, and then nothing was read."""
        ...

    async def collected(
        self, data: bytes, headers: Headers, wanted: Wanted, route: Route, pardon: Pardon
    ) -> bytes:
        """The same of a body that was read already."""
        ...

    async def whole(self, data: bytes, headers: Headers, wanted: Wanted, route: Route) -> bytes:
        """One message of a body, with the fields that say how it is packed, as it may go on."""
        ...

    def message_limit(self, route: Route) -> int | None:
        """Up to which size messages are to be given to `frame`; None: they can go on unseen."""
        ...

    async def frame(self, data: bytes, wanted: Wanted, route: Route) -> bytes:
        """One whole message of a connection that carries messages, as it may go on. Of one that is longer than the limit the
        beginning, longer than the limit as well: if it may go on, then as it is, and its rest with it."""
        ...

    def reflection(self, route: Route) -> Filter | None:
        """What the response to a request on `route` is led through; one for its head, another one for its body."""
        ...
