"""A stream on fake wires: a test can fill them up, break them, and answer on them."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from livekit.agents import APIError
from livekit.plugins import tiro

from .caller import samples
from .fake_socket import RATE, FakeMessage
from .wire import Wire, Wires

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from livekit import rtc
    from livekit.agents.stt import SpeechEvent

EMPTY = b'{"result":{"results":[]}}'


def said(text: str, start: float, end: float, *after: str) -> bytes:
    """Return a final, and hypotheses after it."""
    word = {"word": text, "startTime": f"{start}s", "endTime": f"{end}s"}
    results: list[dict[str, Any]] = [
        {"isFinal": True, "alternatives": [{"transcript": text, "words": [word]}]}
    ]
    results += [{"alternatives": [{"transcript": other}]} for other in after]
    return json.dumps({"result": {"results": results}}).encode()


def hypothesis(end: float) -> bytes:
    """Return a hypothesis whose last word ends at `end` seconds of the connection."""
    word = {"word": "orð", "startTime": "0.1s", "endTime": f"{end}s"}
    alternative = {"transcript": f"orð {end}", "words": [word]}
    return json.dumps({"result": {"results": [{"alternatives": [alternative]}]}}).encode()


@dataclass
class WiredCall:
    """A stream on wires, with what came of it."""

    stream: tiro.SpeechStream
    wires: Wires
    events: list[SpeechEvent] = field(default_factory=list)
    fault: APIError | None = None

    async def listen(self) -> None:
        try:
            async for event in self.stream:
                self.events.append(event)
        except APIError as fault:
            self.fault = fault

    async def push(self, audio: rtc.AudioFrame, times: int = 1) -> None:
        for _ in range(times):
            self.stream.push_frame(audio)
            await asyncio.sleep(audio.duration)

    def hear(self, *messages: bytes) -> None:
        for message in messages:
            self.wires.last.inbox.put_nowait(FakeMessage(message))

    async def over(self, within: float) -> float:
        """Wait for the end of the stream; return how long it took."""
        started = time.monotonic()
        while not self.stream._task.done():
            assert time.monotonic() - started < within, "it goes on"
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.01)
        return time.monotonic() - started


@asynccontextmanager
async def wired(*says: bytes, **options: Any) -> AsyncIterator[WiredCall]:
    """Open a stream on wires, on each of which the service says something at first."""
    wires = Wires(says=says)
    stt = tiro.STT(
        api_key="test",
        base_url="ws://localhost",
        http_session=cast("aiohttp.ClientSession", wires),
        **options,
    )
    call = WiredCall(stt.stream(), wires)
    # Speech has quiet moments to learn the noise of a line from; this audio has none.
    call.stream._backlog.loudness._learn_from_seconds = lambda: None  # type: ignore[method-assign]
    listening = asyncio.create_task(call.listen())
    try:
        await asyncio.sleep(0.01)
        yield call
    finally:
        await stt.aclose()
        await listening


def silence_on(wire: Wire) -> float:
    """Return the seconds of zeros that went out on a connection."""
    return float(np.count_nonzero(samples(wire.audio) == 0)) / RATE
