"""One websocket of the server: reads ahead like the gateway, answers, and drops the connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from .hooks import Drop, Hooks
from .wire import (
    INTERNAL,
    NOT_FOUND,
    UNAUTHENTICATED,
    UNKNOWN,
    ClientMessage,
    FrameStyle,
    GatewayError,
    MessageReader,
    SpeechConfig,
    StatusError,
    check_config,
    check_first,
    check_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backend import Backend
    from .record import ConnectionRecord

logger = logging.getLogger(__name__)

# The one method that answers over a websocket.
STREAMING_PATH = "/v2beta1/speech:streamingrecognize"
# For HTTP only; over a websocket it is mute.
UNARY_PATH = "/v2beta1/speech:recognize"
# Bytes of client frames taken in while the backend does not keep up; then the client's send blocks.
READ_AHEAD_BYTES = 10_000_000
# Bytes that a message counts for at least: it takes memory, and time to be taken up.
SMALLEST_MESSAGE_BYTES = 1024
# Bytes; the gateway reads its own lines through a 64 KiB buffer, and a longer one ends it all.
LONGEST_LINE = 65_532


class HalfClose:
    """The client has closed, or the gateway has stopped reading it."""


Incoming = ClientMessage | GatewayError | HalfClose


class Inbox:
    """Client messages between the reader and the backend, bounded by their bytes."""

    def __init__(self) -> None:
        self._items: deque[tuple[Incoming, int, float]] = deque()
        self._bytes = 0
        self.arrived_at = 0.0
        """When the item that was taken last was added, in seconds of the event loop's clock."""
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()

    async def put(self, item: Incoming, size: int = 0) -> None:
        """Add an item, then wait until there is room for more."""
        size = max(size, SMALLEST_MESSAGE_BYTES)
        self._items.append((item, size, asyncio.get_running_loop().time()))
        self._bytes += size
        self._arrived.set()
        while self._bytes > READ_AHEAD_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    async def get(self) -> Incoming:
        """Take the oldest item, waiting for one."""
        while not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        item, size, self.arrived_at = self._items.popleft()
        self._bytes -= size
        self._has_room.set()
        return item


class Conversation:
    """Speaks with one client from its first message to the end of the connection."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        connection: ConnectionRecord,
        *,
        style: FrameStyle,
        hooks: Hooks,
        key: str | None,
        known: Callable[[str], bool],
        backend: Callable[[SpeechConfig], Backend],
    ) -> None:
        self._websocket = websocket
        self._connection = connection
        self._style = style
        self._hooks = hooks
        self._key = key
        self._known = known
        self._open_backend = backend
        self._inbox = Inbox()
        self._messages = MessageReader()
        self._is_under_way = False

    async def run(self) -> None:
        """Return when nothing more will be said; the caller drops the connection."""
        reader = asyncio.create_task(
            self._read(), name=f"tiro-server-read-{self._connection.number}"
        )
        try:
            await self._talk()
        except StatusError as error:
            await self._fail(error)
        except Drop:
            pass
        except Exception:
            logger.exception("a recogniser or a hook of the local server failed")
            await self._fail(StatusError(INTERNAL, "the recogniser failed"))
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _talk(self) -> None:
        """Answer the client, until that is done or what runs beside it fails."""
        number = self._connection.number
        beside = asyncio.create_task(
            self._hooks.beside(self._connection), name=f"tiro-server-beside-{number}"
        )
        answer = asyncio.create_task(self._answer(), name=f"tiro-server-answer-{number}")
        tasks = {beside, answer}
        try:
            while not answer.done():
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            await self._hooks.done(self._connection)
        finally:
            beside.cancel()
            answer.cancel()
            await asyncio.gather(beside, answer, return_exceptions=True)

    async def _read(self) -> None:
        """Read the client to its end, also when nobody wants its audio any more."""
        ended = False
        while True:
            frame = await self._websocket.receive()
            if frame.type is aiohttp.WSMsgType.PING:
                await self._connection.line.pong(frame.data)
                continue
            if frame.type is aiohttp.WSMsgType.PONG:
                continue
            if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._connection.closed_by = self._connection.closed_by or "client"
                self._connection.line.lost()
                await self._inbox.put(HalfClose())
                return
            if not ended:
                ended = await self._take(frame.data)

    async def _take(self, data: str | bytes) -> bool:
        """Take in a frame. Return whether the audio has ended: nothing is looked at after that."""
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        try:
            for message in self._messages.feed(text):
                await self._inbox.put(message, len(message.audio or b""))
                if self._is_under_way and _end_of(message) is not None:
                    return True
                self._is_under_way = True
        except GatewayError as error:
            await self._inbox.put(error)
            return True
        return False

    async def _answer(self) -> None:
        await self._hooks.opened(self._connection)
        first = await self._next()
        if isinstance(first, HalfClose):
            return
        if self._connection.path == UNARY_PATH:
            await self._stay_mute()
            return
        if self._connection.path != STREAMING_PATH:
            self._connection.status = NOT_FOUND
            await self._send(self._style.not_found())
            return
        if isinstance(first, GatewayError):
            self._connection.status = UNKNOWN
            await self._send(self._style.gateway_error(str(first)))
            return
        backend = await self._accept(first)
        try:
            await self._recognize(backend)
        finally:
            await backend.close()

    async def _next(self) -> Incoming:
        """Take up what the client sent next."""
        message = await self._inbox.get()
        self._connection.arrived_at = self._inbox.arrived_at
        return message

    async def _stay_mute(self) -> None:
        """Wait for the end of the request's body, which is the end of the connection."""
        while not isinstance(await self._inbox.get(), HalfClose):
            pass

    async def _accept(self, first: ClientMessage) -> Backend:
        """Return the backend for a first message, once it has passed every check."""
        if first.config is not None:
            self._connection.speech = first.config
        await self._hooks.first_message(self._connection)
        if self._key is not None and self._connection.token != self._key:
            raise StatusError(UNAUTHENTICATED, "the API key is missing or not valid")
        config = check_first(first)
        check_config(config, known_language=self._known(config.language))
        return self._open_backend(config)

    async def _recognize(self, backend: Backend) -> None:
        while not backend.done:
            message = await self._next()
            end = _end_of(message)
            if end is None and isinstance(message, ClientMessage) and message.audio is not None:
                await self._send_all(backend, await self._hear(backend, message.audio))
                while (frames := await backend.go_on()) is not None:
                    await self._send_all(backend, frames)
            else:
                self._connection.end = end
                await self._hooks.end(self._connection)
                while (frames := await backend.hear_out()) is not None:
                    await self._send_all(backend, frames)
                frames = await backend.end(hung_up=end == "half-close")
                await self._send_all(backend, frames)
            # Decoding never waits by itself, so give the other connections their turn.
            await asyncio.sleep(0)

    async def _send_all(self, backend: Backend, frames: list[str]) -> None:
        for frame in frames:
            await self._send(frame, backend.delivered)

    async def _hear(self, backend: Backend, pcm: bytes) -> list[str]:
        await self._hooks.audio(self._connection, pcm)
        check_size(pcm)
        self._connection.add_audio(pcm)
        return await backend.audio(pcm)

    async def _send(self, text: str, delivered: Callable[[], None] = lambda: None) -> None:
        """Send a frame; the backend does its work also for a client that has gone."""
        changed = await self._hooks.frame(self._connection, text)
        if changed is None:
            return
        if len(changed.encode()) > LONGEST_LINE:
            raise Drop
        if await self._connection.line.send(changed):
            self._connection.add_frame(changed)
            delivered()
            await self._hooks.sent(self._connection, changed)

    async def _fail(self, error: StatusError) -> None:
        self._connection.status = error.code
        with contextlib.suppress(Drop):
            await self._send(self._style.error(error))


def _end_of(message: Incoming) -> str | None:
    """Return how the message ends the audio, None if it is audio; all else ends it."""
    if not isinstance(message, ClientMessage):
        return "half-close"
    if message.config is not None:
        return "streaming_config"
    if message.audio is None:
        return "empty message"
    if message.audio == b"END":
        return "END"
    return None if message.audio else "audio_content"
