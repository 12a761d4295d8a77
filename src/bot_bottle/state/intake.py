"""How an event is written down so that it reads back exactly as it was chained."""

import json
import math
from collections.abc import Mapping

from bot_bottle.errors import StateError
from bot_bottle.events import NewEvent
from bot_bottle.typed import Any


def text_of(data: Mapping[str, Any]) -> str:
    """The one text that stands for `data`: ASCII JSON, keys sorted, no spaces."""
    return json.dumps(dict(data), sort_keys=True, separators=(",", ":"), allow_nan=False)


def settled(event: NewEvent) -> NewEvent:
    """The event as it will be read back. Raises StateError for what can't be written down."""
    try:
        data = json.loads(text_of(event.data))
        again = text_of(data)
        (event.run + event.kind).encode()
        at = float(event.at) + 0.0
        fit = math.isfinite(at) and json.loads(again) == data
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StateError(
            "An event can't be recorded", details=f"{event.kind} of {event.run}: {error}"
        ) from error
    if not fit:
        raise StateError(
            "An event can't be recorded", details=f"{event.kind} of {event.run} does not read back as it is"
        )
    return NewEvent(event.run, at, event.kind, data)
