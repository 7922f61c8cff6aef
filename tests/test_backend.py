"""The service behind the gateway, against the recordings of the wire and without a socket."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest

from livekit.plugins.tiro.testing import (
    At,
    ConnectionRecord,
    RecognizerFactory,
    ScriptedRecognizer,
    SpeechConfig,
    TimedRecognizer,
    TiroServer,
    Word,
)
from livekit.plugins.tiro.testing.backend import BLOCKING_SAMPLES, Backend, Timing
from livekit.plugins.tiro.testing.recognizer import ScriptedRecognition, script_words
from livekit.plugins.tiro.testing.wire import FrameStyle, MessageReader

from .support.server_client import TEST, VOICED, connect, finish, pace_of, send, start
from .support.server_recordings import (
    SPOKEN,
    Recording,
    Samples,
    recordings,
    samples,
    transcript,
)


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


class Slow:
    """A recogniser that blocks in its thread until the test releases it."""

    blocking = True

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()
        self.calls: list[str] = []

    def __call__(self, config: SpeechConfig) -> Slow:
        return self

    def feed(self, samples: Samples, start: float) -> None:
        self.calls.append(f"feed {len(samples)} at {start:.2f}")
        self.started.set()
        assert self.go.wait(10)
        self.calls.append("fed")

    def silence(self) -> float | None:
        return None

    def partial(self) -> tuple[Word, ...]:
        return ()

    def final(self, alternatives: int) -> list[tuple[Word, ...]]:
        self.calls.append("final")
        return [(Word("loksins", 0.0, 1.0),)]

    def close(self) -> None:
        self.calls.append("close")


async def test_recogniser_that_blocks_does_not_hold_up_the_others() -> None:
    slow = Slow()
    async with TiroServer(recognizers={"xx": slow}) as server, connect(server, TEST) as client:
        await start(client, "xx")
        await send(client, np.concatenate([VOICED] * 25))
        await asyncio.to_thread(slow.started.wait, 10)
        async with connect(server, TEST) as other:
            await start(other, "is-IS")
            await send(other, samples("is.wav")[10000:40000])
            await finish(other)
        assert other.settled and not client.gone
        slow.go.set()
        await finish(client)
    assert [transcript(frame) for frame in client.settled] == ["loksins"]
    # Half a second less the look-ahead, in pieces that keep each call short.
    pieces = [f"feed {BLOCKING_SAMPLES} at {n * 0.05:.2f}" for n in range(4)]
    assert slow.calls == [call for piece in pieces for call in (piece, "fed")] + ["final", "close"]


async def test_closing_the_server_waits_for_a_recogniser_in_its_thread() -> None:
    """It is closed only after its call has returned: two threads in it might crash."""
    slow = Slow()
    async with TiroServer(recognizers={"xx": slow}) as server, connect(server, TEST) as client:
        await start(client, "xx")
        await send(client, np.concatenate([VOICED] * 16))
        await asyncio.to_thread(slow.started.wait, 10)
        closing = asyncio.create_task(server.aclose())
        await asyncio.wait([closing], timeout=0.1)
        assert slow.calls == ["feed 320 at 0.00"]
        slow.go.set()
        await closing
    assert slow.calls == ["feed 320 at 0.00", "fed", "close"]


async def test_failure_of_a_recogniser_ends_its_session(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Slow):
        def feed(self, samples: Samples, start: float) -> None:
            raise RuntimeError("no such luck")

    broken = Broken()
    async with TiroServer(recognizers={"xx": broken}) as server, connect(server, TEST) as client:
        await start(client, "xx")
        await send(client, np.concatenate([VOICED] * 25))
        await client.end()
    assert json.loads(client.frames[0])["error"]["grpcCode"] == 13
    assert broken.calls == ["close"] and "no such luck" in caplog.text


# -- how it listens ------------------------------------------------------------------------------

MS = 16
"""Samples."""
VOICE = 3000


def listening(script: str | list[At], **options: Any) -> Backend:
    """Return a backend that says a script, with hypotheses left out."""
    config = SpeechConfig("is-IS", 16000, word_offsets=True)
    factory: RecognizerFactory = (
        ScriptedRecognizer(script) if isinstance(script, str) else TimedRecognizer(script)
    )
    return Backend(
        config,
        factory(config),
        style=FrameStyle(),
        timing=Timing(),
        clock=lambda: 0.0,
        **options,
    )


async def hear(backend: Backend, *parts: tuple[int, int], ms: int = 50) -> list[str]:
    """Send audio of so many ms and such a level, in messages of `ms`."""
    audio = np.concatenate([np.full(length * MS, level, np.int16) for length, level in parts])
    frames: list[str] = []
    for at in range(0, len(audio), ms * MS):
        frames += await backend.audio(audio[at : at + ms * MS].tobytes())
    return frames


def first_start(frame: str) -> str:
    words = json.loads(frame)["result"]["results"][0]["alternatives"][0]["words"]
    return str(words[0]["startTime"])


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(
    ("text", "silence"), [("Einn, tveir", 500), ("einn tveir,", 1000), ("einn tveir…", 2000)]
)
async def test_the_endpointer_has_three_rules(text: str, silence: int, timed: bool) -> None:
    """How long it waits depends on how complete the sentence looks. The look-ahead comes on top."""
    backend = listening([At(0.0, text)] if timed else text)
    assert await hear(backend, (800, VOICE), (silence + 300 - 50, 0)) == []
    frames = await hear(backend, (50, 0))
    assert [transcript(frame) for frame in frames] == ["einn tveir"]


async def test_the_gate_looks_at_whole_frames_of_one_message() -> None:
    """Of a message of 50 ms it looks at 30: a sound in the rest is thrown away with the message."""
    backend = listening("einn")
    await hear(backend, (230, 0), (500, VOICE), (350, 0))
    (frame,) = await backend.end()
    assert first_start(frame) == "0.250s"
    backend = listening("einn")
    await hear(backend, (210, 0), (500, VOICE), (350, 0), ms=60)
    (frame,) = await backend.end()
    assert first_start(frame) == "0.200s", "nothing is thrown away; words start at frames of 20 ms"


async def test_the_gate_is_closed_again_after_a_final() -> None:
    backend = listening("einn tveir")
    said = (500, VOICE), (800, 0)
    first = await hear(backend, *said)
    second = await hear(backend, (80, 0), *said)
    starts = [first_start(frame) for frame in (*first, *second)]
    assert starts == ["0s", "1.400s"], "20 ms of the second are thrown away"


async def test_a_short_message_opens_the_gate() -> None:
    backend = listening("einn")
    assert await hear(backend, (6000, 0), ms=60) == []
    assert len(await hear(backend, (5400, 0), ms=20)) == 1, "it says that it heard nothing"


async def test_the_gate_can_be_left_out() -> None:
    backend = listening("einn", voice_gate=False)
    await hear(backend, (230, 0), (500, VOICE), (350, 0))
    (frame,) = await backend.end()
    assert first_start(frame) == "0.220s"


class Placed(ScriptedRecognition):
    """Finds out with the third message where its audio belongs."""

    connection: ConnectionRecord | None = None
    seen: list[float]

    def watch(self, connection: ConnectionRecord) -> None:
        self.connection, self.seen = connection, []

    def place(self, samples: Samples, start: float) -> bool:
        self.seen.append(start)
        return len(self.seen) >= 3

    def give_up_placing(self) -> None:
        pass


def placed() -> tuple[Backend, Placed]:
    config = SpeechConfig("is-IS", 16000, word_offsets=True)
    recognition = Placed(script_words("einn tveir"), 20, config)
    connection = ConnectionRecord(0, "/", None, 0.0)
    backend = Backend(
        config,
        recognition,
        style=FrameStyle(),
        timing=Timing(),
        clock=lambda: 0.0,
        connection=connection,
    )
    assert recognition.connection is connection
    return backend, recognition


async def test_messages_wait_until_their_place_is_known() -> None:
    """Then they are heard one by one: the results of each go out before the next is heard."""
    backend, recognition = placed()
    voice = np.concatenate([np.full(800 * MS, VOICE, np.int16), np.zeros(800 * MS, np.int16)])
    for _ in range(2):
        assert await backend.audio(voice.tobytes()) == []
        assert await backend.go_on() is None
    heard = [await backend.audio(np.zeros(800, np.int16).tobytes())]
    while (frames := await backend.go_on()) is not None:
        heard.append(frames)
    assert recognition.seen == pytest.approx([0.0, 1.6, 3.2])
    starts = [[first_start(frame) for frame in frames] for frames in heard]
    assert starts == [["0s"], ["1.600s"], []]


async def test_what_waits_at_the_end_is_heard_out() -> None:
    backend, _ = placed()
    assert await backend.audio(np.full(1000 * MS, VOICE, np.int16).tobytes()) == []
    assert await backend.hear_out() == []
    assert await backend.hear_out() is None
    (frame,) = await backend.end()
    assert transcript(frame) == "einn"
