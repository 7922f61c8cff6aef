"""The framework's own adapters around this STT: fallback, several speakers, one by one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from livekit import rtc
from livekit.agents import Agent, ModelSettings, inference, stt
from livekit.agents.stt import (
    FallbackAdapter,
    MultiSpeakerAdapter,
    SpeechEvent,
    StreamAdapter,
)
from livekit.plugins.tiro.testing import Hooks, ScriptedRecognizer, TiroServer, faults

from .support.harness import (
    END,
    FINAL,
    INTERIM,
    START,
    assert_alternating,
    collect,
    finals,
    frames,
    read_wav,
    until,
    words,
)
from .support.numbered import NumberedRecognizer, Talk, talk
from .support.session_fakes import Call, in_virtual_time, local_server, new_stt, speech

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Sequence

TURN = speech()
# s; small, so that a test can wait for whatever takes that long.
ATTEMPT = 1.0


class Pair:
    """Tiro with faults, and a second service to fall back to, under one `FallbackAdapter`."""

    def __init__(self, said: Talk, hooks: Hooks | None, key: str = "test") -> None:
        recognizers = {"is": NumberedRecognizer(said)}
        self.said = said
        self.first = TiroServer(
            api_key=key, recognizers=recognizers, hooks=hooks, interim_interval=0.05
        )
        self.second = TiroServer(recognizers=recognizers, interim_interval=0.05)
        self.changes: list[tuple[str, bool]] = []
        self.events: list[SpeechEvent] = []
        self.started = 0.0

    async def __aenter__(self) -> Pair:
        await self.first.start()
        await self.second.start()
        self.tiro = new_stt(self.first)
        self.other = new_stt(self.second)
        self.adapter = FallbackAdapter([self.tiro, self.other], attempt_timeout=ATTEMPT)
        self.adapter.on("stt_availability_changed", self._on_change)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.adapter.aclose()
        await self.tiro.aclose()
        await self.other.aclose()
        await self.first.aclose()
        await self.second.aclose()

    def _on_change(self, event: Any) -> None:
        self.changes.append(("tiro" if event.stt is self.tiro else "other", event.available))

    async def listen(self) -> None:
        """Push the talk at the pace of speech, and take the events down."""
        stream = self.adapter.stream()
        reading = asyncio.create_task(self._read(stream))
        self.started = asyncio.get_running_loop().time()
        for frame in frames(self.said.pcm()):
            await asyncio.sleep(0.05)
            stream.push_frame(frame)
        await until(lambda: words(self.events)[-1:] == self.said.texts[-1:])
        await stream.aclose()
        await reading

    async def _read(self, stream: stt.RecognizeStream) -> None:
        async for event in stream:
            self.events.append(event)

    def assert_times(self, heard: Sequence[str]) -> None:
        """The words have the times at which they were said, whoever heard them."""
        timed = {
            str(word): word
            for event in self.events
            if event.type is FINAL
            for word in event.alternatives[0].words or ()
        }
        for spoken in self.said.words:
            if spoken.text in heard:
                assert timed[spoken.text].start_time == pytest.approx(spoken.start, abs=0.1)


# -- FallbackAdapter: down at the start ----------------------------------------------------------


@pytest.mark.parametrize(
    ("hooks", "attempts"),
    [
        (faults.Refuse(503), 2),
        (faults.Refuse(401), 1),
        (faults.ResetHandshake(), 4),  # aiohttp asks twice each time
        (faults.StalledHandshake(), 2),
        (faults.Fail(8), 2),
        (faults.Fail(14), 2),
        (faults.Fail(16), 1),
    ],
    ids=["refused", "bad key, refused", "hangs up", "no answer", "quota", "down", "bad key"],
)
@in_virtual_time
async def test_the_switch_at_the_start_takes_no_longer_than_one_attempt(
    hooks: Hooks, attempts: int
) -> None:
    """Two attempts are made (`max_retry_per_stt` is 1), unless the error says that it is final."""
    async with Pair(talk(2), hooks) as pair:
        started = time.monotonic()
        stream = pair.adapter.stream()
        pushing = asyncio.create_task(_push_for_ever(stream))
        await pair.second.wait_for_connection()
        assert time.monotonic() - started < ATTEMPT + 1
        # One more is the adapter's own, which checks whether the service is back.
        await until(lambda: len(pair.first.connections) >= attempts)
        assert len(pair.first.connections) <= attempts + 1
        assert pair.changes == [("tiro", False)]
        pushing.cancel()
        await stream.aclose()


async def _push_for_ever(stream: stt.RecognizeStream) -> None:
    silence = rtc.AudioFrame.create(16000, 1, 800)
    while True:
        stream.push_frame(silence)
        await asyncio.sleep(0.05)


@in_virtual_time
async def test_what_is_said_from_the_switch_on_is_heard_by_the_second() -> None:
    async with Pair(talk(3, 2), faults.Refuse(503)) as pair:
        await pair.listen()
    assert words(pair.events) == pair.said.texts
    assert_alternating(pair.events)
    pair.assert_times(pair.said.texts)


# -- FallbackAdapter: down in mid-call -----------------------------------------------------------


@pytest.mark.parametrize(
    "down",
    [
        faults.PerConnection(faults.Disconnect(2.6), then=faults.Refuse(503)),
        faults.PerConnection(faults.Fail(8, 2.6), then=faults.Fail(8)),
        faults.PerConnection(faults.Fail(16, 2.6), then=faults.Fail(16)),
        faults.PerConnection(faults.Disconnect(2.6), then=faults.StalledHandshake()),
    ],
    ids=["gone", "quota", "key revoked", "gone, no answer"],
)
@in_virtual_time
async def test_the_switch_in_mid_call_keeps_what_was_shown_and_what_follows(down: Hooks) -> None:
    """The adapter does not send the second service what was said before the switch."""
    said = talk(2, 3, 2, gap=0.8)
    async with Pair(said, down) as pair:
        await pair.listen()
        (second,) = pair.second.connections
        lost_at = next(s.closed_at for s in pair.first.connections if s.closed_at)
        assert second.opened_at - lost_at < ATTEMPT + 1
        switched = second.opened_at - pair.started
    whole = [word for word in words(pair.events) if word in said.texts]
    after = [word.text for word in said.words if word.start > switched]
    assert whole[:2] == said.texts[:2], "finals from before"
    assert after and whole[-len(after) :] == after
    assert len(set(whole)) == len(whole), "no word twice"
    first = pair.events[0].request_id
    shown = [e for e in pair.events if e.type is INTERIM and e.request_id == first]
    assert shown[-1].alternatives[0].text in finals(pair.events)
    assert_alternating(pair.events)
    pair.assert_times(said.texts[:2] + after)


# -- FallbackAdapter: back again -----------------------------------------------------------------


@in_virtual_time
async def test_it_comes_back() -> None:
    """The adapter tries Tiro beside the second service, and takes it back after its first final."""
    async with Pair(talk(2, 2), faults.PerConnection(faults.Fail(14), faults.Fail(14))) as pair:
        await pair.listen()
        await until(lambda: pair.changes == [("tiro", False), ("tiro", True)])
        assert words(pair.events) == pair.said.texts
        before = len(pair.second.connections)
        await pair.listen()
        assert len(pair.second.connections) == before, "the next stream is Tiro's again"
        assert words(pair.events) == pair.said.texts * 2


@in_virtual_time
async def test_a_session_lives_on_when_the_service_goes_down_in_mid_call() -> None:
    english = {"en": ScriptedRecognizer("one two three four", words_per_second=5)}
    down = faults.PerConnection(faults.Disconnect(2.0), then=faults.Refuse(503))
    async with (
        local_server(hooks=down) as first,
        local_server(recognizers=english) as second,
        new_stt(first) as icelandic,
        new_stt(second, language="en-US") as other,
    ):
        adapter = FallbackAdapter([icelandic, other], attempt_timeout=ATTEMPT)
        assert adapter.capabilities.manual_flush and adapter.capabilities.aligned_transcript
        assert (adapter.provider, adapter.model) == ("Tiro", "is-IS")
        async with Call(adapter) as call:
            await call.microphone.say(TURN)
            await call.turns(1)
            await second.wait_for_connection()
            await call.microphone.say(TURN)
            await call.turns(2)
            assert not call.errors and not call.closed
            assert adapter.model == "en-US"
        await adapter.aclose()
    assert call.finals == ["einn tveir þrír fjórir", "one two three four"]
    assert call.replies == ["generate_reply"] * 2
    assert_alternating(call.events)


# -- MultiSpeakerAdapter -------------------------------------------------------------------------


def by_speakers(*lines: tuple[int, str]) -> TiroServer:
    """Return a server with a line for each utterance of `speakers_talk`."""
    return TiroServer(script=list(lines), words_per_second=5)


@pytest.mark.parametrize(
    ("tags", "speaker"),
    [((2, 2, 2, 2), "2"), ((1, 2, 2, 2), "2"), ((3, 3, 0, 3), "3"), ((0, 0, 0, 0), None)],
)
@in_virtual_time
async def test_the_speaker_of_a_final_is_that_of_most_of_its_words(
    tags: tuple[int, ...], speaker: str | None
) -> None:
    server = by_speakers(*((tag, "orð") for tag in tags))
    async with server, new_stt(server, diarization=True, max_speakers=4) as diarizing:
        events = await collect(diarizing.stream(), frames(TURN, 24000))
        assert server.connections[0].config["diarizationConfig"] == {
            "enableSpeakerDiarization": True,
            "maxSpeakerCount": 4,
        }
    (final,) = [event.alternatives[0] for event in events if event.type is FINAL]
    assert final.speaker_id == speaker
    of_words = [word.speaker_id for word in final.words or ()]
    assert of_words == [str(tag) if tag else None for tag in tags]


@in_virtual_time
async def test_several_speakers_and_one_of_them_in_the_background() -> None:
    server = by_speakers((1, "hæ hæ hæ hæ"), (2, "suð suð suð suð"), (1, "bless bless bless bless"))
    loud, quiet = TURN, (TURN // 2).astype(TURN.dtype)
    pause = TURN[:1] * 0
    audio = [part for pcm in (loud, quiet, loud) for part in (pcm, pause.repeat(24000))]
    async with server, new_stt(server, diarization=True) as diarizing:
        adapter = MultiSpeakerAdapter(
            stt=diarizing, suppress_background_speaker=True, primary_format="{speaker_id}: {text}"
        )
        stream = adapter.stream()
        events = await collect(stream, (f for pcm in audio for f in frames(pcm, 24000)), pace=0.01)
        await adapter.aclose()
        assert (adapter.provider, adapter.model) == ("Tiro", "is-IS")
    assert finals(events) == ["1: hæ hæ hæ hæ", "1: bless bless bless bless"]


@in_virtual_time
async def test_the_capability_goes_with_the_option() -> None:
    async with local_server() as server, new_stt(server) as plain:
        with pytest.raises(ValueError, match="diarization"):
            MultiSpeakerAdapter(stt=plain)
        plain.update_options(diarization=True)
        adapter = MultiSpeakerAdapter(stt=plain)
        assert adapter.capabilities.diarization
        plain.update_options(diarization=False)
        assert not plain.capabilities.diarization and not adapter.capabilities.diarization
        await adapter.aclose()


# -- StreamAdapter -------------------------------------------------------------------------------


@in_virtual_time
async def test_utterance_by_utterance_through_recognize() -> None:
    async with TiroServer() as server, new_stt(server) as whole:
        adapter = StreamAdapter(stt=whole, vad=inference.VAD())
        events = await collect(adapter.stream(), frames(read_wav("is2.wav")))
        await adapter.aclose()
        # The wav goes on after the last word of the script: that sound is sent again to be sure.
        assert 2 <= len(server.connections) <= 4
        assert all(connection.ended for connection in server.connections)
        assert (adapter.provider, adapter.model) == ("Tiro", "is-IS")
    assert [e.type for e in events if e.type in (START, END)] == [START, END, START, END]
    assert len(finals(events)) == 2
    assert all(len(text.split()) > 5 for text in finals(events))


# -- stt_node ------------------------------------------------------------------------------------


class Shouting(Agent):
    """An agent that changes what its STT says."""

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], model_settings: ModelSettings
    ) -> AsyncIterator[SpeechEvent]:
        async for event in Agent.default.stt_node(self, audio, model_settings):
            if event.alternatives:
                first = event.alternatives[0]
                event.alternatives = [replace(first, text=first.text.upper())]
            yield event


class OnItsOwn(Agent):
    """An agent that opens the stream itself."""

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], model_settings: ModelSettings
    ) -> AsyncIterator[SpeechEvent]:
        assert self.session.stt is not None
        async with self.session.stt.stream(language="is-IS-x-own") as stream:
            pushing = asyncio.create_task(self._push(audio, stream))
            try:
                async for event in stream:
                    yield event
            finally:
                pushing.cancel()

    async def _push(
        self, audio: AsyncIterable[rtc.AudioFrame], stream: stt.RecognizeStream
    ) -> None:
        async for frame in audio:
            stream.push_frame(frame)


@pytest.mark.parametrize("kind", [Shouting, OnItsOwn])
@in_virtual_time
async def test_an_agent_with_its_own_stt_node(kind: type[Agent]) -> None:
    agent = kind(instructions="Svaraðu.")
    async with local_server() as server, new_stt(server) as own, Call(own, agent=agent) as call:
        await call.microphone.say(TURN)
        await call.turns(1)
        (connection,) = server.connections
    said = "einn tveir þrír fjórir"
    assert call.finals == [said.upper() if kind is Shouting else said]
    assert connection.language == ("is-IS" if kind is Shouting else "is-IS-x-own")
    assert not call.errors
