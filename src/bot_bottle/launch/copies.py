"""The end of a workspace's copy: its changes are kept, then it is removed. For runs that ended and for those that died."""

from bot_bottle.provision import changes
from bot_bottle.state.model import RunRecord


def put_away(record: RunRecord) -> bool:
    """Saves what the agent changed and removes the copy; whether there is anything to show. Does nothing the second time.

    The copy is only removed once its changes are on the disk. Raises HostError.
    """
    saved = changes.save(record)
    changes.remove_copy(record)
    return bool(saved and saved.patch)
