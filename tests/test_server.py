"""The local server against the recordings of the wire, driven by a client without the plugin."""

from __future__ import annotations

import ast
import asyncio
import base64
import contextlib
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    Drop,
    HandshakeRefusal,
    Hooks,
    ScriptedRecognizer,
    StatusError,
    TiroServer,
    server as server_module,
)
from livekit.plugins.tiro.testing.backend import Backend, Timing
from livekit.plugins.tiro.testing.conversation import (
    LONGEST_LINE,
    READ_AHEAD_BYTES,
    HalfClose,
    Inbox,
)
from livekit.plugins.tiro.testing.wire import ClientMessage, FrameStyle, MessageReader

from .support.server_client import DEADLINE, Client, Held, connect, options_of, replay
from .support.server_recordings import (
    WIRE,
    Recording,
    audio_message,
    is_interim,
    modes,
    pcm,
    recording,
    transcript,
)

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")

IS = pcm("is.wav")
IS2 = pcm("is2.wav")
# The first sentence of two.wav eight times, cut close: 27 s without a pause.
LONG = pcm("two.wav")[19200:127840] * 8

# The audio of each scenario that the scripted recogniser answers.
SPOKEN = {
    "bad_base64_mid_stream": IS,
    "base64_unpadded_mid_stream": IS,
    "base64url_mid_stream": IS,
    "binary_frames": IS,
    "blank_frame_mid_stream": IS,
    "empty_final": pcm("noise.wav"),
    "empty_object_mid_stream": IS,
    "end_before_audio": b"",
    "end_empty": IS,
    "end_text": IS,
    "end_then_more_audio": IS,
    "fast_upload": IS2,
    "happy_is": IS,
    "idle": IS,
    "idle_without_end": IS,
    "key_in_cookie": IS,
    "key_in_subprotocol": IS,
    "long_speech": LONG,
    "malformed_json_mid_stream": IS,
    "no_interim": IS2,
    "no_word_offsets": IS,
    "null_audio_mid_stream": IS,
    "numbers_as_strings": IS,
    "odd_bytes": IS,
    "one_big_message": IS2,
    "punctuation": IS2,
    "second_config": IS,
    "silence_20ms": bytes(384000),
    "silence_64ms": bytes(96000),
    "silence_hiss": pcm("hiss.wav"),
    "single_utterance": IS,
    "single_utterance_noise": pcm("noise.wav"),
    "snake_case": IS,
    "stalled_backend": IS2 * 40,
    "trailing_hiss": IS + pcm("hiss.wav"),
    "two_utterances_is": IS2,
    "unknown_field_in_config": IS,
    "unknown_message_mid_stream": IS,
}

# Scenarios that end with an error frame; the audio is whatever is sent before it comes.
REFUSED = {
    "audio_before_config": IS,
    "bad_key": IS,
    "bad_key_before_config": b"",
    "config_without_config": b"",
    "invalid_language": IS,
    "key_in_header": b"",
    "malformed_json_first": b"",
    "max_alternatives_31": IS,
    "message_over_4mib": bytes(5242880),
    "missing_encoding": IS,
    "no_key": b"",
    "rate_missing": IS,
    "unknown_encoding": IS,
    "unknown_first_message": b"",
    "wrong_encoding": IS,
    "wrong_path": b"",
    "wrong_type_in_config": b"",
}

# Faults of the service and of what stands in front of it, and answers over plain HTTP.
NOT_PLAYED = {
    *("audio_idle_timeout", "backend_gone", "backend_killed", "backend_stopped"),
    *("bad_key_at_handshake", "connection_reset", "end_slow_final", "error_inside_result"),
    *("gateway_gone", "gateway_killed", "gateway_stopped", "idle_with_server_pings"),
    *("internal_mid_stream", "long_final_200", "long_final_300", "long_final_300_max_line"),
    *("out_of_range", "quota", "unavailable"),
    *("rest_backend_gone", "rest_errors", "rest_happy"),
}

# Played by tests of their own, here or in test_recognizers.
PLAYED_ALONE = {
    *("end_by_closing", "end_then_close_at_once", "frame_borders", "unary_over_websocket"),
    *("happy_en", "max_alternatives_3", "tail_padded", "tail_tight", "two_utterances_en"),
    *("rate_8000", "rate_24000", "rate_44100", "rate_48000"),
}

# Messages that the recordings show shortened, by their first characters.
UNPADDED = base64.b64encode(bytes(655)).decode().rstrip("=")
SHORTENED = {
    '{"audioContent": "AAAA': json.dumps({"audioContent": UNPADDED}),
    '{"audioContent": "_---': json.dumps({"audioContent": "_---" * 200}),
}

CONFIG = recording("happy_is", "full").first_message


def recordings(names: Iterable[str]) -> list[Any]:
    """Parameters for each scenario in each mode."""
    pairs = [(name, mode) for name in names for mode in modes(name)]
    return [pytest.param(recording(*pair), id=".".join(pair)) for pair in pairs]


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
    """Sends audio as fast as it goes."""
    for at in range(0, len(audio), size):
        await client.send(audio_message(audio[at : at + size]))


async def say(client: Client, audio: bytes, first: str = CONFIG, size: int = 2048) -> int | None:
    """Sends a config, audio and the end marker, and waits for the end; the close code."""
    await client.send(first)
    await send_all(client, audio, size)
    await client.send(audio_message(b""))
    return await client.end()


def test_every_recording_is_accounted_for() -> None:
    names = {path.name.split(".")[0] for path in WIRE.glob("*.jsonl")}
    assert names == {*SPOKEN, *REFUSED, *NOT_PLAYED, *PLAYED_ALONE}


@pytest.mark.parametrize("recorded", recordings(SPOKEN))
async def test_backend_answers_as_recorded(recorded: Recording) -> None:
    """Same audio at the same pace: the same frames, byte for byte, interims included."""
    now = 0.0
    config = next(iter(MessageReader().feed(recorded.first_message))).config
    assert config is not None
    backend = Backend(
        config,
        ScriptedRecognizer(words_per_second=pace_of(recorded))(config),
        style=FrameStyle(recorded.error_style, recorded.emit_unpopulated),
        timing=Timing(),
        clock=lambda: now,
    )
    frames: list[str] = []
    position = 0
    for event in recorded.events:
        if event["ev"] == "audio" and not backend.done:
            for size in recorded.chunks(event):
                frames += await backend.audio(SPOKEN[recorded.name][position : position + size])
                position += size
                now += recorded.pace
        elif event["ev"] == "send" and position and event["text"] and not backend.done:
            frames += await backend.end()
    assert frames == recorded.received


@pytest.mark.parametrize("recorded", recordings(SPOKEN))
async def test_server_answers_as_recorded(recorded: Recording) -> None:
    """Over a socket: the same finals and events, and no interim missing."""
    held = Held()
    path, options = options_of(recorded)
    async with like(recorded, hooks=held) as server, connect(server, path, **options) as client:
        code = await replay(client, recorded, SPOKEN[recorded.name], SHORTENED, held)
    assert client.settled == [frame for frame in recorded.received if not is_interim(frame)]
    assert code == recorded.close_code
    shown = iter([transcript(frame) for frame in client.interims])
    for frame in recorded.received:
        if is_interim(frame):
            assert transcript(frame) in shown, "an interim is missing or out of order"


@pytest.mark.parametrize("recorded", recordings(REFUSED))
async def test_server_refuses_as_recorded(recorded: Recording) -> None:
    held = Held()
    path, options = options_of(recorded)
    async with like(recorded, hooks=held) as server, connect(server, path, **options) as client:
        code = await replay(client, recorded, REFUSED[recorded.name], {}, held)
    assert client.frames == recorded.received
    assert code == recorded.close_code
    codes = re.findall('"(?:code|grpcCode)":([0-9]+)', client.frames[0]) or ["5"]
    assert [str(server.sessions[0].status)] == codes


@pytest.mark.parametrize("recorded", recordings(["frame_borders"]))
async def test_frames_are_one_stream_of_json(recorded: Recording) -> None:
    """Two messages in a frame, and a message over two frames."""
    held = Held()
    texts = {CONFIG: CONFIG + audio_message(IS[:2048])}
    async with like(recorded, hooks=held) as server, connect(server) as client:
        await replay(client, recorded, IS[2048:], texts, held)
    assert client.settled == recorded.received[-1:]
    assert server.sessions[0].sizes[:2] == [2048, 2048]


@pytest.mark.parametrize("name", ["end_by_closing", "end_then_close_at_once"])
async def test_client_that_closes_gets_no_final(name: str) -> None:
    """The close frame is echoed, and the final has nowhere to go."""
    held = Held()
    recorded = recording(name, "full")
    async with like(recorded, hooks=held) as server:
        async with connect(server) as client:
            assert await replay(client, recorded, IS, {}, held) == 1000
        connection = server.sessions[0]
        held.turns.release()
        await asyncio.wait_for(connection.closed.wait(), DEADLINE)
    assert [frame for frame in client.frames + connection.frames if not is_interim(frame)] == []
    assert connection.closed_by == "client"
    assert connection.ended == (name == "end_then_close_at_once")
    assert len(connection.audio) == 128000


async def test_unary_method_is_mute_over_a_websocket() -> None:
    recorded = recording("unary_over_websocket", "full")
    async with like(recorded) as server:
        async with connect(server, options_of(recorded)[0]) as client:
            await client.send(recorded.first_message.split(" [")[0] + '"}}')
            # The answer to a ping shows that the server has had its chance.
            await raw_ping(server)
            assert not client.gone
        await asyncio.wait_for(server.sessions[0].closed.wait(), DEADLINE)
    assert client.frames == [] and client.websocket.close_code == 1000


@pytest.mark.parametrize(
    ("style", "path", "status", "body"),
    [
        ("v1", "/speech:streamingrecognize", 405, "Method Not Allowed\n"),
        ("v1", "/speech:recognize", 405, "Method Not Allowed\n"),
        ("v1", "/speech:nothing", 404, "Not Found\n"),
        (
            "v2",
            "/speech:recognize",
            501,
            '{"code":12,"message":"Method Not Allowed","details":[]}',
        ),
        ("v2", "/speech:nothing", 404, '{"code":5,"message":"Not Found","details":[]}'),
    ],
)
async def test_plain_requests(style: Any, path: str, status: int, body: str) -> None:
    async with TiroServer(error_style=style) as server, aiohttp.ClientSession() as session:
        async with session.get(server.base_url.replace("ws", "http", 1) + path) as response:
            assert (response.status, await response.text()) == (status, body)
    assert server.sessions == []


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
        """Sends a frame, masked with zeros."""
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
    """Waits for an answer of the server to another client."""
    async with raw_client(server) as other:
        other.send(9, b"hi")
        assert await other.frame() == (10, b"hi")


async def test_nothing_is_said_before_the_first_message() -> None:
    """Granted whatever the key; a ping is answered first, so nothing came before it."""
    async with TiroServer(api_key="ok") as server, raw_client(server, "?token=no") as client:
        assert client.head.startswith("HTTP/1.1 101 ")
        assert "\nsec-websocket-protocol:" not in client.head.lower()
        assert "\nsec-websocket-extensions:" not in client.head.lower()
        client.send(9, b"still there?")
        assert await client.frame() == (10, b"still there?")
        client.send(1, CONFIG.encode())
        frame = await client.frame()
        assert frame is not None and b'"grpcCode":16' in frame[1]


async def test_end_is_never_a_close_frame() -> None:
    async with TiroServer(api_key="ok", words_per_second=1) as server:
        async with raw_client(server) as client:
            client.send(1, CONFIG.encode())
            for at in range(0, 128000, 32000):
                client.send(1, audio_message(IS[at : at + 32000]).encode())
            client.send(1, b'{"audioContent":""}')
            frames = []
            while (frame := await client.frame()) is not None:
                frames.append(frame)
    assert [opcode for opcode, _ in frames] == [1]
    assert transcript(frames[0][1].decode()) == "góðan daginn"


@pytest.mark.parametrize("length", [LONGEST_LINE, LONGEST_LINE + 1])
async def test_line_over_the_gateways_buffer_vanishes(length: int) -> None:
    """The limit counts bytes, not characters; one over it and the connection drops instead."""

    class Padded(Hooks):
        async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
            return "ð" * (length // 2) + "x" * (length % 2)

    async with TiroServer(hooks=Padded()) as server, connect(server, TEST) as client:
        assert await say(client, IS) == 1006
    assert [len(frame.encode()) for frame in client.frames] == [length][: length == LONGEST_LINE]


TEST = "/speech:streamingrecognize?token=test"


async def test_session_remembers_what_came() -> None:
    async with TiroServer(words_per_second=1) as server:
        async with connect(server, TEST) as client:
            connection = await asyncio.wait_for(server.wait_for_connection(), DEADLINE)
            assert connection.config == {} and connection.seconds == 0.0 and not connection.ended
            assert await say(client, IS, config(languageCode="is-IS-x-exp")) == 1006
        assert await server.wait_for_connection() is connection is server.sessions[0]
    assert connection.language == "is-IS-x-exp" and connection.sample_rate == 16000
    assert connection.streaming_config["interimResults"] is True
    assert connection.config["enableWordTimeOffsets"] is True
    assert bytes(connection.audio) == IS and connection.seconds == len(IS) / 32000
    assert connection.messages == 112 and (connection.sizes[0], connection.sizes[-1]) == (2048, 620)
    assert connection.end == "audio_content" and connection.ended and connection.status == 0
    assert connection.closed_by == "server" and connection.closed.is_set()
    assert connection.frames == client.frames
    assert connection.closed_at is not None and connection.closed_at >= connection.opened_at


async def test_keys_are_in_no_repr() -> None:
    async with TiroServer(api_key="s3cret") as server:
        async with connect(server, TEST.replace("test", "s3cret")) as client:
            await say(client, b"")
        assert server.sessions[0].token == "s3cret"
        assert "s3cret" not in repr(server.sessions) + repr(server)


async def test_any_key_is_taken_without_one_to_ask_for() -> None:
    async with TiroServer(api_key=None) as server:
        async with connect(server, "/speech:streamingrecognize") as client:
            await say(client, IS)
    assert client.settled and server.sessions[0].token is None


async def test_closing_the_server_drops_every_session() -> None:
    """Idle, in the middle of speech, and waiting in a hook: gone at once."""

    class Waiting(Hooks):
        async def first_message(self, connection: ConnectionRecord) -> None:
            if connection.number == 2:
                await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(TiroServer(hooks=Waiting()))
        clients = [await stack.enter_async_context(connect(server, TEST)) for _ in range(3)]
        for client in clients[1:]:
            await client.send(CONFIG)
        await send_all(clients[1], IS[:96000])
        while server.sessions[1].messages < 47:
            await asyncio.sleep(0.001)
        started = loop.time()
        await server.aclose()
        assert loop.time() - started < 1.0
        assert [await client.end() for client in clients] == [1006] * 3
        assert all(connection.closed.is_set() for connection in server.sessions)
        with pytest.raises(aiohttp.ClientConnectionError):
            async with connect(server, TEST):
                pass
        await server.aclose()


async def test_a_client_that_never_reads_does_not_keep_the_server() -> None:
    """What cannot be written is thrown away when the server closes."""

    class Chatty(Hooks):
        async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
            return "x" * 60_000

    server = TiroServer(hooks=Chatty(), interim_interval=0.0, words_per_second=25)
    await server.start()
    async with raw_client(server, "?token=test") as client:
        client.send(1, CONFIG.encode())
        for at in range(0, len(IS2), 2048):
            client.send(1, audio_message(IS2[at : at + 2048]).encode())
        connection = await server.wait_for_connection()
        sent = -1
        while sent < len(connection.frames) or connection.messages < 20:
            sent = len(connection.frames)
            await asyncio.sleep(0.05)
        assert connection.messages < len(IS2) // 2048, "the server could write all it had"
        await asyncio.wait_for(server.aclose(), 2.0)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := await asyncio.wait_for(client.reader.read(65536), DEADLINE):
                received += len(part)
        assert received < 60_000 * len(connection.frames)


async def test_handshake_that_a_hook_holds_does_not_keep_the_server() -> None:
    class HeldHandshake(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            await asyncio.Event().wait()
            return None

    async with TiroServer(hooks=HeldHandshake()) as server:
        attempt = asyncio.create_task(connect(server, TEST).__aenter__())
        connection = await asyncio.wait_for(server.wait_for_connection(), DEADLINE)
        await asyncio.wait_for(server.aclose(), 1.0)
        assert connection.closed.is_set()
        with pytest.raises(aiohttp.ClientError):
            await attempt


async def test_sessions_are_numbered_as_they_come() -> None:
    async with TiroServer() as server, contextlib.AsyncExitStack() as stack:
        clients = [stack.enter_async_context(connect(server, TEST)) for _ in range(10)]
        await asyncio.gather(*clients)
        assert [connection.number for connection in server.sessions] == list(range(10))


async def test_client_that_closes_before_its_first_message() -> None:
    async with TiroServer() as server:
        async with connect(server, TEST):
            pass
        await asyncio.wait_for(server.sessions[0].closed.wait(), DEADLINE)
    assert server.sessions[0].closed_by == "client" and server.sessions[0].frames == []


async def test_starting_twice_is_starting_once() -> None:
    """And a server that was closed starts again at its port."""
    server = TiroServer()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = server.base_url
    await server.start()
    url = server.base_url
    await server.start()
    assert server.base_url == url and url.startswith("ws://127.0.0.1:")
    await server.aclose()
    async with server, connect(server, TEST) as client:
        await say(client, IS)
    assert server.base_url == url and client.settled


async def test_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = TiroServer(port=taken.getsockname()[1])
        with pytest.raises(OSError):
            await server.start()
        await server.aclose()


async def test_hooks_see_every_step() -> None:
    seen: list[str] = []

    class Watching(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            seen.append("handshake")
            return None

        async def first_message(self, connection: ConnectionRecord) -> None:
            seen.append(f"first {connection.language}")

        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            seen.append(f"audio {len(pcm)}")

        async def end(self, connection: ConnectionRecord) -> None:
            seen.append(f"end {connection.end}")

        async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
            seen.append(f"frame {transcript(text)}")
            return None

    async with TiroServer(hooks=Watching(), words_per_second=1) as server:
        async with connect(server, TEST) as client:
            await say(client, IS[:96000], config({"interimResults": False}), size=48000)
    assert seen == [
        "handshake",
        "first is-IS",
        "audio 48000",
        "audio 48000",
        "end audio_content",
        "frame góðan",
    ]
    assert client.frames == server.sessions[0].frames == []


async def test_hook_refuses_a_handshake() -> None:
    class Closed(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            return HandshakeRefusal(503, "come back later")

    async with TiroServer(hooks=Closed()) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(server.base_url + TEST)
    assert caught.value.status == 503
    assert server.sessions[0].closed.is_set() and server.sessions[0].closed_by == "server"


@pytest.mark.parametrize("fault", [StatusError(14, "gone"), Drop(), RuntimeError("a bug")])
async def test_hook_ends_a_session(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Hooks):
        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            if connection.messages == 3:
                raise fault

    async with TiroServer(hooks=Faulty()) as server, connect(server, TEST) as client:
        await client.send(CONFIG)
        await send_all(client, IS[:8192])
        assert await client.end() == 1006
    codes = {StatusError: [14], Drop: [], RuntimeError: [13]}[type(fault)]
    assert [json.loads(frame)["error"]["grpcCode"] for frame in client.frames] == codes
    assert server.sessions[0].messages == 3
    assert bool(caplog.records) == isinstance(fault, RuntimeError)


async def test_client_that_goes_without_a_word() -> None:
    """The session ends by itself, and nothing is written to nobody."""
    async with TiroServer() as server:
        async with raw_client(server, "?token=test") as client:
            client.send(1, CONFIG.encode())
            client.send(1, audio_message(IS[:64000]).encode())
            connection = await server.wait_for_connection()
            while not connection.messages:
                await asyncio.sleep(0.001)
            client.writer.transport.abort()
        await asyncio.wait_for(connection.closed.wait(), DEADLINE)
    assert connection.closed_by == "client" and connection.end == "half-close"
    assert not [frame for frame in connection.frames if not is_interim(frame)]


async def test_languages_choose_recognisers_by_their_longest_prefix() -> None:
    recognizers = {
        "is-IS-x": ScriptedRecognizer("tilraun", words_per_second=25),
        "fo": ScriptedRecognizer("føroyskt", words_per_second=25),
    }
    heard = {}
    async with TiroServer(recognizers=recognizers, script="íslenska") as server:
        for language in ("is-IS", "is-IS-x-exp", "fo-FO", "IS-is", "da-DK"):
            async with connect(server, TEST) as client:
                await say(client, IS[:64000], config(languageCode=language))
                heard[language] = transcript(client.settled[-1]).split()[:1]
    assert heard == {
        "is-IS": ["íslenska"],
        "is-IS-x-exp": ["tilraun"],
        "fo-FO": ["føroyskt"],
        "IS-is": [],
        "da-DK": [],
    }
    assert [connection.status for connection in server.sessions] == [0, 0, 0, 3, 3]


async def test_all_fields_at_fault_are_listed() -> None:
    wrong = config(languageCode="xx", encoding="MP3", maxAlternatives=-1, sampleRateHertz=4000)
    async with TiroServer() as server, connect(server, TEST) as client:
        await client.send(wrong)
        await client.end()
    details = json.loads(client.frames[0])["error"]["details"]
    assert [
        each["field"].removeprefix("streaming_config.config")
        for each in details[0]["fieldViolations"]
    ] == [".encoding", "", ".sample_rate_hertz", ".language_code", ".max_alternatives"]


@pytest.mark.parametrize("asked", [False, True])
async def test_speakers_are_told_apart_when_asked(asked: bool) -> None:
    script = [(1, "góðan daginn"), (2, "já takk")]
    diarization = {"enableSpeakerDiarization": asked, "minSpeakerCount": 2, "maxSpeakerCount": 2}
    async with TiroServer(script=script, words_per_second=1) as server:
        async with connect(server, TEST) as client:
            await say(client, IS2, config(diarizationConfig=diarization))
    tags = [
        word["speakerTag"]
        for frame in client.settled
        for word in json.loads(frame)["result"]["results"][0]["alternatives"][0]["words"]
    ]
    assert tags == ([1, 1, 2, 2, 1, 1, 2] if asked else [0] * 7)


async def test_sessions_do_not_share_a_script() -> None:
    """Many at once, each from the top."""
    async with TiroServer(words_per_second=1, api_key="ok") as server:

        async def one() -> list[str]:
            async with connect(server) as client:
                await say(client, IS2)
            return [transcript(frame) for frame in client.settled]

        heard = await asyncio.gather(*(one() for _ in range(20)))
    assert heard == [["góðan daginn og", "velkomin í prófunina veðrið"]] * 20


async def test_reading_ahead_is_bounded_by_bytes() -> None:
    inbox = Inbox()
    await inbox.put(HalfClose(), READ_AHEAD_BYTES)
    over = asyncio.create_task(inbox.put(HalfClose(), 1))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(over), 0.05)
    await inbox.get()
    await asyncio.wait_for(over, DEADLINE)


async def test_client_is_read_while_the_backend_stands_still() -> None:
    """Pings are answered, and what was sent meanwhile is not lost."""
    go = asyncio.Event()

    class Stalled(Hooks):
        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            await go.wait()

    async with TiroServer(api_key="ok", hooks=Stalled(), words_per_second=1) as server:
        async with raw_client(server) as client:
            client.send(1, CONFIG.encode())
            for at in range(0, len(IS), 32000):
                client.send(1, audio_message(IS[at : at + 32000]).encode())
            client.send(9, b"?")
            assert await client.frame() == (10, b"?")
            go.set()
            final = await client.frame()
            assert final is not None and transcript(final[1].decode()) == "góðan daginn og"


def test_server_and_plugin_are_written_apart() -> None:
    """Neither imports the other, so that errors do not cancel out."""
    package = WIRE.parents[2] / "livekit/plugins/tiro"
    for module in package.glob("testing/*.py"):
        for name in imports(module):
            assert not name.startswith(("..", "livekit")), f"{module.name} imports {name}"
    for module in package.glob("*.py"):
        assert not [name for name in imports(module) if name.startswith(".testing")]


def imports(module: Path) -> list[str]:
    """What a module imports at its top level; a dot for each level up, as it is written."""
    names = []
    for node in ast.parse(module.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    return names


# -- what clients may cost -------------------------------------------------------------------------


async def test_a_client_whose_frames_are_no_json_costs_nothing_more() -> None:
    """Its first error ends the connection for the server; what it sends on is thrown away."""
    async with TiroServer(api_key="ok") as server, connect(server) as client:
        await client.send(CONFIG)
        await client.send('{"audioContent":')
        await client.send("!")
        connection = server.connections[0]
        for _ in range(2000):
            if not await client.send("A" * 10):
                break
        await client.end()
        await asyncio.wait_for(connection.closed.wait(), DEADLINE)
        assert connection.end == "half-close"


async def test_what_comes_behind_the_end_is_not_read() -> None:
    """It would wait for room where nobody makes any."""
    go = asyncio.Event()

    class Waits(Hooks):
        async def end(self, connection: ConnectionRecord) -> None:
            await go.wait()

    async with TiroServer(api_key="ok", hooks=Waits()) as server, raw_client(server) as client:
        client.send(1, CONFIG.encode())
        client.send(1, audio_message(b"").encode())
        for _ in range(2 * READ_AHEAD_BYTES // 1_000_000):
            client.send(1, audio_message(bytes(1_000_000)).encode())
        client.send(9, b"?")
        assert await client.frame() == (10, b"?")
        go.set()


async def test_small_messages_fill_the_inbox_too() -> None:
    inbox = Inbox()
    put = 0
    with pytest.raises(asyncio.TimeoutError):
        while put <= READ_AHEAD_BYTES / 1000:
            await asyncio.wait_for(inbox.put(ClientMessage(audio=b"ab")), 0.05)
            put += 1
    assert put > 1000


async def test_a_connection_too_many_is_refused() -> None:
    async with TiroServer(api_key="ok", max_connections=2) as server:
        async with connect(server), connect(server) as second:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                async with connect(server):
                    pass
            assert caught.value.status == 503
            await second.send(CONFIG)
            await second.send(audio_message(b""))
            await second.end()
            await asyncio.wait_for(server.connections[1].closed.wait(), DEADLINE)
            async with connect(server):
                assert server.connection_count == 3


async def test_old_records_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_RECORDS", 2)
    async with TiroServer(api_key="ok") as server:
        for number in range(4):
            async with connect(server):
                connection = await server.wait_for_connection(number)
            await asyncio.wait_for(connection.closed.wait(), DEADLINE)
        assert [each.number for each in server.connections] == [2, 3]
        assert server.sessions is server.connections and server.connection_count == 4
        with pytest.raises(LookupError, match="record of connection 1"):
            await server.wait_for_connection(1)
        # The transports of those that are gone are not kept either.
        assert len(server._transports) <= 1


async def test_records_keep_no_more_than_they_may() -> None:
    async with TiroServer(api_key="ok", recorded_bytes=0) as server, connect(server) as client:
        await say(client, IS)
        assert [transcript(frame) for frame in client.settled]
        (connection,) = server.connections
        assert not connection.audio and not connection.frames
        assert connection.seconds == len(IS) / 32000
