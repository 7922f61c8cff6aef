"""Everything a voice agent does with its STT, in a real `AgentSession`, against the local server.

The session, its VAD (`livekit.agents.inference`) and its turn taking are the framework's own; the
room, the LLM and the loudspeaker are the stand-ins of `session_fakes`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from livekit.agents import Agent, APIStatusError, inference
from livekit.agents.metrics import STTMetrics, STTModelUsage
from livekit.agents.telemetry import set_tracer_provider, tracer
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    HandshakeRefusal,
    Hooks,
    ScriptedRecognizer,
    TiroServer,
    faults,
)

from .support.harness import (
    END,
    FINAL,
    INTERIM,
    START,
    assert_alternating,
    collect,
    frames,
    until,
    words,
)
from .support.numbered import NumberedRecognizer, talk
from .support.session_fakes import (
    Call,
    in_virtual_time,
    local_server,
    new_stt,
    speech,
    voiced,
)

if TYPE_CHECKING:
    from livekit.agents.stt import SpeechEvent

TURN = speech()
FIRST, SECOND = "einn tveir þrír fjórir", "fimm sex sjö átta"
# s of silence after which the server decides by itself; twice what it usually takes.
SLOW = 1.0


def of_type(events: list[SpeechEvent], kind: Any) -> list[SpeechEvent]:
    return [event for event in events if event.type is kind]


def assert_wall_clock(call: Call) -> None:
    """START and END say when the microphone heard each utterance, in epoch seconds (T6)."""
    first, last = voiced(TURN)
    starts = [event.speech_start_time for event in of_type(call.events, START)]
    ends = [event.speech_end_time for event in of_type(call.events, END)]
    heard = call.microphone.heard_at
    assert starts == [pytest.approx(at + first, abs=0.15) for at, _ in heard]
    # The last 0.2 s can be half a word, which the recogniser leaves out.
    assert ends == [pytest.approx(at + last - 0.05, abs=0.2) for at, _ in heard]


# -- what the README says of refusals ------------------------------------------------------------


def row_of_readme(begins: str) -> str:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| {begins}")]
    return row


@in_virtual_time
async def test_a_session_whose_key_is_refused_closes() -> None:
    async with local_server(api_key="another") as server, new_stt(server) as stt:
        async with Call(stt, "vad") as call:
            saying = asyncio.create_task(call.microphone.say(np.concatenate([TURN] * 5)))
            await until(lambda: bool(call.closed))
            saying.cancel()
        assert [event.reason.value for event in call.closed] == ["error"]
        assert len(server.connections) == 4
    told = "an `AgentSession` opens a new stream, three times, and then closes"
    assert told in row_of_readme("the key, the quota or an option is refused")
    assert told in row_of_readme("for longer, or from the start")


@in_virtual_time
async def test_a_value_that_the_service_refuses_in_mid_call_ends_the_stream() -> None:
    said = _Said()
    async with said.server() as server, new_stt(server) as stt:
        stream = stt.stream()
        await said.begin(server, stream)
        stt.update_options(language="de-DE")
        with pytest.raises(APIStatusError, match="Check the options given to tiro.STT") as raised:
            await collect(stream, said.audio[30:])
        assert raised.value.status_code == 400 and not raised.value.retryable
    told = "A value that the service refuses in mid call ends the stream, as a wrong key does"
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    docstring = inspect.getdoc(tiro.STT.update_options) or ""
    for text in (readme, docstring):
        assert told in " ".join(text.split())


# -- turn taking (item 2) ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["vad", "stt", "stt without a VAD", "manual", "turn detector"])
@in_virtual_time
async def test_two_turns(mode: str) -> None:
    detection: Any = inference.TurnDetector() if mode == "turn detector" else mode.split()[0]
    options = {"vad": None} if "without" in mode else {}
    async with (
        local_server() as server,
        new_stt(server) as stt,
        Call(stt, detection, **options) as call,
    ):
        for turn in (1, 2):
            await call.microphone.say(TURN)
            if mode == "manual":
                await call.session.commit_user_turn()
            await call.turns(turn)
        assert [item.text_content for item in call.user_items] == [FIRST, SECOND]
        assert call.llm.asked == [FIRST, SECOND]
        assert call.replies == ["generate_reply"] * 2, "one reply a turn"
        assert len(server.connections) == 1
    assert not call.errors
    assert call.finals == [FIRST, SECOND]
    kinds = "".join("F" if final else "i" for _, final in call.transcribed)
    assert kinds.strip("i").replace("i", "") == "FF" and kinds[0] == "i"
    assert "iF" in kinds.partition("F")[2], "each turn has interims, then its final"
    assert_alternating(call.events)
    assert_wall_clock(call)


# -- flush (item 3) ------------------------------------------------------------------------------


@pytest.mark.parametrize("detached", [True, False])
@in_virtual_time
async def test_push_to_talk_does_not_wait_for_the_endpointer(detached: bool) -> None:
    async with (
        local_server(endpoint_silence=SLOW) as server,
        new_stt(server) as stt,
        Call(stt, "manual") as call,
    ):
        for turn, said in enumerate((FIRST, SECOND), 1):
            call.session.input.set_audio_enabled(True)
            await call.microphone.say(TURN)
            call.session.input.set_audio_enabled(not detached)
            released = time.monotonic()
            assert await call.session.commit_user_turn() == said
            assert time.monotonic() - released < 0.5
            await call.turns(turn)
        assert_alternating(call.events)


@in_virtual_time
async def test_push_to_talk_gets_its_final_from_an_endpointer_that_is_slower_still() -> None:
    async with (
        local_server(endpoint_silence=2.4) as server,
        new_stt(server) as stt,
        Call(stt, "manual") as call,
    ):
        await call.microphone.say(TURN)
        call.session.input.set_audio_enabled(False)
        assert await call.session.commit_user_turn(transcript_timeout=2.0) == FIRST
        assert [e.alternatives[0].text for e in of_type(call.events, FINAL)] == [FIRST]


@pytest.mark.parametrize("before", ["nothing", "silence", "a turn"])
@in_virtual_time
async def test_push_to_talk_with_nothing_said_answers_within_300_ms(before: str) -> None:
    async with (
        local_server(endpoint_silence=SLOW) as server,
        new_stt(server) as stt,
        Call(stt, "manual") as call,
    ):
        if before == "nothing":
            call.session.input.set_audio_enabled(False)
        elif before == "silence":
            await until(lambda: call.microphone.pushed > 0.5)
        else:
            await call.microphone.say(TURN)
            await call.session.commit_user_turn()
            await call.turns(1)
        finals = len(of_type(call.events, FINAL))
        released = time.monotonic()
        assert await call.session.commit_user_turn() == ""
        assert time.monotonic() - released < 0.3
        assert [e.alternatives[0].text for e in of_type(call.events, FINAL)[finals:]] == [""]
        assert_alternating(call.events)


@in_virtual_time
async def test_the_end_of_speech_by_the_vad_brings_the_final_forward() -> None:
    """And the silence sent for it moves nothing: the second turn's times are true as well."""
    async with (
        local_server(endpoint_silence=SLOW) as server,
        new_stt(server) as stt,
        Call(stt, "vad") as call,
    ):
        for turn in (1, 2):
            await call.microphone.say(TURN)
            await call.turns(turn)
        delays = [item.metrics["transcription_delay"] for item in call.user_items]
    # The VAD takes 0.25 s to be sure, the server alone would take 1.3 s.
    assert max(delays) < 0.6
    assert call.finals == [FIRST, SECOND]
    assert_wall_clock(call)


@in_virtual_time
async def test_hanging_up_in_the_middle_of_a_word_loses_nothing_that_was_heard() -> None:
    async with (
        local_server(endpoint_silence=SLOW) as server,
        new_stt(server) as stt,
        Call(stt, "vad") as call,
    ):
        await call.microphone.say(TURN)
        closing = time.monotonic()
        await call.session.aclose()
        assert time.monotonic() - closing < 1.0
    assert [item.text_content for item in call.user_items] == [FIRST]


# -- mute (item 4) -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["vad", "stt"])
@pytest.mark.parametrize(
    "limit", [None, faults.IdleLimit(5.0, None), faults.IdleLimit(5.0, 11)], ids=repr
)
@in_virtual_time
async def test_a_mute_of_20_s(mode: str, limit: Hooks | None) -> None:
    async with local_server(hooks=limit) as server, new_stt(server) as stt, Call(stt, mode) as call:
        await call.microphone.say(TURN)
        await call.turns(1)
        call.session.input.set_audio_enabled(False)
        await asyncio.sleep(20)
        assert len(server.connections) == 1, "nobody speaks: there is nothing to connect for"
        assert bool(server.connections[0].closed_at) == bool(limit)
        call.session.input.set_audio_enabled(True)
        await call.microphone.say(TURN)
        await call.turns(2)
        assert len(server.connections) == (2 if limit else 1)
    assert not call.errors and not call.closed[:-1]
    first, second = call.finals
    assert first == FIRST
    assert second == (FIRST if limit else SECOND), "a new session reads the script anew"
    assert call.microphone.heard_at[1][0] - call.microphone.heard_at[0][0] > 20
    assert_wall_clock(call)
    assert_alternating(call.events)
    for item, (_, heard) in zip(call.user_items, call.microphone.heard_at, strict=True):
        assert item.metrics["stopped_speaking_at"] == pytest.approx(heard, abs=0.4)
        assert 0 < item.metrics["transcription_delay"] < 1.5
    after = of_type(call.events, FINAL)[1].alternatives[0]
    before = of_type(call.events, FINAL)[0].alternatives[0]
    moved = call.microphone.heard_at[1][0] - call.microphone.heard_at[0][0]
    assert after.start_time - before.start_time == pytest.approx(moved, abs=0.1)
    timed = after.words or []
    assert [str(word) for word in timed] == second.split()
    assert timed[0].start_time == pytest.approx(after.start_time)


@in_virtual_time
async def test_a_mute_in_the_middle_of_an_utterance() -> None:
    """Without audio the service would never decide, but the caller has finished."""
    async with (
        local_server() as server,
        new_stt(server) as stt,
        Call(stt, "stt", vad=None) as call,
    ):
        await call.microphone.say(TURN)
        call.session.input.set_audio_enabled(False)
        await asyncio.sleep(5)
        await call.turns(1)
        await asyncio.sleep(15)
        call.session.input.set_audio_enabled(True)
        await call.microphone.say(TURN)
        await call.turns(2)
        assert len(server.connections) == 1
    assert call.finals == [FIRST, SECOND]
    assert_alternating(call.events)
    assert_wall_clock(call)


# -- options while running (item 5) --------------------------------------------------------------


@in_virtual_time
async def test_a_language_change_in_mid_utterance_decodes_the_utterance_again() -> None:
    english = ScriptedRecognizer("one two three four five", words_per_second=5)
    async with (
        local_server(recognizers={"en": english}) as server,
        new_stt(server) as stt,
        Call(stt, "vad") as call,
    ):
        saying = asyncio.create_task(call.microphone.say(TURN))
        await until(lambda: bool(of_type(call.events, INTERIM)))
        stt.update_options(language="en-US")
        await saying
        await call.turns(1)
        assert [connection.language for connection in server.connections] == ["is-IS", "en-US"]
        assert [e.alternatives[0].language for e in of_type(call.events, FINAL)] == ["en-US"]
        assert call.finals == ["one two three four"]
        assert call.transcribed[0][0] in FIRST, "it began in Icelandic"
        assert_alternating(call.events)
        assert_wall_clock(call)


class _Said:
    """Numbered audio on its way through several streams, so that a change shows in each."""

    def __init__(self) -> None:
        self.talk = talk(6, gap=1.0)
        self.audio = list(frames(self.talk.pcm()))

    def server(self, hooks: Hooks | None = None) -> TiroServer:
        recognizer = NumberedRecognizer(self.talk)
        return TiroServer(recognizers={"is": recognizer}, interim_interval=0.0, hooks=hooks)

    async def begin(self, server: TiroServer, *streams: tiro.SpeechStream) -> None:
        """Say the first half, and wait until all of them have shown some of it."""
        for stream in streams:
            for frame in self.audio[:30]:
                stream.push_frame(frame)
        await until(
            lambda: (
                sum(bool(connection.frames) for connection in server.connections) == len(streams)
            )
        )

    async def end(self, *streams: tiro.SpeechStream) -> None:
        """Say the rest; each of them has to have heard everything, once."""
        for events in await asyncio.gather(*(collect(s, self.audio[30:]) for s in streams)):
            assert words(events) == self.talk.texts
            assert_alternating(events)


@in_virtual_time
async def test_a_change_on_the_stt_reaches_every_stream_and_on_a_stream_only_that_one() -> None:
    said = _Said()
    async with said.server() as server, new_stt(server) as stt:
        streams = stt.stream(), stt.stream(), stt.stream()
        await said.begin(server, *streams)
        streams[0].update_options(language="is-IS-x-one")
        assert stt.model == "is-IS"
        await until(lambda: [s.language for s in server.connections[3:]] == ["is-IS-x-one"])
        stt.update_options(language="is-IS-x-all")
        assert stt.model == "is-IS-x-all"
        assert {stream.options.language for stream in streams} == {"is-IS-x-all"}
        await said.end(*streams)
        tags = sorted(connection.language for connection in server.connections)
        assert tags == ["is-IS"] * 3 + ["is-IS-x-all"] * 3 + ["is-IS-x-one"]


@in_virtual_time
async def test_values_that_change_nothing_open_no_connection() -> None:
    said = _Said()
    async with said.server() as server, new_stt(server) as stt:
        stream = stt.stream()
        await said.begin(server, stream)
        stt.update_options()
        stt.update_options(language="icelandic", interim_results=True, extra_config={})
        stream.update_options(language="is", max_alternatives=1)
        await said.end(stream)
        assert len(server.connections) == 1


@pytest.mark.parametrize("whose", ["stt", "stream"])
@in_virtual_time
async def test_a_change_while_connecting_wins(whose: str) -> None:
    connecting = asyncio.Event()
    go_on = asyncio.Event()

    class Slow(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            connecting.set()
            await go_on.wait()
            return None

    said = _Said()
    async with said.server(Slow()) as server, new_stt(server) as stt:
        stream = stt.stream()
        stream.push_frame(said.audio[0])
        await connecting.wait()
        (stt if whose == "stt" else stream).update_options(language="is-IS-x-new")
        go_on.set()
        events = await collect(stream, said.audio[1:])
        assert [connection.language for connection in server.connections] == ["is-IS-x-new"]
    assert words(events) == said.talk.texts


@pytest.mark.parametrize(
    "bad",
    [
        {"language": "!"},
        {"max_alternatives": 31},
        {"language": "en-US", "min_speakers": 2},
        {"diarization": True, "min_speakers": 3, "max_speakers": 2},
        {"language": "en-US", "extra_config": {"encoding": "MP3"}},
    ],
    ids=str,
)
@in_virtual_time
async def test_a_bad_value_raises_and_changes_nothing(bad: dict[str, Any]) -> None:
    said = _Said()
    async with said.server() as server, new_stt(server) as stt:
        streams = stt.stream(), stt.stream()
        await said.begin(server, *streams)
        before = stt.model, stt.capabilities, [stream.options for stream in streams]
        with pytest.raises(ValueError):
            stt.update_options(**bad)
        with pytest.raises(ValueError):
            streams[0].update_options(**bad)
        assert before == (stt.model, stt.capabilities, [stream.options for stream in streams])
        await said.end(*streams)
        assert len(server.connections) == 2


# -- agents --------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_agent_hand_off_keeps_the_stream() -> None:
    """In the middle of an utterance, even: one connection, and each sample reaches it once."""
    first, second = (Agent(instructions="Svaraðu.") for _ in range(2))
    async with local_server() as server, new_stt(server) as stt, Call(stt, agent=first) as call:
        await call.microphone.say(TURN)
        await call.turns(1)
        saying = asyncio.create_task(call.microphone.say(TURN))
        await until(lambda: not call.transcribed[-1][1])
        call.session.update_agent(second)
        await until(lambda: call.session.current_agent is second)
        await saying
        await call.turns(2)
        (connection,) = server.connections
    # Whether the session flushes as it changes agents, and so cuts a word, is its own business.
    assert call.finals[0] == FIRST and call.finals[1] in SECOND
    heard = np.frombuffer(connection.audio, np.int16)
    assert np.array_equal(heard[heard != 0], np.tile(TURN[TURN != 0], 2))
    assert not call.errors


# -- metrics and tracing (item 7) ----------------------------------------------------------------


@in_virtual_time
async def test_usage_is_what_was_pushed_over_drops_flushes_and_aclose() -> None:
    said = talk(4, 5, 3, 4)
    recognizers = {"is": NumberedRecognizer(said)}
    cuts = faults.PerConnection(*(faults.Disconnect(seconds) for seconds in (1.3, 2.9, 1.5)))
    # A handshake takes 40 ms.
    server = TiroServer(
        recognizers=recognizers, hooks=faults.Combined(faults.StalledHandshake(0.04), cuts)
    )
    async with server, new_stt(server) as stt:
        metrics: list[STTMetrics] = []
        stt.on("metrics_collected", metrics.append)
        stream = stt.stream()
        events: list[SpeechEvent] = []
        reading = asyncio.create_task(_read(stream, events))
        pushed = 0.0
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
            pushed += frame.duration
            if round(pushed / 0.05) % 37 == 0:
                stream.flush()
            await asyncio.sleep(0.005)
        await until(lambda: words(events)[-1:] == ["w15"])
        await stream.aclose()
        await reading
        assert len(server.connections) == 4
    assert sum(m.audio_duration for m in metrics) == pytest.approx(said.seconds, abs=0.1)
    acquired = [m for m in metrics if m.acquire_time]
    assert len(acquired) == 4, "one report for each connection"
    assert [report.acquire_time for report in acquired] == [pytest.approx(0.04, abs=0.02)] * 4
    assert not any(m.connection_reused or m.audio_duration for m in acquired)
    for report in metrics:
        assert report.metadata is not None
        assert (report.metadata.model_name, report.metadata.model_provider) == ("is-IS", "Tiro")
        assert report.streamed and report.label == "livekit.plugins.tiro.stt.STT"
    assert all(event.request_id for event in events)
    assert len({event.request_id for event in events}) > 1, "each connection has its own"


async def _read(stream: tiro.SpeechStream, events: list[SpeechEvent]) -> None:
    async for event in stream:
        # One by one: the test looks at what is there meanwhile.
        events.append(event)  # noqa: PERF401


HELD_BACK = 0.25
"""s of audio that a stream holds back, or that make no message yet."""


@pytest.mark.parametrize("silence", [0.0, 0.8, 2.0, 3.3])
@in_virtual_time
async def test_a_session_accounts_for_all_of_its_audio(silence: float) -> None:
    """It stops listening to the STT before it closes the stream."""
    metrics: list[STTMetrics] = []
    async with local_server() as server, new_stt(server) as stt, Call(stt, "vad") as call:
        stt.on("metrics_collected", metrics.append)
        await call.microphone.say(TURN)
        await call.turns(1)
        await asyncio.sleep(silence)
        call.microphone.on_detached()
        await call.session.aclose()
        pushed = call.microphone.pushed
    (usage,) = [u for u in call.session.usage.model_usage if isinstance(u, STTModelUsage)]
    assert pushed - HELD_BACK < usage.audio_duration <= pushed + 0.001
    assert sum(m.audio_duration for m in metrics) == pytest.approx(pushed, abs=0.05)


@in_virtual_time
async def test_a_session_accounts_for_a_sentence_that_is_cut_off() -> None:
    async with local_server() as server, new_stt(server) as stt, Call(stt, "vad") as call:
        saying = asyncio.create_task(call.microphone.say(np.concatenate([TURN] * 5)))
        await until(lambda: call.microphone.pushed > 3.7)
        call.microphone.on_detached()
        await call.session.aclose()
        saying.cancel()
    (usage,) = [u for u in call.session.usage.model_usage if isinstance(u, STTModelUsage)]
    pushed = call.microphone.pushed
    assert pushed - HELD_BACK < usage.audio_duration <= pushed + 0.001


@in_virtual_time
async def test_a_session_accounts_for_its_audio_and_traces_its_turns() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    metrics: list[STTMetrics] = []
    before = tracer._tracer_provider
    set_tracer_provider(provider)
    try:
        async with (
            local_server() as server,
            new_stt(server) as stt,
            Call(stt, "vad", agent=Agent(instructions="Svaraðu.")) as call,
        ):
            stt.on("metrics_collected", metrics.append)
            await call.microphone.say(TURN)
            await call.turns(1)
    finally:
        set_tracer_provider(before)
    (usage,) = [u for u in call.session.usage.model_usage if isinstance(u, STTModelUsage)]
    assert (usage.provider, usage.model) == ("Tiro", "is-IS")
    assert sum(m.audio_duration for m in metrics) == pytest.approx(call.microphone.pushed, abs=0.1)
    turn = next(span for span in spans.get_finished_spans() if span.name == "user_turn")
    assert turn.attributes is not None
    assert turn.attributes["gen_ai.provider.name"] == "Tiro"
    assert turn.attributes["gen_ai.request.model"] == "is-IS"
    ids = turn.attributes["lk.provider_request_ids"]
    assert isinstance(ids, tuple) and len(ids) == 1 and ids[0]
