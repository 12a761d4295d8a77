"""The inbox as a page in the operator's browser, on loopback: what waits, what it would change, the answer. Thin over `Desk`."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from bot_bottle.operate.approvals import Desk


def serve(
    open_desk: Callable[[], AbstractContextManager[Desk]],
    *,
    announce: Callable[[str], None],
    port: int = 0,
    browse: bool = False,
) -> None:
    """Serves the page until Ctrl-C or SIGTERM; `announce` is told the one-time link and what else the operator must know.

    `port` 0 takes a free one; `browse` opens the link in a browser. `open_desk` is called by the threads that use a desk: one
    looks, one decides. Raises HostError when the port can't be had, and what opening a desk raises.
    """
    from bot_bottle.web.server import Service

    with open_desk():
        pass  # what is wrong with it is said at once
    with Service(open_desk, port=port, announce=announce) as service:
        service.run(browse=browse)
