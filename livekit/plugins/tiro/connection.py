"""One websocket to the service: open, send, receive, keepalive, close. Nothing here outlives it."""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import TYPE_CHECKING, Any

import aiohttp

from livekit.agents import APIError, utils

from . import errors, protocol
from .log import logger
from .reach import not_reached
from .recovery import Ending, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .options import Options
    from .protocol import Response, ServiceError

    _WebSocket = aiohttp.ClientWebSocketResponse[bool]

# s without a sign that the peer takes what it is sent, after which it is sent a ping.
_PING_AFTER = 2.0
# s without such a sign, with a ping every 2 s, after which the peer is gone. Checks are 1 s apart,
# so a half-open connection is noticed within 15 s, whether audio flows or not.
_DEAD_AFTER = 13.0
# s from a ping to its pong, at most, if the peer reads all that comes.
_AT_ONCE = 0.5
# s for the close frame to leave: a peer that does not read must not hold up `aclose`.
_CLOSE_FRAME_TIMEOUT = 0.5
# What a write raises on a connection that is gone; uvloop's transports raise a RuntimeError.
_GONE = (aiohttp.ClientError, ConnectionError, RuntimeError)
# Bytes of a frame at most. The gateway's are 64 KiB at most; this bounds memory.
_MAX_MESSAGE = 4 * 1024 * 1024


class Connection:
    """An open websocket, and what is known of the service behind it."""

    def __init__(self, ws: _WebSocket, opened_in: float, odd_path: str = "") -> None:
        """Take an open websocket; `open` makes one.

        Args:
            ws: The websocket, with `autoping` off.
            opened_in: Seconds that it took to open.
            odd_path: The path of the address, if it differs from Tiro's own.
        """
        self.id = utils.shortuuid("tiro_")
        """A name for this connection; the service gives none."""
        self.opened_in = opened_in
        """Seconds that it took to open."""
        self.sent_options: Options | None = None
        """The options of the config; None before it is sent."""
        self.end_sent = False
        """Whether the end marker is sent."""
        self.answered = False
        """Whether the service said anything but errors."""
        self.answered_at = 0.0
        """When it last gave a result, an empty one included; monotonic seconds."""
        self.acknowledged_to = 0
        """The position up to which the peer is known to have taken the audio, as told to `ping`."""
        self.pinged_to = 0
        """The position up to which audio was sent when the last ping went out."""
        self._opened_at = self._taken_at = self._pinged_at = time.monotonic()
        self._done_sending_at = self._news_at = self._opened_at
        self._idle = 0.0
        # s from the last ping to its pong; inf before any.
        self._pong_took = inf
        self._pings: list[tuple[bytes, int]] = []
        self._room: asyncio.Future[None] | None = None
        self._broken = False
        self._odd_path = odd_path
        self._ws = ws

    @classmethod
    async def open(
        cls, http_session: aiohttp.ClientSession, options: Options, timeout: float
    ) -> Connection:
        """Connect within `timeout` seconds.

        Args:
            http_session: What to connect with.
            options: The address, the headers, and the key itself: no function for it.
            timeout: Seconds.

        Raises:
            APIStatusError: The service refused the handshake, or redirects to another address.
            APITimeoutError: It did not answer in time.
            APIConnectionError: It could not be reached, or the HTTP session can not be used.
        """
        started = time.perf_counter()
        connecting = asyncio.create_task(_dial(http_session, options), name="tiro.connect")
        in_time = False
        try:
            await asyncio.wait({connecting}, timeout=timeout)
            in_time = connecting.done()
        finally:
            if not in_time:
                connecting.add_done_callback(_discard)
                await utils.aio.cancel_and_wait(connecting)
        if not in_time:
            raise errors.connect_timeout(options.host, timeout, _limit_per_host(http_session))
        opened = connecting.result()
        if isinstance(opened, APIError):
            raise opened
        return cls(opened, time.perf_counter() - started, options.odd_path)

    # -- sending ---------------------------------------------------------------------------------

    async def configure(self, options: Options, sample_rate: int) -> bool:
        """Send the config, the first message. Return False if the connection is gone."""
        self.sent_options, self._idle = options, self.age
        return await self._send(protocol.encode_config(options, sample_rate))

    async def send(self, pcm: bytes) -> bool:
        """Send a chunk of audio. Return False if the connection is gone: `receive` knows why."""
        return await self._send(protocol.encode_audio(pcm))

    def send_now(self, pcm: bytes) -> bool:
        """Send a chunk of audio, outside of a task.

        Return False if the connection is gone, or its buffer is full: then the chunk is in the
        buffer all the same, and the next one has to wait in `drain`.
        """
        return self._write(protocol.encode_audio(pcm))

    async def drain(self) -> bool:
        """Wait until there is room in the buffer. Return False if the connection is gone."""
        room, self._room = self._room, None
        if room is not None:
            await asyncio.wait({room})
        return not self._broken

    def ping(self, position: int) -> None:
        """Ask the peer for a sign that it takes what it is sent.

        Args:
            position: The audio sent so far; what `acknowledged_to` becomes when the answer comes.
        """
        self.pinged_to, self._pinged_at = position, time.monotonic()
        payload = position.to_bytes(8, "big")
        self._pings.append((payload, position))
        self._write(payload, aiohttp.WSMsgType.PING)

    def keep_alive(self, position: int) -> None:
        """Ping if there was no sign of life lately."""
        now = time.monotonic()
        if min(now - self._taken_at, now - self._pinged_at) >= _PING_AFTER:
            self.ping(position)

    async def end(self) -> bool:
        """Send the end marker. Return False if the connection is gone."""
        self.end_sent = await self._send(protocol.END_OF_AUDIO)
        self._done_sending_at = time.monotonic()
        return self.end_sent

    async def _send(self, frame: bytes) -> bool:
        try:
            await self._ws.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except _GONE:
            self._note_broken()
        return not self._broken

    def _write(self, frame: bytes, kind: aiohttp.WSMsgType = aiohttp.WSMsgType.TEXT) -> bool:
        """Put a frame into the socket's buffer. Return False if it is full, or the socket gone.

        `send_frame` writes the frame first; only then, and only if the buffer is full, does it
        wait for room. That is left to `drain`.
        """
        sending = self._ws.send_frame(frame, kind)
        try:
            self._room = sending.send(None)
        except StopIteration:
            return not self._broken
        except _GONE:
            self._note_broken()
        else:
            sending.close()
            assert self._room is not None
            # As a task does with what it is to wait for; else a task that waits for the same future
            # would be told that nobody awaited it.
            self._room._asyncio_future_blocking = False
            self._room.add_done_callback(_ignore)
        return False

    def _note_broken(self) -> None:
        if not self._broken:
            self._broken = True
            self._done_sending_at = time.monotonic()

    # -- receiving -------------------------------------------------------------------------------

    async def receive(self) -> Response | None:
        """Return the next response, or None when the connection has ended."""
        while True:
            message = await self._ws.receive()
            if message.type is aiohttp.WSMsgType.PING:
                self._write(message.data, aiohttp.WSMsgType.PONG)
            elif message.type is aiohttp.WSMsgType.PONG:
                self._on_pong(bytes(message.data))
            elif message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                response = protocol.decode(message.data)
                if response is not None:
                    error = response.error
                    if error is None or response.results:
                        self.answered = True
                        if not response.event:
                            self.answered_at = time.monotonic()
                    if error is None:
                        return response
                    return response._replace(error=error._replace(odd_path=self._odd_path))
                # Not its text: a frame that refuses a key can repeat the key.
                size = {"bytes": len(message.data)}
                logger.debug("ignored a frame that is not the service's", extra=size)
            else:
                return None

    def _on_pong(self, payload: bytes) -> None:
        """Note how far the peer has read: a pong answers its ping and all before it."""
        for number, (sent, position) in enumerate(self._pings, 1):
            if sent == payload:
                self.acknowledged_to = max(self.acknowledged_to, position)
                self._taken_at = time.monotonic()
                self._pong_took = self._taken_at - self._pinged_at
                del self._pings[:number]
                return

    def note_news(self) -> None:
        """Note that the last response said something new: the peer has taken the audio."""
        self._taken_at = self._news_at = self.answered_at

    # -- its end ---------------------------------------------------------------------------------

    @property
    def is_dead(self) -> bool:
        """Whether the peer takes nothing any more: gone without a word (half-open), or stuck.

        Frames from it prove nothing: a stuck gateway goes on sending pings of its own.
        """
        return bool(self._pings) and time.monotonic() - self._taken_at > _DEAD_AFTER

    @property
    def is_taken_at_once(self) -> bool:
        """Whether the peer takes what it is sent as it comes: it answered the last ping at once."""
        return not self._pings and self._pong_took < _AT_ONCE

    @property
    def may_have_stalled(self) -> bool:
        """Whether a ping is not answered; one that went out just now need not be."""
        on_its_way = time.monotonic() - self._pinged_at < _AT_ONCE
        return len(self._pings) > (1 if on_its_way else 0)

    @property
    def quiet_since(self) -> float:
        """When all was sent, or when it last said anything new if that is later; monotonic s."""
        return max(self._done_sending_at, self._news_at)

    @property
    def done_sending_at(self) -> float:
        """When the end marker was sent, or a write failed; monotonic seconds."""
        return self._done_sending_at

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return time.monotonic() - self._opened_at

    def ending(
        self,
        reason: Reason | ServiceError,
        *,
        found_nothing: bool,
        unanswered: float,
        less_quiet: float,
    ) -> Ending:
        """Return what is known of it, now that it is over.

        Args:
            reason: Why it is over.
            found_nothing: Whether it last said that it heard no word, and no sound followed.
            unanswered: Seconds since audio was sent that may be speech, without an answer.
            less_quiet: Seconds of quiet that it was sent, and that the next one is not.
        """
        return Ending(
            reason,
            self.age,
            configured=self.sent_options is not None,
            end_sent=self.end_sent,
            answered=self.answered,
            idle=self._idle,
            found_nothing=found_nothing,
            unanswered=unanswered,
            less_quiet=less_quiet,
        )

    async def close(self) -> None:
        """Close it now. The task that receives has to be cancelled before."""
        closing = asyncio.ensure_future(self._ws.close())
        try:
            await asyncio.wait({closing}, timeout=_CLOSE_FRAME_TIMEOUT)
        finally:
            # A task that is cancelled before it began has closed nothing.
            _drop(self._ws)
            await utils.aio.cancel_and_wait(closing)


class _OneAddress:
    """An HTTP session for `ws_connect` that stays with the address that it is given.

    A redirect would send the audio, and the key with it, to another host; `raise_for_status` of
    the caller's session would hide how the handshake was answered.
    """

    def __init__(self, http_session: aiohttp.ClientSession) -> None:
        self._http_session = http_session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._http_session, name)

    async def request(self, method: str, url: Any, **kwargs: Any) -> aiohttp.ClientResponse:
        return await self._http_session.request(
            method, url, allow_redirects=False, raise_for_status=False, **kwargs
        )


async def _dial(http_session: aiohttp.ClientSession, options: Options) -> _WebSocket | APIError:
    """Connect. Return an error instead of raising one.

    The exceptions of aiohttp hold the URL, and so the key. A task shows the exception that ended
    it, in the log of asyncio's debug mode and in tracebacks with locals.
    """
    if http_session.closed:
        return errors.unusable_session("it is closed")
    if http_session._loop is not asyncio.get_running_loop():
        return errors.unusable_session("it was made in another event loop")
    proxy = getattr(http_session, "_default_proxy", None)
    if (socks := errors.socks(proxy, options.host)) is not None:
        return socks
    # Private to aiohttp, whose types of it change from version to version.
    ws_connect: Callable[..., Awaitable[_WebSocket]] = type(http_session)._ws_connect
    try:
        return await ws_connect(
            _OneAddress(http_session),
            options.url,
            params={"token": options.key},
            headers=options.extra_headers,
            autoping=False,
            max_msg_size=_MAX_MESSAGE,
            decode_text=False,
        )
    except aiohttp.WSServerHandshakeError as refusal:
        path = errors.Redactor(options.key)(options.odd_path)
        return errors.from_handshake(refusal.status, path)
    except aiohttp.ClientHttpProxyError as refusal:
        return errors.from_proxy(refusal.status)
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError, RuntimeError) as fault:
        return not_reached(fault, options)


def _limit_per_host(http_session: aiohttp.ClientSession) -> int:
    """Return how many connections to one host there can be at a time; 0 for any number."""
    connector = http_session.connector
    limits = (connector.limit, connector.limit_per_host) if connector is not None else ()
    return min(filter(None, limits), default=0)


def _ignore(room: asyncio.Future[None]) -> None:
    """Mark an exception as seen: the connection may be lost before anybody waits in `drain`."""
    if not room.cancelled():
        room.exception()


def _discard(connecting: asyncio.Task[_WebSocket | APIError]) -> None:
    """Drop a websocket that opened in the moment in which nobody wanted it any more."""
    if connecting.cancelled() or connecting.exception() is not None:
        return
    opened = connecting.result()
    if not isinstance(opened, APIError):
        _drop(opened)


def _drop(ws: _WebSocket) -> None:
    """Close the socket of a websocket now, if it is open.

    The usual close would wait for a peer that does not read until TCP gives up.
    """
    connection = ws._response.connection
    transport = None if connection is None else connection.transport
    ws._response.close()
    if transport is not None:
        transport.abort()
