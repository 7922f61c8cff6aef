"""A client for the server's tests that collects frames, and the replay of a recording."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from livekit.plugins.tiro.testing import ConnectionRecord, Hooks, TiroServer

from .server_recordings import Recording, audio_message, is_interim

# Seconds; far over what any answer takes, so that a test that hangs fails.
DEADLINE = 30.0


@dataclass
class Client:
    """A websocket whose frames are collected as they come."""

    websocket: aiohttp.ClientWebSocketResponse[bool]
    frames: list[str] = field(default_factory=list)
    gone: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def collect(self) -> None:
        """Reads until the connection is over; aiohttp says it with CLOSED, frames or not."""
        async for message in self.websocket:
            async with self.changed:
                self.frames.append(message.data)
                self.changed.notify_all()
        async with self.changed:
            self.gone = True
            self.changed.notify_all()

    async def send(self, text: str, *, binary: bool = False) -> bool:
        """Sends a frame; False if the server has gone."""
        try:
            if binary:
                await self.websocket.send_bytes(text.encode())
            else:
                await self.websocket.send_str(text)
        except ConnectionError:
            return False
        return True

    async def until(self, count: int) -> list[str]:
        """Waits until so many frames that are no interims are here, or the connection is over."""
        async with self.changed:
            done = self.changed.wait_for(lambda: self.gone or len(self.settled) >= count)
            await asyncio.wait_for(done, DEADLINE)
        return self.settled

    async def end(self) -> int | None:
        """Waits for the end of the connection; its close code."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: self.gone), DEADLINE)
        return self.websocket.close_code

    @property
    def settled(self) -> list[str]:
        """The frames that are no interims."""
        return [frame for frame in self.frames if not is_interim(frame)]

    @property
    def interims(self) -> list[str]:
        """The frames that are interims."""
        return [frame for frame in self.frames if is_interim(frame)]


@contextlib.asynccontextmanager
async def connect(
    server: TiroServer, path: str = "/speech:streamingrecognize?token=ok", **options: Any
) -> AsyncIterator[Client]:
    """A client of the server; `path` goes behind its base URL."""
    async with aiohttp.ClientSession() as session:
        url = server.base_url + path
        async with session.ws_connect(url, max_msg_size=0, **options) as websocket:
            client = Client(websocket)
            collecting = asyncio.create_task(client.collect())
            try:
                yield client
            finally:
                await websocket.close()
                await collecting


def options_of(recording: Recording) -> tuple[str, dict[str, Any]]:
    """The path and the options of the recorded client, with the keys that steer faults removed."""
    path = recording.connect["connect"].removeprefix("v2beta1").split(",")[0]
    options: dict[str, Any] = {}
    if "subprotocols" in recording.connect:
        options["protocols"] = ("Bearer", "ok")
    if "additional_headers" in recording.connect:
        name, value = recording.connect["additional_headers"].strip("{}").split(":", 1)
        options["headers"] = {name.strip(" '"): value.strip(" '")}
    return path, options


class Held(Hooks):
    """Keeps back each frame but interims until the client has sent all it sent before it.

    Otherwise the server can be gone while the client still sends, and what it said is lost.
    """

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        if not is_interim(text):
            await self.turns.acquire()
        return text


async def replay(
    client: Client, recording: Recording, audio: bytes, texts: Mapping[str, str], held: Held
) -> int | None:
    """Sends what was sent and waits where a frame came; the close code.

    `texts` has the messages that a recording shows shortened, by their first characters.
    """
    position = count = 0
    for event in recording.events:
        if event["ev"] == "send":
            full = [text for start, text in texts.items() if event["text"].startswith(start)]
            await client.send(full[0] if full else event["text"], binary=recording.binary)
        elif event["ev"] == "audio":
            for size in recording.chunks(event):
                message = audio_message(audio[position : position + size])
                await client.send(message, binary=recording.binary)
                position += size
        elif event["ev"] == "recv" and not is_interim(event["text"]):
            count += 1
            held.turns.release()
            await client.until(count)
        elif event["ev"] == "close":
            if recording.binary:
                # The end marker of a client that sends binary is not in the recording.
                await client.send(audio_message(b""), binary=True)
            if recording.close_code == 1000:
                assert not client.gone
                await client.websocket.close()
            return await client.end()
    raise AssertionError("the recording has no end")
