"""One websocket to the service: open, send, receive, close. Nothing here outlives it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

import aiohttp

from livekit.agents import APIError, utils

from . import errors, protocol
from .log import logger

if TYPE_CHECKING:
    from .options import Options
    from .protocol import Response

    _WebSocket = aiohttp.ClientWebSocketResponse[bool]

# s without a frame after which the peer is asked for a sign of life. While it answers, this also
# says how far the audio has got.
_PING_AFTER = 2.0
# s for the close frame to leave: a peer that does not read must not hold up `aclose`.
_CLOSE_TIMEOUT = 0.5
# Bytes; the gateway cuts lines at 64 KiB, so a longer one is not the service's.
_MAX_MESSAGE = 4 * 1024 * 1024


def new_session() -> aiohttp.ClientSession:
    """Return an HTTP session for use outside a LiveKit job; whoever made it closes it."""
    return aiohttp.ClientSession(trust_env=True)


class Connection:
    """An open websocket, and what is known of the session on it."""

    def __init__(self, ws: _WebSocket, opened_in: float) -> None:
        self.id = utils.shortuuid("tiro_")
        """A name for this connection; the service gives none."""
        self.opened_in = opened_in
        """Seconds that it took to open."""
        self.opened_at = time.monotonic()
        self.last_message_at = self.opened_at
        """When it last said something; monotonic seconds."""
        self.sent_at = self.opened_at
        """When the end marker was sent, or no more could be; monotonic seconds."""
        self.configured: Options | None = None
        """What the config said, once it is sent."""
        self.ended = False
        """Whether the end marker is sent."""
        self.last_response: Response | None = None
        """What it said last, errors left out."""
        self.reached = 0
        """The position of the audio that the peer is known to have got, as `ping` was told it."""
        self.unanswered = 0.0
        """Seconds of audio that may be speech since it last said something."""
        self.watched_at = self.opened_at
        """When the stream last looked after it; monotonic seconds."""
        self.watched_to = 0
        """The position of the audio up to which it looked."""
        self._alive_at = self.opened_at
        self._pinging: asyncio.Task[bool] | None = None
        self._ping_position = 0
        self._begun: _Begun | None = None
        self._ws = ws

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, options: Options, timeout: float
    ) -> Connection:
        """Connect within `timeout` seconds.

        Raises:
            APIStatusError: The service refused the handshake.
            APITimeoutError: It did not answer in time.
            APIConnectionError: It could not be reached.
        """
        started = time.perf_counter()
        connecting = asyncio.create_task(_dial(session, options), name="tiro.connect")
        in_time = False
        try:
            await asyncio.wait({connecting}, timeout=timeout)
            in_time = connecting.done()
        finally:
            if not in_time:
                connecting.add_done_callback(_discard)
                await utils.aio.cancel_and_wait(connecting)
        if not in_time:
            raise errors.connect_timeout(options.host, timeout)
        opened = connecting.result()
        if isinstance(opened, APIError):
            raise opened
        return cls(opened, time.perf_counter() - started)

    async def configure(self, options: Options, sample_rate: int) -> bool:
        """Send the config, the first message. Return False if the connection is gone."""
        self.configured = options
        return await self._send(protocol.encode_config(options, sample_rate))

    async def send(self, pcm: bytes) -> bool:
        """Send a chunk of audio. Return False if the connection is gone: `receive` knows why."""
        return await self._send(protocol.encode_audio(pcm))

    def send_now(self, pcm: bytes) -> bool:
        """Send a chunk of audio, outside of a task. Return False if it is not all done.

        `send` goes on with what is left, or knows that the connection is gone.
        """
        sending = self._ws.send_frame(protocol.encode_audio(pcm), aiohttp.WSMsgType.TEXT)
        try:
            self._begun = _Begun(sending, sending.send(None))
        except StopIteration:
            return True
        except (aiohttp.ClientError, ConnectionError):
            pass
        return False

    async def end(self) -> bool:
        """Send the end marker. Return False if the connection is gone."""
        self.ended = await self._send(protocol.END_OF_AUDIO)
        self.sent_at = time.monotonic()
        return self.ended

    async def _send(self, frame: bytes, kind: aiohttp.WSMsgType = aiohttp.WSMsgType.TEXT) -> bool:
        try:
            if self._begun is not None and kind is aiohttp.WSMsgType.TEXT:
                # What `send_now` left is still on its way, and goes first.
                begun, self._begun = self._begun, None
                await begun
            await self._ws.send_frame(frame, kind)
        except (aiohttp.ClientError, ConnectionError):
            self.sent_at = time.monotonic()
            return False
        return True

    async def receive(self) -> Response | None:
        """Return the next response, or None when the connection has ended."""
        while True:
            message = await self._ws.receive()
            self._alive_at = time.monotonic()
            if message.type is aiohttp.WSMsgType.PING:
                await self._send(message.data, aiohttp.WSMsgType.PONG)
                continue
            if message.type is aiohttp.WSMsgType.PONG:
                self.reached = self._ping_position
                continue
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return None
            self.last_message_at = self._alive_at
            response = protocol.decode(message.data)
            if response is not None:
                if response.error is None:
                    self.last_response = response
                self.unanswered = 0.0
                return response
            logger.debug(
                "ignored a frame that is not the service's", extra={"lk.pii.data": message.data}
            )

    def ping(self, position: int) -> None:
        """Ask for a sign of life, unless there was one lately.

        Args:
            position: The audio sent so far; what `reached` becomes when the answer comes.
        """
        unanswered = self.reached != self._ping_position
        if unanswered or self.silence < _PING_AFTER or self._ws.closed:
            return
        self._ping_position = position
        self._pinging = asyncio.create_task(
            self._send(b"", aiohttp.WSMsgType.PING), name="tiro.ping"
        )

    @property
    def concluded(self) -> bool:
        """Whether it said last that there is nothing more: that is what an empty response means."""
        return self.last_response is not None and not self.last_response.results

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._alive_at

    def is_healthy(self, after: float) -> bool:
        """Tell whether the session has proved itself: it answered, or it outlived `after` s."""
        return self.last_response is not None or self.age > after

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return time.monotonic() - self.opened_at

    async def close(self) -> None:
        """Close it now. The task that receives has to be cancelled before."""
        closing = asyncio.ensure_future(self._ws.close())
        pinging = [] if self._pinging is None else [self._pinging]
        try:
            await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT)
        finally:
            # A task that is cancelled before it began has closed nothing.
            self._ws._response.close()
            await utils.aio.cancel_and_wait(closing, *pinging)


class _Begun:
    """A coroutine that has come to its first wait, to be awaited to its end."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, None, None]:
        try:
            while True:
                try:
                    yield self._waits_for
                except BaseException as error:
                    self._waits_for = self._coroutine.throw(error)
                else:
                    self._waits_for = self._coroutine.send(None)
        except StopIteration:
            return


async def _dial(session: aiohttp.ClientSession, options: Options) -> _WebSocket | APIError:
    """Connect. Return what went wrong, and raise none of it.

    The exceptions of aiohttp hold the URL, and so the key. A task shows the one that it ended by,
    in the log of asyncio's debug mode and in tracebacks with locals.
    """
    try:
        return await session.ws_connect(
            options.url,
            params={"token": options.api_key},
            autoping=False,
            max_msg_size=_MAX_MESSAGE,
            decode_text=False,
        )
    except aiohttp.WSServerHandshakeError as refusal:
        return errors.from_handshake(refusal.status)
    except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as fault:
        return errors.unreachable(options.host, reason_of(fault))


def _discard(connecting: asyncio.Task[_WebSocket | APIError]) -> None:
    """Drop a websocket that opened in the moment in which nobody wanted it any more."""
    if connecting.cancelled() or connecting.exception() is not None:
        return
    opened = connecting.result()
    if not isinstance(opened, APIError):
        opened._response.close()


def reason_of(fault: Exception) -> str:
    """Name a failure to connect without the text of the exception, which can hold the URL."""
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        why = getattr(fault.certificate_error, "verify_message", "it is not for this host")
        return f"its certificate is not valid: {why}"
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    number = fault.errno if isinstance(fault, OSError) else None
    return os.strerror(number) if number else type(fault).__name__
