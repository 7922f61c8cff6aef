"""A stream on a websocket without a network, in which every message can be counted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import aiohttp
import numpy as np

from livekit import rtc
from livekit.plugins import tiro

from .harness import USAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from livekit.agents.stt import SpeechEvent

RATE = 24000
"""Hz of all audio here."""


@dataclass
class FakeMessage:
    data: bytes
    type: aiohttp.WSMsgType = aiohttp.WSMsgType.TEXT


@dataclass
class FakeSocket:
    """A websocket without a network: counts what is sent, and receives what a test puts in."""

    config = b""
    messages = 0
    audio_bytes = 0
    """Bytes of the messages, the config left out."""
    inbox: asyncio.Queue[FakeMessage] = field(default_factory=asyncio.Queue)
    closed = False
    connector: SimpleNamespace | None = None
    is_released = False
    """Whether the connection under it was closed."""

    async def _ws_connect(self, *_: object, **__: object) -> FakeSocket:
        # The plugin calls this as a method of `ClientSession`, with a stand-in for the session.
        return self._itself

    @property
    def _itself(self) -> FakeSocket:
        return self

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def _response(self) -> SimpleNamespace:
        return SimpleNamespace(close=self._release, connection=None)

    def _release(self) -> None:
        self.is_released = True

    async def send_frame(self, message: bytes, kind: aiohttp.WSMsgType) -> None:
        if kind is aiohttp.WSMsgType.PING:
            self.inbox.put_nowait(FakeMessage(message, aiohttp.WSMsgType.PONG))
        elif self.config:
            self.messages += 1
            self.audio_bytes += len(message)
        else:
            self.config = message

    async def receive(self) -> FakeMessage:
        return await self.inbox.get()

    async def close(self) -> bool:
        return True


@dataclass
class StreamCall:
    """A live stream on a fake socket, with its events."""

    stream: tiro.SpeechStream
    socket: FakeSocket
    events: list[SpeechEvent] = field(default_factory=list)

    async def push(self, *frames: rtc.AudioFrame, times: int = 1) -> None:
        """Push frames so often, at the pace of real audio."""
        for frame in frames * times:
            self.stream.push_frame(frame)
            await asyncio.sleep(frame.duration)

    async def hear(self, *messages: bytes) -> None:
        """Have the service say something, and let the stream make events of it."""
        for message in messages:
            self.socket.inbox.put_nowait(FakeMessage(message))
            await asyncio.sleep(0.01)

    async def listen(self) -> None:
        async for event in self.stream:
            if event.type is not USAGE:
                self.events.append(event)


@asynccontextmanager
async def calling(
    pushed: rtc.AudioFrame, socket: FakeSocket | None = None
) -> AsyncIterator[StreamCall]:
    """Open a stream that is under way: configured, and a second of audio sent."""
    socket = socket or FakeSocket()
    session = cast("aiohttp.ClientSession", socket)
    stt = tiro.STT(api_key="test", base_url="ws://localhost", http_session=session)
    call = StreamCall(stt.stream(), socket)
    # Speech has quiet moments to learn the noise of a line from; this audio has none.
    call.stream._backlog.loudness._set_floor = _ignore  # type: ignore[method-assign]
    listening = asyncio.create_task(call.listen())
    try:
        await call.push(pushed, times=round(1.0 / pushed.duration))
        assert call.socket.config
        yield call
    finally:
        listening.cancel()
        await stt.aclose()


def _ignore(level: float) -> None: ...


def frame(ms: int, level: int = 5000) -> rtc.AudioFrame:
    """Return audio, loud if nothing else is said."""
    samples = RATE * ms // 1000
    pcm = np.resize(np.array([level, -level], np.int16), samples)
    return rtc.AudioFrame(pcm.tobytes(), RATE, 1, samples)
