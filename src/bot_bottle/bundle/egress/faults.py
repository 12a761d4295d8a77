"""What becomes of a fault above which no task stands: its connection ends, an event says so, and everything else goes on.

Such a fault is one in a callback of the loop's (a timer, a reader, the end of a task) or in a function that the selector calls
by itself. Left alone, the first would be said on stderr, which nobody reads, and its connection would stay as it is; the second
would end the loop, and with it every connection. Whose connection it was is known by the context that the callback was made in.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context

from bot_bottle.bundle.egress.live import whose
from bot_bottle.bundle.record import Record
from bot_bottle.errors import described
from bot_bottle.typed import Any

INTERNAL = "internal"
_VIA = "bundle"


class Faults:
    """Takes those of one bottle's bundle. `recorded` makes the agent's words fit for the record, and does not raise."""

    def __init__(self, record: Record, recorded: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._record = record
        self._recorded = recorded

    def in_loop(self, _: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        """As the loop's exception handler."""
        self.happened(told.get("exception"), getattr(told.get("handle"), "_context", None))
        told.clear()  # the error's frames hold it, and it the error: whatever was open there would stay open for a while

    def happened(self, error: BaseException | None, variables: Context | None) -> None:
        """Ends the connection that `variables` belong to, if they do to one, and reports `error`. Does not raise."""
        connection = whose(variables)
        asked = {}
        if connection is not None:
            if connection.decision is not None:
                asked = connection.decision.wanted.place.asked()
            try:
                connection.end(INTERNAL)
            except Exception:  # noqa: BLE001 - what ends it in order may be what is broken: then its task does
                connection.leave(INTERNAL)
        data = {"via": _VIA, **asked, "reason": INTERNAL, "detail": described(error)}
        try:
            self._record.event("egress.failed", self._recorded(data))
        except Exception:  # noqa: BLE001 - there is nobody left to say it to; without a record nothing is let through either
            return
