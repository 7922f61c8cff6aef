"""What is measured: the plugins, each set to its imitated service, and two floors."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from .traffic import read_stamp

if TYPE_CHECKING:
    from livekit.agents import stt

FLOORS = ("floor-json", "lk-null")
"""Raw aiohttp that sends what tiro sends, and the framework with a stream that does nothing."""
PEERS = ("deepgram", "assemblyai", "soniox", "gladia")
"""The plugins to compare with."""


@dataclass
class Tally:
    """What a stream heard, so that nobody is cheap by leaving something out."""

    last: int = -1
    """The number of the last phrase."""
    phrases: int = 0
    finals: int = 0
    missed: int = 0
    latencies: list[int] = field(default_factory=list)
    """ns from the sending of each phrase to its event."""

    def hear(self, text: str, is_final: bool) -> None:
        now = monotonic_ns()
        sent, number = read_stamp(text)
        if is_final:
            self.finals += 1
        if number == self.last:
            # assemblyai's plugin gives an interim with each final.
            return
        self.missed += number - self.last - 1
        self.last = number
        self.phrases += 1
        self.latencies.append(now - sent)


class Stream(Protocol):
    """A live stream, of a plugin or not."""

    async def push(self, frame: Any) -> None:
        """Push what the target's `frame` returned."""

    async def listen(self, tally: Tally) -> None:
        """Take events until there are no more."""

    async def aclose(self) -> None:
        """End the stream."""


class PluginStream:
    """A stream of a LiveKit STT."""

    def __init__(self, stt: stt.STT[Any]) -> None:
        self._stt = stt
        self.inner = stt.stream()

    async def push(self, frame: Any) -> None:
        self.inner.push_frame(frame)

    async def listen(self, tally: Tally) -> None:
        from livekit.agents.stt import SpeechEventType

        final, interim = SpeechEventType.FINAL_TRANSCRIPT, SpeechEventType.INTERIM_TRANSCRIPT
        async for event in self.inner:
            if event.type is interim or event.type is final:
                tally.hear(event.alternatives[0].text, event.type is final)

    async def aclose(self) -> None:
        await self.inner.aclose()
        await self._stt.aclose()


class FloorStream:
    """Sends and receives what tiro does by bare aiohttp, without channels, tasks or events."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._ws = ws

    @classmethod
    async def open(cls, session: aiohttp.ClientSession, url: str, rate: int) -> FloorStream:
        ws = await session.ws_connect(f"{url}/tiro", decode_text=False)
        config = {"encoding": "LINEAR16", "sampleRateHertz": rate, "languageCode": "is-IS"}
        await ws.send_str(json.dumps({"streamingConfig": {"config": config}}))
        return cls(ws)

    async def push(self, frame: Any) -> None:
        message = b'{"audioContent":"' + b64encode(frame) + b'"}'
        await self._ws.send_frame(message, aiohttp.WSMsgType.TEXT)

    async def listen(self, tally: Tally) -> None:
        async for message in self._ws:
            result = json.loads(message.data)["result"]["results"][0]
            tally.hear(result["alternatives"][0]["transcript"], result["isFinal"])

    async def aclose(self) -> None:
        await self._ws.close()


def frame(target: str, pcm: bytes, rate: int) -> Any:
    """Return what is pushed to a target's streams."""
    if target == "floor-json":
        return pcm
    from livekit import rtc

    return rtc.AudioFrame(pcm, rate, 1, len(pcm) // 2)


async def open_stream(
    target: str, session: aiohttp.ClientSession, url: str, rate: int, wire_rate: int | None
) -> Stream:
    """Open a stream.

    Args:
        target: A name from `PEERS` or `FLOORS`, or "tiro".
        session: To connect with.
        url: Where its service is, as `http(s)://host/run/index`.
        rate: Hz of the frames.
        wire_rate: Hz that the plugin is set to; None leaves it as shipped.
    """
    if target == "floor-json":
        return await FloorStream.open(session, url, rate)
    return PluginStream(make_stt(target, session, url, wire_rate))


def make_stt(
    target: str, session: aiohttp.ClientSession | None, url: str, wire_rate: int | None
) -> stt.STT[Any]:
    """Make a plugin's STT as its README does, except for the address.

    Args:
        target: A name from `PEERS`, "tiro", or "lk-null".
        session: To connect with; None for that of the LiveKit job.
        url: Where its service is, as `http(s)://host/run/index`.
        wire_rate: Hz that the plugin is set to; None leaves it as shipped.
    """
    if target == "lk-null":
        return _null_stt()
    plugin = import_module(f"livekit.plugins.{target}")
    # Two take an http address: they begin with a request, or derive the websocket's address.
    base = url if target in ("deepgram", "gladia") else url.replace("http", "ws", 1)
    arguments: dict[str, Any] = {} if wire_rate is None else {"sample_rate": wire_rate}
    if target == "soniox":
        arguments = {"params": plugin.STTOptions(**arguments)}
    made: stt.STT[Any] = plugin.STT(
        api_key="bench", http_session=session, base_url=f"{base}/{target}", **arguments
    )
    return made


def _null_stt() -> stt.STT[Any]:
    from .null import NullSTT

    return NullSTT()


def wire_rate_of(target: str, rate: int, wire_rate: int | None) -> int:
    """Return the rate at which a target sends audio of `rate` Hz."""
    return wire_rate or (16000 if target in PEERS else rate)
