"""Where faults get in: what a hook sees, and what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    HandshakeRefusal,
    Hooks,
    TiroServer,
)
from livekit.plugins.tiro.testing.faults import Combined, Disconnect, PerConnection

from .support.server_client import TEST, config, connect, say
from .support.server_recordings import (
    IS,
    transcript,
)

if TYPE_CHECKING:
    from collections.abc import Callable


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
    assert client.frames == server.connections[0].frames == []


async def test_hook_refuses_a_handshake() -> None:
    class Closed(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            return HandshakeRefusal(503, "come back later")

    async with TiroServer(hooks=Closed()) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(server.base_url + TEST)
    assert caught.value.status == 503
    assert server.connections[0].closed.is_set() and server.connections[0].closed_by == "server"


async def test_hooks_that_nobody_overrides_change_nothing() -> None:
    async with TiroServer(words_per_second=1) as server, connect(server, TEST) as client:
        await say(client, IS)
    assert repr(Hooks()) == "Hooks()"
    assert [transcript(frame) for frame in client.settled] == ["góðan daginn og"]
    assert client.frames == server.connections[0].frames


async def test_a_connection_can_have_hooks_of_its_own() -> None:
    class Refused(Hooks):
        async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
            return f"{connection.number}"

    class Chosen(Hooks):
        def for_connection(self, connection: ConnectionRecord) -> Hooks:
            return Refused() if connection.number else self

    async with TiroServer(hooks=Chosen(), words_per_second=1, interim_interval=100) as server:
        frames = []
        for _ in range(2):
            async with connect(server, TEST) as client:
                await say(client, IS)
            frames.append(client.frames)
    assert len(frames[0]) == len(frames[1]) == 1
    assert transcript(frames[0][0]) and frames[1] == ["1"]


@pytest.mark.parametrize("wrong", [[Disconnect(1)], Disconnect, 1, "disconnect"])
@pytest.mark.parametrize(
    ("take", "message"),
    [
        (PerConnection, "each argument must be one fault, such as .* or None, not .*: give"),
        (lambda it: PerConnection(then=it), "each argument must be one fault"),
        (Combined, "each argument must be one fault"),
        (lambda it: TiroServer(hooks=it), r"hooks must be one fault, .* faults\.PerConnection"),
    ],
)
def test_what_is_no_hooks_is_refused_where_it_is_given(
    take: Callable[[Any], object], message: str, wrong: object
) -> None:
    """At a connection it would look like a fault of the service."""
    with pytest.raises(ValueError, match=message):
        take(wrong)
