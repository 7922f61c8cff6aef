"""The local server: who may connect, what it remembers, how it starts and ends, its limits."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import math
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from livekit.plugins.tiro.testing import (
    At,
    ConnectionRecord,
    HandshakeRefusal,
    Hooks,
    ScriptedRecognizer,
    TiroServer,
    server as server_module,
)

from .support.harness import until
from .support.server_client import DEADLINE, TEST, config, connect, raw_client, say, send_all
from .support.server_recordings import (
    CONFIG,
    IS,
    IS2,
    NOT_PLAYED,
    PLAYED_ALONE,
    REFUSED,
    SPOKEN,
    WIRE,
    audio_message,
    transcript,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


def test_every_recording_is_accounted_for() -> None:
    names = {path.name.split(".")[0] for path in WIRE.glob("*.jsonl")}
    assert names == {*SPOKEN, *REFUSED, *NOT_PLAYED, *PLAYED_ALONE}


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
    assert server.connections == []


async def test_session_remembers_what_came() -> None:
    async with TiroServer(words_per_second=1) as server:
        async with connect(server, TEST) as client:
            connection = await asyncio.wait_for(server.wait_for_connection(), DEADLINE)
            assert connection.config == {} and connection.seconds == 0.0 and not connection.ended
            assert await say(client, IS, config(languageCode="is-IS-x-exp")) == 1006
        assert await server.wait_for_connection() is connection is server.connections[0]
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
        assert server.connections[0].token == "s3cret"
        assert "s3cret" not in repr(server.connections) + repr(server)


async def test_any_key_is_taken_without_one_to_ask_for() -> None:
    async with TiroServer(api_key=None) as server:
        async with connect(server, "/speech:streamingrecognize") as client:
            await say(client, IS)
    assert client.settled and server.connections[0].token is None


@pytest.mark.parametrize("key", ["", " "])
def test_a_key_that_no_client_can_send_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="api_key must not be empty: give a key, or None"):
        TiroServer(api_key=key)


NO_NUMBERS: list[Any] = ["1", None, True, -1, math.nan, math.inf]


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("api_key", ["'key'"], "api_key must not be in quotation marks"),
        ("recognizers", [5], "recognizers must be a mapping .* not a int$"),
        (
            "recognizers",
            [{"is": "já"}],
            "recognizers must have factories, .* for 'is' there is 'já'",
        ),
        ("api_key", [7, b"key"], "api_key must be a text, .* not of type (int|bytes)$"),
        ("host", ["", " ", None, 7], "host must be an address or a name, such as 127.0.0.1, not"),
        ("port", [65536, 80.0, *NO_NUMBERS], "port must be a whole number from 0 to 65535, not"),
        ("error_style", ["v3", None], "error_style must be one of v1, v2, not"),
        ("recorded_bytes", [1.5, *NO_NUMBERS], "recorded_bytes must be a whole number of 0 or"),
        (
            "max_connections",
            [0, 1.5, *NO_NUMBERS],
            "max_connections must be a whole number of 1",
        ),
        ("endpoint_silence", NO_NUMBERS, "endpoint_silence must be a number of 0 or more, not"),
        ("interim_interval", NO_NUMBERS, "interim_interval must be a number of 0 or more, not"),
        (
            "words_per_second",
            [0, 1e-320, *NO_NUMBERS],
            "words_per_second must be a number from 0.01 to 1000, not",
        ),
    ],
)
@pytest.mark.parametrize("script", [None, [At(1, "já")]], ids=["voice", "times"])
def test_an_argument_that_is_nonsense_is_refused_where_it_is_given(
    name: str, wrong: list[Any], message: str, script: Any
) -> None:
    for value in wrong:
        with pytest.raises(ValueError, match=message):
            TiroServer(script=script, **{name: value})


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
        await until(lambda: server.connections[1].messages >= 47, DEADLINE)
        started = loop.time()
        await server.aclose()
        assert loop.time() - started < 1.0
        assert [await client.end() for client in clients] == [1006] * 3
        assert all(connection.closed.is_set() for connection in server.connections)
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


async def test_connections_are_numbered_as_they_come() -> None:
    async with TiroServer() as server, contextlib.AsyncExitStack() as stack:
        clients = [stack.enter_async_context(connect(server, TEST)) for _ in range(10)]
        await asyncio.gather(*clients)
        assert [connection.number for connection in server.connections] == list(range(10))
        assert server.sessions is server.connections


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
    assert [connection.status for connection in server.connections] == [0, 0, 0, 3, 3]


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


@pytest.mark.many
async def test_connections_do_not_share_a_script() -> None:
    """Many at once, each from the top."""
    async with TiroServer(words_per_second=1, api_key="ok") as server:

        async def one() -> list[str]:
            async with connect(server) as client:
                await say(client, IS2)
            return [transcript(frame) for frame in client.settled]

        heard = await asyncio.gather(*(one() for _ in range(20)))
    assert heard == [["góðan daginn og", "velkomin í prófunina veðrið"]] * 20


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
        assert server.connections is server.connections and server.connection_count == 4
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
