"""A client for the server's tests that collects frames, and the replay of a recording."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np

from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    Hooks,
    TiroServer,
)

from .server_recordings import CONFIG, Recording, Samples, audio_message, is_interim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

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
        """Read until the connection is over; aiohttp says it with CLOSED, frames or not."""
        async for message in self.websocket:
            async with self.changed:
                self.frames.append(message.data)
                self.changed.notify_all()
        async with self.changed:
            self.gone = True
            self.changed.notify_all()

    async def send(self, text: str, *, binary: bool = False) -> bool:
        """Send a frame; False if the server has gone."""
        try:
            if binary:
                await self.websocket.send_bytes(text.encode())
            else:
                await self.websocket.send_str(text)
        except ConnectionError:
            return False
        return True

    async def until(self, count: int) -> list[str]:
        """Wait until so many frames that are no interims are here, or the connection is over."""
        async with self.changed:
            done = self.changed.wait_for(lambda: self.gone or len(self.settled) >= count)
            await asyncio.wait_for(done, DEADLINE)
        return self.settled

    async def end(self) -> int | None:
        """Wait for the end of the connection; its close code."""
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
    """A client of the server; `path` is appended to its base URL."""
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
    """Send what was sent and waits where a frame came; the close code.

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


def like(recorded: Recording, **options: Any) -> TiroServer:
    """A server that behaves like the recorded one, but shows every interim."""
    settings: dict[str, Any] = {
        "api_key": "ok",
        "words_per_second": pace_of(recorded),
        "emit_unpopulated": recorded.emit_unpopulated,
        "error_style": recorded.error_style,
        "interim_interval": 0.0,
    }
    return TiroServer(**(settings | options))


def pace_of(recorded: Recording) -> float:
    """Words a second: the recorded scripts go slower than the default."""
    return 2.5 if recorded.name == "punctuation" else 1.0


def config(streaming: dict[str, Any] | None = None, **changes: Any) -> str:
    """The usual first message with other fields."""
    first = json.loads(CONFIG)
    first["streamingConfig"].update(streaming or {})
    first["streamingConfig"]["config"].update(changes)
    return json.dumps(first)


async def send_all(client: Client, audio: bytes, size: int = 2048) -> None:
    """Send audio as fast as it goes."""
    for at in range(0, len(audio), size):
        await client.send(audio_message(audio[at : at + size]))


async def say(client: Client, audio: bytes, first: str = CONFIG, size: int = 2048) -> int | None:
    """Send a config, audio and the end marker, and waits for the end; the close code."""
    await client.send(first)
    await send_all(client, audio, size)
    await client.send(audio_message(b""))
    return await client.end()


class RawClient:
    """A websocket by hand, to see what aiohttp hides."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = ""

    async def frame(self) -> tuple[int, bytes] | None:
        """The opcode and the payload of the next frame, None at the end of the connection."""
        try:
            first, length = await asyncio.wait_for(self.reader.readexactly(2), DEADLINE)
        except asyncio.IncompleteReadError as error:
            assert error.partial == b""
            return None
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 15, await self.reader.readexactly(length)

    def send(self, opcode: int, payload: bytes) -> None:
        """Send a frame, masked with zeros."""
        size = len(payload)
        length = (
            struct.pack("!B", 0x80 | size)
            if size < 126
            else struct.pack("!BH", 0x80 | 126, size)
            if size < 65536
            else struct.pack("!BQ", 0x80 | 127, size)
        )
        self.writer.write(bytes([0x80 | opcode]) + length + bytes(4) + payload)


@contextlib.asynccontextmanager
async def raw_client(server: TiroServer, query: str = "?token=ok") -> AsyncIterator[RawClient]:
    host, _, rest = server.base_url.removeprefix("ws://").partition(":")
    port, _, base = rest.partition("/")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /{base}/speech:streamingrecognize{query} HTTP/1.1\r\nHost: {host}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    client = RawClient(reader, writer)
    client.head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)).decode()
    try:
        yield client
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def raw_ping(server: TiroServer) -> None:
    """Wait for an answer of the server to another client."""
    async with raw_client(server) as other:
        other.send(9, b"hi")
        assert await other.frame() == (10, b"hi")


TEST = "/speech:streamingrecognize?token=test"


async def start(client: Client, language: str, rate: int = 16000, **fields: Any) -> None:
    """Send a config."""
    config = {
        "encoding": "LINEAR16",
        "sampleRateHertz": rate,
        "languageCode": language,
        "enableWordTimeOffsets": True,
        **fields,
    }
    await client.send(json.dumps({"streamingConfig": {"config": config, "interimResults": True}}))


async def send(
    client: Client, audio: Samples, rate: int = 16000, *, ms: int = 50, paced: bool = False
) -> None:
    """Send audio in messages of `ms` milliseconds, at the speed of speech if `paced`."""
    loop = asyncio.get_running_loop()
    size, due = rate * ms // 1000, loop.time()
    for at in range(0, len(audio), size):
        await client.send(audio_message(audio[at : at + size].tobytes()))
        due += ms / 1000
        if paced:
            await asyncio.sleep(due - loop.time())


async def finish(client: Client) -> None:
    """Send the end marker and waits for the end."""
    await client.send(audio_message(b""))
    await client.end()


# Loud enough to be voiced, and silence, by 20 ms frames.
VOICED = np.full(320, 2000, np.int16)

QUIET = np.zeros(320, np.int16)
