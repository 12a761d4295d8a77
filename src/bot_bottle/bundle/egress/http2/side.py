"""One end of an HTTP/2 connection over a wire: `h2` keeps the protocol's state, here is what waits, and what bounds it.

What comes is acknowledged only when it has gone on, so a stream holds at most its window, and what waits to be written is
bounded for the whole connection. Whoever sends more of what costs nothing than anybody needs is shown out.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from bot_bottle.bundle.egress.heads import Headers
from bot_bottle.bundle.egress.http2.frames import (
    GOAWAY,
    MAX_FRAME,
    PREFACE,
    BadFrames,
    Calm,
    Flood,
    Frame,
    Frames,
)
from bot_bottle.bundle.egress.http2.stream import Stream
from bot_bottle.bundle.egress.wire import Transport, Wire
from bot_bottle.bundle.model import BundleLimits
from bot_bottle.errors import described

STREAMS = 100
"""Open at once on one connection."""
_STREAM_WINDOW, _CONNECTION_WINDOW = 128 * 1024, 512 * 1024
_DEFAULT_WINDOW = 65535
_PATIENCE = 2
"""Times as long as a single stream may be idle, whoever serves that."""
_READ = 16 * 1024
_MOST_UNSENT = 128 * 1024
_MOST_STREAMS = 10_000
"""Over a connection's life: what is kept of each is little, but it is kept."""
_MOST_INTERIM = 16
_MOST_TABLE = 4096
"""Bytes of what was sent that are remembered to send it shorter; the other side may want more."""
P = ParamSpec("P")


class Side:
    """`opened` is called for each stream that the other side opens; a client has none."""

    def __init__(
        self, transport: Transport, limits: BundleLimits, *, opened: Callable[[Stream], None] | None = None
    ) -> None:
        client = opened is None
        self.wire = Wire(transport, idle=_PATIENCE * limits.idle_seconds)
        self.streams: dict[int, Stream] = {}
        self.going = False
        """Whether no further stream can be opened."""
        self.trouble = ""
        """Why it ended, if it was not in order."""
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(from_client=not client)
        self._calm = Calm(self._loop.time)
        self._unsent = bytearray()
        self._ending = False
        self._lost = False
        self._writing = False
        self._seen = 0
        self._interim: dict[int, int] = {}
        self._to_write: asyncio.Future[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._h2 = _connection(client=client, head_bytes=limits.head_bytes)
        self._h2.initiate_connection()
        if not client:
            self._h2.receive_data(PREFACE)  # whether it came is seen below
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW - _DEFAULT_WINDOW)
        self._flush()

    async def run(self) -> None:
        """Until it ends, for whatever reason; its streams are broken off then. The wire is closed."""
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._lost = self.going = True
            for stream in list(self.streams.values()):
                stream.broken(None)
            self._notify()
            for task in tasks:
                task.cancel()
            for failure in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(failure, Exception) and not isinstance(failure, (OSError, TimeoutError)):
                    self.trouble = self.trouble or described(failure)
            await self._say_last()

    def end(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Ends the connection in order, with everything on it, once what is to be written was written."""
        if not self._ending:
            self._ending = self.going = True
            self._goaway(code)

    def retire(self) -> None:
        """Lets no further stream be opened, and ends when the last of those that are open has."""
        if not self.going:
            self.going = True
            self._goaway(ErrorCodes.NO_ERROR)
        if not self.streams:
            self.end()

    # What a stream needs

    async def open(self, headers: Headers, *, ended: bool) -> Stream:
        """A new stream with this head, once the other side has room for one more. Raises ConnectionError."""
        while True:
            self._check()
            if self._h2.open_outbound_streams < self._h2.remote_settings.max_concurrent_streams:
                break
            await self._changed()
        number = self._h2.get_next_available_stream_id()
        stream = self.streams[number] = Stream(self, number)
        await stream.send_head(headers, ended=ended)
        return stream

    def send_head(self, stream: Stream, headers: Headers, *, ended: bool) -> None:
        self._act(self._h2.send_headers, stream.number, headers, end_stream=ended)

    def send_data(self, stream: Stream, data: bytes, *, ended: bool) -> None:
        self._act(self._h2.send_data, stream.number, data, end_stream=ended)
        self._calm.sent_data()

    def room_for(self, stream: Stream) -> int:
        """How many bytes of data can be sent on it at once."""
        self._check()
        try:
            return min(self._h2.local_flow_control_window(stream.number), MAX_FRAME)
        except ProtocolError as error:
            raise ConnectionAbortedError("the stream is closed") from error

    def acknowledge(self, stream: Stream, size: int) -> None:
        if size:
            self._try(self._h2.acknowledge_received_data, size, stream.number)

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        self._try(self._h2.reset_stream, stream.number, code)

    def forget(self, stream: Stream, *, finished: bool) -> None:
        """Nobody waits for anything of `stream` any more; `finished`: everything in both directions was said."""
        if finished:
            self._calm.finished()
        self.streams.pop(stream.number, None)
        self._interim.pop(stream.number, None)
        self._notify()
        if self.going and not self.streams and not self._lost:
            self.end()

    async def written(self) -> None:
        """Waits until little enough is left to be written. Raises ConnectionError."""
        while len(self._unsent) > _MOST_UNSENT:
            self._check()
            await self._changed()

    async def _changed(self) -> None:
        future = self._loop.create_future()
        self._waiting.append(future)
        await future

    def _notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _check(self) -> None:
        if self._lost or self._ending:
            raise ConnectionAbortedError("the connection has ended")

    def _try(self, action: Callable[P, None], *args: P.args, **more: P.kwargs) -> None:
        try:
            self._act(action, *args, **more)
        except ConnectionError:  # then there is nobody to whom it matters
            pass

    def _act(self, action: Callable[P, None], *args: P.args, **more: P.kwargs) -> None:
        """Raises ConnectionError when the stream or the connection is not in a state for it."""
        self._check()
        try:
            action(*args, **more)
        except ProtocolError as error:
            raise ConnectionAbortedError("the stream is closed") from error
        finally:
            self._flush()

    def _flush(self) -> None:
        self._unsent += self._h2.data_to_send()
        if self._to_write is not None and not self._to_write.done():
            self._to_write.set_result(None)

    def _goaway(self, code: ErrorCodes) -> None:
        """Not through `h2`, which would take it for the end of everything that is under way."""
        frame = GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id, error_code=code)
        self._flush()
        self._unsent += frame.serialize()
        self._flush()

    # The two directions

    async def _write(self) -> None:
        while True:
            if not self._unsent:
                if self._ending:
                    return
                self._to_write = self._loop.create_future()
                await self._to_write
                continue
            data = bytes(self._unsent)
            self._unsent.clear()
            self._writing = True
            await self.wire.write(data)
            self._writing = False
            self._notify()

    async def _say_last(self) -> None:
        """Writes what is left, if that goes at once, and closes."""
        if self._writing:
            self.wire.abort()  # what it has is cut somewhere
            return
        try:
            async with asyncio.timeout(2):
                if self._ending and self._unsent:
                    await self.wire.write(bytes(self._unsent))
                await self.wire.finish()
        except (OSError, TimeoutError):
            self.wire.abort()

    async def _read(self) -> None:
        try:
            while data := await self.wire.some(_READ):
                for frame in self._frames.feed(data):
                    self._take(frame)
                self._flush()
                await self.written()
                await asyncio.sleep(0)  # one that always has something would let nobody else run
        except Flood:
            self.trouble = "flood"
            self.end(ErrorCodes.ENHANCE_YOUR_CALM)
        except (BadFrames, ProtocolError) as error:
            self.trouble = f"malformed: {type(error).__name__}"
            self.end(ErrorCodes.PROTOCOL_ERROR)
        except ValueError as error:  # of a parser below: what it did not expect is nobody's frame
            self.trouble = f"malformed: {type(error).__name__}"
            self.end(ErrorCodes.PROTOCOL_ERROR)

    def _take(self, frame: Frame) -> None:
        self._calm.came(frame)
        if frame.kind == GOAWAY:
            self._other_goes(frame.payload)
            return
        for event in self._h2.receive_data(frame.data):
            self._happened(event)

    def _other_goes(self, payload: bytes) -> None:
        """The other side opens or takes no further streams; what it has is finished."""
        if len(payload) < 8:
            raise BadFrames("a malformed end")
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        self.going = True
        if self._opened is None:
            for number, stream in list(self.streams.items()):
                if number > last:
                    stream.broken(ErrorCodes.REFUSED_STREAM)
        self._notify()
        if not self.streams:
            self.end()

    def _happened(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._new_stream(event)
        elif isinstance(event, WindowUpdated):
            self._opened_window(event.stream_id or 0)
        elif isinstance(event, RemoteSettingsChanged):
            self._h2.encoder.header_table_size = min(self._h2.encoder.header_table_size, _MOST_TABLE)
            self._opened_window(0)
            self._notify()
        elif isinstance(event, StreamReset):
            self._reset(event)
        elif isinstance(event, InformationalResponseReceived):
            self._interim[event.stream_id] = self._interim.get(event.stream_id, 0) + 1
            if self._interim[event.stream_id] > _MOST_INTERIM:
                raise BadFrames("too many interim responses")
        elif isinstance(event, (ResponseReceived, TrailersReceived, DataReceived, StreamEnded)):
            self._came(event)

    def _came(self, event: ResponseReceived | TrailersReceived | DataReceived | StreamEnded) -> None:
        stream = self.streams.get(event.stream_id)
        if isinstance(event, DataReceived):
            if stream is None:  # it was given up here, and the other side does not know yet
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                stream.came_data(event.data, event.flow_controlled_length)
        elif stream is None:
            return
        elif isinstance(event, ResponseReceived):
            stream.came_head(list(event.headers))
        elif isinstance(event, TrailersReceived):
            stream.trailers = list(event.headers)
        else:
            stream.came_end()

    def _new_stream(self, event: RequestReceived) -> None:
        self._seen += 1
        stream = Stream(self, event.stream_id)
        if self.going or self._opened is None:
            self._h2.reset_stream(stream.number, ErrorCodes.REFUSED_STREAM)
            self._calm.reset()
            return
        self.streams[stream.number] = stream
        stream.came_head(list(event.headers))
        if self._seen >= _MOST_STREAMS:
            self.retire()
        self._opened(stream)

    def _reset(self, event: StreamReset) -> None:
        """Whoever caused it: a stream that is opened to be reset at once is work for nothing, here and at the upstream."""
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.broken(_code(event.error_code))
        self._calm.reset()

    def _opened_window(self, number: int) -> None:
        for stream in [self.streams.get(number)] if number else list(self.streams.values()):
            if stream is not None:
                stream.more_room()


def _connection(*, client: bool, head_bytes: int) -> H2Connection:
    connection = H2Connection(H2Configuration(client_side=client, header_encoding=None))
    settings = {
        SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
        SettingCodes.MAX_HEADER_LIST_SIZE: head_bytes,
        SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
    }
    if client:
        settings[SettingCodes.ENABLE_PUSH] = 0
    connection.local_settings = Settings(client=client, initial_values=settings)
    connection.decoder.max_header_list_size = head_bytes
    return connection


def _code(number: int | None) -> ErrorCodes:
    try:
        return ErrorCodes(number or 0)
    except ValueError:
        return ErrorCodes.INTERNAL_ERROR
