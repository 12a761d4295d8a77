"""The two directions of a WebSocket after the switch: frames read strictly, looked at where that is wanted, and written anew.

Nothing but well-formed frames goes either way. The end of one side's connection is the end of both; a proper one is that each
has said Close.
"""

import asyncio

from bot_bottle.bundle.egress.denial import Refusal
from bot_bottle.bundle.egress.held import turn
from bot_bottle.bundle.egress.websocket.frames import BadFrame, FrameReader, close, written
from bot_bottle.bundle.egress.websocket.looking import Looking, Through
from bot_bottle.bundle.egress.wire import Wire
from bot_bottle.typed import NamedTuple

_PIECE = 32 * 1024
_GOING_AWAY, _MALFORMED, _REFUSED, _FAILED = 1001, 1002, 1008, 1011


class End(NamedTuple):
    """How it ended: `done`, `reset`, `idle`; `bad_frame` of the agent's or `upstream_malformed`, or what was `refused`."""

    reason: str
    refused: Refusal | None = None
    detail: str = ""


class _Direction:
    """From `source` to `target`, whose frames are masked or not."""

    def __init__(
        self, source: Wire, target: Wire, through: Through, *, from_agent: bool, deflate: bool
    ) -> None:
        self._source = source
        self._target = target
        self._through = through
        self._mask = from_agent
        self._reader = FrameReader(masked=from_agent, deflate=deflate)
        self._writing = False
        self.ended = False

    async def run(self) -> bool:
        """Until the source has said Close (then True), or ended without a word."""
        while data := await self._source.some(_PIECE):
            made = bytearray()
            if isinstance(self._through, Looking):
                await turn(self._through.waits + len(data))
            for item in self._reader.feed(data):
                for one in await self._through.take(item):
                    made += written(one, mask=self._mask)
            if made:
                await self._write(bytes(made))
            if self._reader.closed:
                self.ended = True
                return True
            await asyncio.sleep(0)  # two sides that are always ready would let nobody else run
        return False

    async def say_last(self, code: int, text: str = "") -> None:
        """Ends the target with a Close, unless it was said before or can't be said any more."""
        if self._writing:
            self._target.abort()  # it has the beginning of a frame
            return
        try:
            if not self.ended:
                await self._write(written(close(code, text), mask=self._mask))
        except (OSError, TimeoutError):
            self._target.abort()
            return
        await self._target.finish()

    async def _write(self, data: bytes) -> None:
        self._writing = True
        await self._target.write(data)
        self._writing = False


async def relay(agent: Wire, upstream: Wire, *, up: Through, down: Through, deflate: bool) -> End:
    """Carries messages until the end of either side, and ends both."""
    to_upstream = _Direction(agent, upstream, up, from_agent=True, deflate=deflate)
    to_agent = _Direction(upstream, agent, down, from_agent=False, deflate=deflate)
    end, code = await _both(to_upstream, to_agent)
    text = end.refused.reason if end.refused else end.reason if code else ""
    await asyncio.gather(to_agent.say_last(code or _GOING_AWAY, text), to_upstream.say_last(_GOING_AWAY))
    return end


async def _both(up: _Direction, down: _Direction) -> tuple[End, int]:
    """How it ended, and the code with which the agent is told; 0: nothing special."""
    tasks = [asyncio.ensure_future(direction.run()) for direction in (up, down)]
    try:
        for first in asyncio.as_completed(tasks):
            if not await first:
                break
    except Refusal as refusal:
        return End("refused", refusal), _REFUSED
    except BadFrame as error:
        by_agent = tasks[0].done() and isinstance(tasks[0].exception(), BadFrame)
        reason, code = ("bad_frame", _MALFORMED) if by_agent else ("upstream_malformed", _FAILED)
        return End(reason, detail=str(error)), code
    except TimeoutError:
        return End("idle"), _GOING_AWAY
    except OSError:
        return End("done" if up.ended or down.ended else "reset"), 0
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return End("done"), 0
