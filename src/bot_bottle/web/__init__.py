"""The inbox as a page in the operator's browser, on loopback: what waits, what it would change, the answer. Thin over `Desk`."""

from collections.abc import Callable

from bot_bottle.operate.approvals import Desk


def serve(desk: Desk, *, announce: Callable[[str], None], port: int = 0, browse: bool = False) -> None:
    """Serves the page until Ctrl-C or SIGTERM; `announce` is told the one-time link and what else the operator must know.

    `port` 0 takes a free one; `browse` opens the link in a browser. `desk` is used by one thread, which is not the caller's.
    Raises HostError when the port can't be had.
    """
    from bot_bottle.web.server import Service

    with Service(desk, port=port, announce=announce) as service:
        service.run(browse=browse)
