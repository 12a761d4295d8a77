"""The process's life: given its bottle's token and listener by the keeper, confined, serving, and gone when nobody asks.

It is a program of its own and no fork of the keeper, whose memory holds the bottle's secrets: nothing of them comes here. It ends
when the keeper does, or ends its line. What is said on that line stands in `docs/supervise.md`.
"""

import gc
import json
import os
import signal
import socket
from typing import NamedTuple, NoReturn

from bot_bottle.bundle import confine, linux

FILTER = "supervise"
"""Which seccomp filter it gets: it opens no connection at all."""
MEMORY = 384 << 20
"""Bytes of memory of its own; it has a tenth of it."""
_FILES_AT_ONCE = 256
_LONGEST = 64 * 1024


class Order(NamedTuple):
    """The first line that the keeper says. `uid` and `gid` are taken on when it is root; `port` is the listener's, inside."""

    keeper: int
    token: str
    uid: int
    gid: int
    port: int
    hold: float
    progress: float = 10.0
    idle: float = 60.0
    request: float = 10.0
    reading: float = 30.0


def serve(listener: int, keeper: int) -> NoReturn:
    """Serves on the descriptor `listener`, told by `keeper`; ends the process."""
    line = socket.socket(fileno=keeper)
    try:
        order = _told(line)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        from bot_bottle.bundle.supervise import lean

        lean.load()
        _run(order, socket.socket(fileno=listener), line)
    except BaseException as error:  # noqa: BLE001 - the end of the process: whatever it was, nothing is served any more
        _say_failed(line, error)
    finally:
        os._exit(1)


def _told(line: socket.socket) -> Order:
    heard = b""
    while not heard.endswith(b"\n"):
        data = line.recv(4096)
        if not data or len(heard) > _LONGEST:
            os._exit(0)
        heard += data
    return Order(**json.loads(heard))


def _run(order: Order, listener: socket.socket, line: socket.socket) -> None:
    import asyncio

    from bot_bottle.bundle.keeper import Keeper
    from bot_bottle.bundle.supervise import server, warm
    from bot_bottle.bundle.supervise.calls import Calls
    from bot_bottle.bundle.supervise.front import Front, Patience

    async def live() -> None:
        program = confine.load_filter(FILTER)
        await warm.up(server.make_app, order.port)
        talk = Keeper(line, lambda message: calls.hear(message))
        calls = Calls(talk.tell)
        asked = server.Asked(calls, server.Holding(order.hold, order.progress))
        app = server.make_app(asked, token=order.token, port=order.port)
        front = Front(app, Patience(order.request, order.reading, order.idle))
        front.config.load()
        confined = _confine(order, program)
        gc.collect()
        gc.freeze()
        await front.run_on(listener, begun=lambda: talk.tell({"ready": True, "confined": confined}))
        talk.tell({"idle": True})
        talk.flush(1.0)

    asyncio.run(live())
    os._exit(0)


def _confine(order: Order, program: bytes) -> dict[str, object]:
    """Gives up what serving does not need; answers what is in force."""
    confine.limit_process(_FILES_AT_ONCE)
    confine.limit_memory(MEMORY)
    confine.drop_root(order.uid, order.gid)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # forgotten by the kernel when the user changed
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    if os.getppid() != order.keeper:
        os._exit(0)
    return confine.confine(program, readable=())


def _say_failed(line: socket.socket, error: BaseException) -> None:
    try:
        line.settimeout(1.0)
        line.sendall(json.dumps({"failed": f"{type(error).__name__}: {error}"[:1000]}).encode() + b"\n")
    except OSError:
        return
