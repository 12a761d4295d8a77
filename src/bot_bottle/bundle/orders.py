"""What the keeper may order of a running bundle: another policy, renewed credentials, figures, the end.

A new policy is read and checked whole before anything of the old one is touched. Then it is in force at once, what it forbids
is ended, and only when all of that has ended it is acknowledged, by the fingerprint of what is enforced now.
"""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence

from bot_bottle.bundle.egress.context import Context
from bot_bottle.bundle.egress.engine import EngineDialer
from bot_bottle.bundle.egress.names import NoAddressLeft
from bot_bottle.bundle.egress.server import Egress
from bot_bottle.bundle.keeper import Keeper
from bot_bottle.bundle.model import BundleConfig, cannot_become
from bot_bottle.door.model import listeners_for
from bot_bottle.door.passing import receive_listeners
from bot_bottle.policy.egress import intercepted_names
from bot_bottle.policy.model import EgressPolicy
from bot_bottle.policy.sound import flaws
from bot_bottle.typed import Any

GOODBYE_SECONDS = 2.0
ENDING_SECONDS = 3.0
"""For connections that a new policy forbids to end; they need a thousandth of it."""
MOST_FLOWS = 200
"""Places with open connections that are listed in the figures; those with the most connections."""
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Refused(Exception):
    """An order that can't be followed; nothing has changed."""


class Orders:
    """`door` is where further listeners come in. `egress` and `context` are those of the running bundle."""

    def __init__(
        self, config: BundleConfig, line: Keeper, context: Context, egress: Egress, door: socket.socket
    ) -> None:
        self._config = config
        self._line = line
        self._context = context
        self._egress = egress
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._ending: asyncio.Task[None] | None = None

    def hear(self, message: Mapping[str, Any]) -> None:
        """Follows one order of the keeper's."""
        if message.get("stop") is True:
            try:
                self._context.record.flush()
                self._line.flush(GOODBYE_SECONDS)
            finally:
                os._exit(0)
        if "credentials" in message:
            self._context.credentials.replace(message["credentials"])
            self._line.tell({"credentials": True})
        elif isinstance(message.get("engine"), bool) and isinstance(self._context.dialer, EngineDialer):
            self._context.dialer.up = message["engine"]
        elif message.get("stats") is True:
            self._line.tell({"stats": self._figures()})
        elif "release" in message:
            passes = message.get("pass") is True
            self._context.asking.release(message["release"], passes=passes, reason=message.get("reason"))
        elif "policy" in message:
            self._order_policy(message)
        else:
            self._line.tell({"error": "not understood"})

    # Another policy

    def _order_policy(self, message: Mapping[str, Any]) -> None:
        further: list[socket.socket] = []
        try:
            count = int(message.get("further", 0))
            further = receive_listeners(self._door, count, 0) if count else []
            policy = self._checked(EgressPolicy.from_document(message["policy"]), further)
        except (Refused, OSError, *MALFORMED) as error:
            for sock in further:
                sock.close()
            said = str(error) if isinstance(error, (Refused, OSError)) else f"not a policy ({error!r})"
            self._line.tell({"policy_refused": said})
            return
        try:
            self._put_in_force(policy, further)
        except BaseException:  # noqa: BLE001 - half of a policy must not be enforced: then nothing is served any more
            os._exit(1)

    def _checked(self, policy: EgressPolicy, further: Sequence[socket.socket]) -> EgressPolicy:
        """The policy, if this bundle can enforce it. Raises Refused."""
        if self._ending is not None:
            raise Refused("another policy is being put in force")
        if problems := flaws(policy):
            raise Refused("; ".join(problems))
        if why := cannot_become(self._config, policy):
            raise Refused(why)
        missing = self._egress.missing(listeners_for(policy))
        if len(missing) != len(further):
            raise Refused(f"it needs {len(missing)} further listeners, and {len(further)} came")
        return policy

    def _put_in_force(self, policy: EgressPolicy, further: Sequence[socket.socket]) -> None:
        try:
            self._context.names.change(policy)
        except NoAddressLeft:
            for sock in further:
                sock.close()
            self._line.tell({"policy_refused": "there are no addresses left for its names"})
            return
        interceptor = self._context.tls.interceptor
        if interceptor is not None:
            interceptor.authority.cover(intercepted_names(policy))
        old, self._context.policy = self._context.policy, policy
        self._egress.serve(listeners_for(policy), further)
        self._context.asking.policy_changed()
        ending = self._context.live.end_forbidden(old, policy)
        if ending:
            self._ending = self._loop.create_task(self._await_end(ending))
        else:
            self._acknowledge()

    async def _await_end(self, ending: "list[asyncio.Task[None]]") -> None:
        try:
            _, left = await asyncio.wait(ending, timeout=ENDING_SECONDS)
            if left:  # something goes on that the policy forbids, and can't be ended but with everything
                os._exit(1)
            self._ending = None
            self._acknowledge()
        except BaseException:  # noqa: BLE001 - nobody would hear which policy is enforced, and none could follow it
            os._exit(1)

    def _acknowledge(self) -> None:
        self._line.tell({"policy": self._context.policy.fingerprint()})

    # Figures

    def _figures(self) -> dict[str, Any]:
        """What happened since this bundle began, and what is open now."""
        flows = sorted(self._context.live.flows(), key=lambda flow: -flow.connections)
        record = self._context.record
        return {
            "policy": self._context.policy.fingerprint(),
            "seconds": round(self._loop.time() - self._began, 3),
            "open": len(self._context.live),
            "decisions": [[kind, reason, count] for (kind, reason), count in record.counts.items()],
            "up": record.up + sum(flow.up for flow in flows),
            "down": record.down + sum(flow.down for flow in flows),
            "flows": [list(flow) for flow in flows[:MOST_FLOWS]],
        }
