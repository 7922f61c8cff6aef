"""One websocket of the local server against the recordings, by a client without the plugin."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from contextlib import suppress

import pytest

from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    Drop,
    Hooks,
    StatusError,
    TiroServer,
)
from livekit.plugins.tiro.testing.conversation import (
    LONGEST_LINE,
    READ_AHEAD_BYTES,
    HalfClose,
    Inbox,
)
from livekit.plugins.tiro.testing.wire import ClientMessage

from .support.harness import until
from .support.server_client import (
    DEADLINE,
    TEST,
    Held,
    config,
    connect,
    like,
    options_of,
    raw_client,
    raw_ping,
    replay,
    say,
    send_all,
)
from .support.server_recordings import (
    CONFIG,
    IS,
    REFUSED,
    SPOKEN,
    Recording,
    audio_message,
    is_interim,
    recording,
    recordings,
    transcript,
)
from .support.session_fakes import in_virtual_time

# Messages that the recordings show shortened, by their first characters.
UNPADDED = base64.b64encode(bytes(655)).decode().rstrip("=")

SHORTENED = {
    '{"audioContent": "AAAA': json.dumps({"audioContent": UNPADDED}),
    '{"audioContent": "_---': json.dumps({"audioContent": "_---" * 200}),
}


@pytest.mark.parametrize(
    "recorded", [*recordings(SPOKEN, "full"), *recordings(["happy_is"], "sparse")]
)
async def test_server_answers_as_recorded(recorded: Recording) -> None:
    """Over a socket: the same finals and events, and no interim missing.

    What is in a frame in the other mode is up to the backend, whose tests have them all.
    """
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
    assert [str(server.connections[0].status)] == codes


@pytest.mark.parametrize("recorded", recordings(["frame_borders"]))
async def test_frames_are_one_stream_of_json(recorded: Recording) -> None:
    """Two messages in a frame, and a message over two frames."""
    held = Held()
    texts = {CONFIG: CONFIG + audio_message(IS[:2048])}
    async with like(recorded, hooks=held) as server, connect(server) as client:
        await replay(client, recorded, IS[2048:], texts, held)
    assert client.settled == recorded.received[-1:]
    assert server.connections[0].sizes[:2] == [2048, 2048]


@pytest.mark.parametrize("name", ["end_by_closing", "end_then_close_at_once"])
async def test_client_that_closes_gets_no_final(name: str) -> None:
    """The close frame is echoed, and the final has nowhere to go."""
    held = Held()
    recorded = recording(name, "full")
    async with like(recorded, hooks=held) as server:
        async with connect(server) as client:
            assert await replay(client, recorded, IS, {}, held) == 1000
        connection = server.connections[0]
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
            # After the answer to a ping, any frame sent before it would be here.
            await raw_ping(server)
            assert not client.gone
        await asyncio.wait_for(server.connections[0].closed.wait(), DEADLINE)
    assert client.frames == [] and client.websocket.close_code == 1000


async def test_nothing_is_said_before_the_first_message() -> None:
    """The handshake is granted whatever the key. The pong comes first: no frame came before it."""
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


async def test_client_that_closes_before_its_first_message() -> None:
    async with TiroServer() as server:
        async with connect(server, TEST):
            pass
        await asyncio.wait_for(server.connections[0].closed.wait(), DEADLINE)
    assert server.connections[0].closed_by == "client" and server.connections[0].frames == []


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
    assert server.connections[0].messages == 3
    assert bool(caplog.records) == isinstance(fault, RuntimeError)


async def test_client_that_goes_without_a_word() -> None:
    """The connection ends by itself, and nothing is written to nobody."""
    async with TiroServer() as server:
        async with raw_client(server, "?token=test") as client:
            client.send(1, CONFIG.encode())
            client.send(1, audio_message(IS[:64000]).encode())
            connection = await server.wait_for_connection()
            await until(lambda: connection.messages > 0, DEADLINE)
            client.writer.transport.abort()
        await asyncio.wait_for(connection.closed.wait(), DEADLINE)
    assert connection.closed_by == "client" and connection.end == "half-close"
    assert not [frame for frame in connection.frames if not is_interim(frame)]


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


async def test_reading_ahead_is_bounded_by_bytes() -> None:
    inbox = Inbox()
    await inbox.put(HalfClose(), READ_AHEAD_BYTES)
    over = asyncio.create_task(inbox.put(HalfClose(), 1))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(over), 0.05)
    await inbox.get()
    await asyncio.wait_for(over, DEADLINE)


@in_virtual_time
async def test_a_message_has_the_time_of_its_arrival() -> None:
    """Also if it is taken up late."""
    inbox = Inbox()
    now = asyncio.get_running_loop().time
    arrived = []
    for _ in range(2):
        arrived.append(now())
        await inbox.put(HalfClose())
        await asyncio.sleep(2.0)
    for each in arrived:
        await inbox.get()
        assert inbox.arrived_at == pytest.approx(each, abs=0.01)


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


async def test_what_comes_after_the_end_is_not_read() -> None:
    """Reading it would wait for room in the inbox, which nobody empties any more."""
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
    put: list[None] = []

    async def fill() -> None:
        while len(put) <= READ_AHEAD_BYTES / 1000:
            await inbox.put(ClientMessage(audio=b"ab"))
            put.append(None)

    # It waits for nothing but room.
    filling = asyncio.create_task(fill())
    done, _ = await asyncio.wait({filling}, timeout=0.05)
    assert not done
    assert len(put) > 1000
    filling.cancel()
    with suppress(asyncio.CancelledError):
        await filling
