"""The stream against the local server: nothing lost, nothing doubled, times true, errors true."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

from livekit import rtc
from livekit.agents import (
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
)
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    Drop,
    HandshakeRefusal,
    Hooks,
    SpeechConfig,
    StatusError,
    TiroServer,
)
from livekit.plugins.tiro.testing.faults import (
    IdleLimit,
    Moment,
    Mute,
    PerConnection,
    StalledHandshake,
)
from livekit.plugins.tiro.transcript import Transcript

from .support import virtual
from .support.harness import (
    FINAL,
    assert_alternating,
    collect,
    finals,
    frames,
    read_wav,
    until,
    usage,
    words,
)
from .support.numbered import RATE, NumberedRecognition, NumberedRecognizer, Talk, talk
from .support.session_fakes import in_virtual_time
from .support.trial import hear
from .support.wire import Wires
from .support.wired import EMPTY, hypothesis, wired

if TYPE_CHECKING:
    from livekit.agents.stt import SpeechEvent, STTError

    from .support.fake_socket import FakeSocket

QUICK = APIConnectOptions(max_retry=3, retry_interval=0.05, timeout=2)
ONCE = APIConnectOptions(max_retry=0, timeout=2)


class DropsAfter(Hooks):
    """Drops each connection after so many seconds of its audio; None lets it live."""

    def __init__(self, *seconds: float | None) -> None:
        self.seconds = seconds

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        limit = self.seconds[connection.number] if connection.number < len(self.seconds) else None
        if limit is not None and connection.seconds >= limit:
            raise Drop


def numbered_server(said: Talk, hooks: Hooks | None = None) -> TiroServer:
    return TiroServer(api_key="test", recognizers={"is": NumberedRecognizer(said)}, hooks=hooks)


def new_stt(server: TiroServer, **options: object) -> tiro.STT:
    return tiro.STT(base_url=server.base_url, api_key="test", **options)  # type: ignore[arg-type]


def assert_times(events: list[SpeechEvent], said: Talk, offset: float = 0.0) -> None:
    """Every word of the finals lies within 60 ms of where it was said."""
    heard = [
        word
        for event in events
        if event.type is FINAL
        for word in event.alternatives[0].words or ()
    ]
    assert [str(word) for word in heard] == said.texts
    for word, spoken in zip(heard, said.words, strict=True):
        assert word.start_time == pytest.approx(spoken.start + offset, abs=0.06)
        assert word.end_time == pytest.approx(spoken.end + offset, abs=0.06)


@in_virtual_time
async def test_words_and_times_without_a_fault() -> None:
    said = talk(4, 5, 3)
    async with numbered_server(said) as server, new_stt(server) as stt:
        events = await collect(stt.stream(), frames(said.pcm()))
    assert finals(events) == ["w0 w1 w2 w3", "w4 w5 w6 w7 w8", "w9 w10 w11"]
    assert_times(events, said)
    assert_alternating(events)
    assert usage(events) == pytest.approx(said.seconds, abs=0.01)


@pytest.mark.many
@pytest.mark.parametrize("cut", [0.3, 0.55, 0.9, 1.2, 1.65, 1.75, 2.2, 2.75, 3.4, 4.2, 4.9])
@pytest.mark.parametrize("paced", [False, True])
@in_virtual_time
async def test_a_cut_at_any_moment_changes_nothing(cut: float, paced: bool) -> None:
    said = talk(4, 5)
    async with numbered_server(said, DropsAfter(cut)) as server, new_stt(server) as stt:
        events = await collect(
            stt.stream(conn_options=QUICK),
            frames(said.pcm()),
            pace=0.005 if paced else 0.0,
        )
        assert len(server.connections) >= 2
    assert words(events) == said.texts
    assert_times(events, said)
    assert_alternating(events)
    assert usage(events) == pytest.approx(said.seconds, abs=0.01)


@pytest.mark.many
@pytest.mark.parametrize("seed", range(6))
@in_virtual_time
async def test_many_cuts_change_nothing(seed: int) -> None:
    chance = random.Random(seed)
    said = talk(*(chance.randint(1, 6) for _ in range(5)), word=chance.choice([0.2, 0.3, 0.5]))
    cuts = DropsAfter(*(chance.uniform(1.0, 6.0) for _ in range(chance.randint(1, 4))))
    async with numbered_server(said, cuts) as server, new_stt(server) as stt:
        events = await collect(
            stt.stream(conn_options=QUICK),
            frames(said.pcm(), ms=chance.choice([7, 10, 50])),
            pace=chance.choice([0.0, 0.001]),
        )
    assert words(events) == said.texts, f"seed {seed}"
    assert_times(events, said)
    assert_alternating(events)


@pytest.mark.parametrize("ms", [7, 10, 10.667, 50, 1000])
@in_virtual_time
async def test_any_frame_size(ms: float) -> None:
    said = talk(3, 4)
    async with numbered_server(said) as server, new_stt(server) as stt:
        events = await collect(stt.stream(), frames(said.pcm(), ms=ms))
        sizes = set(server.connections[0].sizes)
    assert words(events) == said.texts
    assert_times(events, said)
    assert all(size % 32 == 0 for size in sizes), "messages of whole milliseconds"


def bursts(rate: int) -> npt.NDArray[Any]:
    """Two stretches of noise, 2.2 s and 1.4 s long: five and three words of 0.4 s."""
    chance = np.random.default_rng(1)

    def loud(seconds: float) -> npt.NDArray[Any]:
        return chance.integers(-6000, 6000, round(rate * seconds))

    def quiet(seconds: float) -> npt.NDArray[Any]:
        return np.zeros(round(rate * seconds))

    parts = (quiet(0.5), loud(2.2), quiet(1.2), loud(1.4), quiet(1.0))
    samples: npt.NDArray[Any] = np.concatenate(parts).astype(np.int16)
    return samples


@pytest.mark.many
@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (16000, 1), (22050, 1), (24000, 1), (44100, 1), (48000, 2)]
)
@in_virtual_time
async def test_any_rate_mono_or_stereo(rate: int, channels: int) -> None:
    script = "einn tveir þrír fjórir fimm sex sjö átta níu tíu"
    async with (
        TiroServer(api_key="test", script=script) as server,
        new_stt(server, punctuate=False) as stt,
    ):
        events = await collect(stt.stream(), frames(bursts(rate), rate, channels=channels))
        assert server.connections[0].sample_rate == rate
    assert finals(events) == ["einn tveir þrír fjórir fimm", "sex sjö átta"]
    first, second = (e.alternatives[0] for e in events if e.type is FINAL)
    assert first.start_time == pytest.approx(0.5, abs=0.06)
    assert second.start_time == pytest.approx(3.9, abs=0.06)


@pytest.mark.parametrize("rate", [4000, 96000])
@in_virtual_time
async def test_a_rate_the_service_does_not_take_is_converted(rate: int) -> None:
    async with TiroServer(api_key="test") as server, new_stt(server) as stt:
        events = await collect(stt.stream(), frames(bursts(rate), rate))
        assert server.connections[0].sample_rate == 16000
    assert len(finals(events)) == 2


@in_virtual_time
async def test_a_sample_rate_that_is_asked_for_is_sent() -> None:
    async with TiroServer(api_key="test") as server, new_stt(server, sample_rate=8000) as stt:
        events = await collect(stt.stream(), frames(bursts(24000), 24000))
        assert server.connections[0].sample_rate == 8000
    assert len(finals(events)) == 2


@pytest.mark.many
@in_virtual_time
async def test_a_hundred_streams_each_with_its_own_words() -> None:
    said = [
        talk(2, word=0.2 + 0.01 * (n % 20), gap=0.7, lead=0.3 + 0.01 * (n // 20))
        for n in range(100)
    ]

    def recognizer(config: SpeechConfig) -> NumberedRecognition:
        return NumberedRecognizer(said[int(config.language.rpartition("-")[2])])(config)

    async with TiroServer(recognizers={"is": recognizer}) as server, new_stt(server) as stt:
        streams = [stt.stream(language=f"is-IS-x-{n}") for n in range(100)]
        heard = await asyncio.gather(
            *(collect(s, frames(t.pcm())) for s, t in zip(streams, said, strict=True))
        )
    for events, expected in zip(heard, said, strict=True):
        assert words(events) == expected.texts
        assert_times(events, expected)


# -- times ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_t1_t2_the_offset_of_the_first_attempt_holds_through_refusals() -> None:
    """A refused handshake shifts the times of other plugins by the outage."""

    class Refuses(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            return HandshakeRefusal(503) if connection.number < 2 else None

    said = talk(3)
    async with numbered_server(said, Refuses()) as server, new_stt(server) as stt:
        stream = stt.stream(conn_options=QUICK)
        stream.start_time_offset = 100.0
        events = await collect(stream, frames(said.pcm()))
        assert len(server.connections) == 3
    assert_times(events, said, offset=100.0)
    assert events[-1].alternatives == [] or events[-1].type is not FINAL


@in_virtual_time
async def test_start_time_offset_must_not_be_negative() -> None:
    async with TiroServer() as server, new_stt(server) as stt:
        stream = stt.stream()
        with pytest.raises(ValueError):
            stream.start_time_offset = -1
        await stream.aclose()


@in_virtual_time
async def test_injected_silence_changes_no_later_time() -> None:
    said = talk(3, 4, gap=0.5)
    audio = list(frames(said.pcm()))
    async with numbered_server(said) as server, new_stt(server) as stt:
        stream = stt.stream()
        boundary = round((said.words[2].end + 0.2) / 0.05)
        for frame in audio[:boundary]:
            stream.push_frame(frame)
        stream.flush()
        await until(lambda: bool(server.connections) and server.connections[0].seconds > 2.5)
        events = await collect(stream, audio[boundary:])
    assert words(events) == said.texts
    assert_times(events, said)


# -- what the caller sees ------------------------------------------------------------------------


@in_virtual_time
async def test_what_a_stream_tells_of_itself() -> None:
    said = talk(2)
    async with numbered_server(said) as server, new_stt(server) as stt, stt.stream() as stream:
        stream.start_time_offset = 3.5
        assert stream.start_time_offset == 3.5
        stream.update_options(punctuate=False)
        assert not stream.options.punctuate and stt._options.punctuate
        assert not stream.is_done
        events = await collect(stream, frames(said.pcm()))
        assert stream.is_done
    assert_times(events, said, offset=3.5)


@in_virtual_time
async def test_a_fault_of_our_own_is_an_api_error() -> None:
    async with numbered_server(talk(2)) as server, new_stt(server) as stt:
        stream = stt.stream(conn_options=ONCE)
        broken = mock.patch.object(Transcript, "on_response", side_effect=KeyError)
        with broken, pytest.raises(APIError, match=r"KeyError .*exchange\.py line \d+"):
            await collect(stream, frames(talk(2).pcm()))
        assert not stream.is_done


# -- flush ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_flush_brings_the_final_without_an_endpoint() -> None:
    said = talk(3, gap=5.0)
    spoken = said.pcm()[: round((said.words[-1].end + 0.02) * RATE)]
    async with numbered_server(said) as server, new_stt(server) as stt:
        stream = stt.stream()
        for frame in frames(spoken):
            stream.push_frame(frame)
        stream.flush()
        async for event in stream:
            if event.type is FINAL:
                break
        assert event.alternatives[0].text == "w0 w1 w2"
        assert not server.connections[0].ended, "the connection stays"
        await stream.aclose()


@pytest.mark.parametrize("seconds", [0.0, 0.5])
@in_virtual_time
async def test_flush_with_nothing_heard_gives_one_empty_final_and_sends_nothing(
    seconds: float,
) -> None:
    async with TiroServer() as server, new_stt(server) as stt:
        stream = stt.stream()
        for frame in frames(np.zeros(round(seconds * RATE), np.int16)):
            stream.push_frame(frame)
        started = time.monotonic()
        stream.flush()
        event = await stream.__anext__()
        assert time.monotonic() - started < 0.3
        assert (event.type, event.alternatives[0].text) == (FINAL, "")
        stream.end_input()
        rest = [event async for event in stream]
        assert FINAL not in [event.type for event in rest]
        await stream.aclose()
        assert sum(each.seconds for each in server.connections) <= seconds + 2.75


def test_a_flush_that_is_not_answered_puts_no_silence_into_what_is_said_next() -> None:
    """The user goes on; the service, which lost the flush, is heard again only later."""
    said = talk(2, 6, word=0.4, gap=1.0)

    async def trial() -> list[str]:
        outcome = await hear(said, PerConnection(Mute(Moment.FLUSH)), live=True, flush_at=1.35)
        assert len(outcome.connections) == 2
        return outcome.heard

    assert virtual.run(trial()) == said.texts


# -- the end -------------------------------------------------------------------------------------


@in_virtual_time
async def test_frames_without_samples_hide_no_mute() -> None:
    """T1: the final comes in the mute, and times run on."""
    said = talk(2, 2, gap=2.0)
    async with numbered_server(said) as server, new_stt(server) as stt:
        stream = stt.stream()
        reading = asyncio.create_task(_read(stream))
        audio = list(frames(said.pcm()))
        count = round((said.words[1].end + 0.05) / 0.05)
        for frame in audio[:count]:
            await asyncio.sleep(0.05)
            stream.push_frame(frame)
        for _ in range(200):
            await asyncio.sleep(0.05)
            stream.push_frame(rtc.AudioFrame(b"", RATE, 1, 0))
        assert stream.stats.finals == 1
        for frame in audio[count:]:
            await asyncio.sleep(0.05)
            stream.push_frame(frame)
        stream.end_input()
        events = await reading
    starts = [event.alternatives[0].start_time for event in events if event.type is FINAL]
    assert starts == pytest.approx([said.words[0].start, said.words[2].start + 10], abs=0.06)
    with pytest.raises(RuntimeError):
        stream.push_frame(rtc.AudioFrame(b"", RATE, 1, 0))


async def _read(stream: tiro.SpeechStream) -> list[SpeechEvent]:
    return [event async for event in stream]


@in_virtual_time
async def test_an_empty_stream_ends_at_once() -> None:
    async with TiroServer() as server, new_stt(server) as stt:
        started = time.monotonic()
        assert await collect(stt.stream(), []) == []
        assert time.monotonic() - started < 1.0
        assert all(not each.sizes for each in server.connections)


@in_virtual_time
async def test_nor_is_anything_wrong_with_one_that_is_connected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "livekit.plugins.tiro")
    async with wired() as call:
        faults: list[STTError] = []
        call.stream._stt.on("error", faults.append)
        call.stream.end_input()
        await call.over(within=1.0)
        assert call.wires.last.sent == []
        assert (call.events, call.fault, faults) == ([], None, [])
        assert call.stream.is_done
        reasons = [vars(record).get("tiro.reason") for record in caplog.records]
        assert "closed" in reasons, "and not for a wait after the end of the audio"


def hum() -> rtc.AudioFrame:
    """Return 20 ms of 500 Hz."""
    pcm = 8000 * np.sin(np.arange(960) * 2 * np.pi * 500 / 48000)
    return rtc.AudioFrame(pcm.astype(np.int16).tobytes(), 48000, 1, 960)


@pytest.mark.parametrize("rate", [8000, 16000])
@in_virtual_time
async def test_a_resampler_keeps_nothing_when_the_microphone_goes_off(rate: int) -> None:
    """A resampler holds up to 75 ms, which can be the end of a word."""
    frame = hum()
    async with wired(EMPTY, sample_rate=rate) as call:
        await call.push(frame, 50)
        await asyncio.sleep(2.0)
        sent = np.frombuffer(call.wires.last.audio, np.int16)
        loud = np.flatnonzero(np.abs(sent) > 1000)
        assert loud[-1] / rate == pytest.approx(1.0, abs=0.005)


@in_virtual_time
async def test_nor_when_it_goes_off_while_there_is_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The silence that ends the turn on the next one comes after all of the word."""
    frame, open_wire = hum(), Wires._ws_connect

    async def open_late(*arguments: object, **options: object) -> FakeSocket:
        await asyncio.sleep(1.8)
        return await open_wire(*arguments, **options)  # type: ignore[arg-type]

    async with wired(EMPTY, sample_rate=8000) as call:
        await call.push(frame, 40)
        monkeypatch.setattr(Wires, "_ws_connect", open_late)
        call.wires.last.die()
        await call.push(frame, 10)
        await asyncio.sleep(4.5)
        assert len(call.wires.opened) == 2
        sent = np.frombuffer(call.wires.last.audio, np.int16)
        loud = np.flatnonzero(np.abs(sent) > 1000)
        assert loud[-1] / 8000 == pytest.approx(1.0, abs=0.005)
        assert len(sent) / 8000 > 1.0 + 2.4, "silence was sent after it"


@in_virtual_time
async def test_nor_when_somebody_waits_for_the_end_of_a_word() -> None:
    """The caller lets go of a button in a word that has just begun, and is muted then."""
    quiet = rtc.AudioFrame(bytes(1920), 48000, 1, 960)
    async with wired(EMPTY, sample_rate=8000) as call:
        await call.push(hum(), 50)
        call.hear(hypothesis(0.9))
        await call.push(quiet, 20)
        await call.push(hum(), 4)
        call.stream.flush()
        await call.push(hum(), 6)
        await asyncio.sleep(0.9)
        sent = np.frombuffer(call.wires.last.audio, np.int16)
        assert np.flatnonzero(np.abs(sent) > 1000)[-1] / 8000 == pytest.approx(1.6, abs=0.005)
        assert len(sent) / 8000 > 1.6 + 2.4, "silence was sent after it"
        pieces = len(call.stream._backlog._pieces)
        await asyncio.sleep(10.0)
        assert len(call.stream._backlog._pieces) <= pieces, "no empty piece is kept"


@in_virtual_time
async def test_nor_does_it_without_a_connection() -> None:
    """Audio from before a pause stays before it."""
    frame = hum()
    async with TiroServer(hooks=StalledHandshake(4.0)) as server:
        async with new_stt(server, sample_rate=8000) as stt, stt.stream() as stream:
            for paused in (1.5, 0.0):
                for _ in range(50):
                    stream.push_frame(frame)
                    await asyncio.sleep(0.02)
                await asyncio.sleep(paused)
                if paused:
                    stream.push_frame(rtc.AudioFrame(bytes(960), 48000, 1, 480))
                    assert stream._backlog.end >= 8000, "a connection may begin just now"
            assert stream._clock.pauses_after(0.0) == pytest.approx([1.0])
            before, after = (
                np.abs(np.frombuffer(stream._backlog._read(8000 + at, 8000 + at + 64), np.int16))
                for at in (-64, 8)
            )
            assert before.max() > 7000 > 100 > after.max()


@in_virtual_time
async def test_the_end_waits_for_a_slow_final() -> None:
    class Slow(Hooks):
        async def end(self, connection: ConnectionRecord) -> None:
            await asyncio.sleep(0.5)

    said = talk(3, gap=0.0)
    async with numbered_server(said, Slow()) as server, new_stt(server) as stt:
        assert words(await collect(stt.stream(), frames(said.pcm()))) == said.texts


@in_virtual_time
async def test_an_interim_that_never_became_final_is_not_lost() -> None:
    """The service shows a hypothesis and neither decides nor hangs up: the stream says so."""

    class NoFinal(Hooks):
        async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
            return None if '"isFinal":true' in text else text

        async def end(self, connection: ConnectionRecord) -> None:
            await asyncio.sleep(60)

    said = talk(3, gap=0.2)
    server = TiroServer(
        recognizers={"is": NumberedRecognizer(said)}, hooks=NoFinal(), interim_interval=0.01
    )
    events = []
    async with server, new_stt(server) as stt:
        stream = stt.stream(conn_options=APIConnectOptions(max_retry=0))
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
            await asyncio.sleep(0.02)
        stream.end_input()
        with pytest.raises(APITimeoutError, match="did not answer"):
            async for event in stream:
                # One by one: those before the error count.
                events.append(event)  # noqa: PERF401
        await stream.aclose()
    assert finals(events) and finals(events)[0].startswith("w0")
    assert_alternating(events)


@in_virtual_time
async def test_l5_aclose_sends_nothing_more() -> None:
    """Neither silence for a last final that nobody would read, nor the end marker."""
    async with TiroServer() as server, new_stt(server) as stt:
        stream = stt.stream()
        for frame in frames(np.zeros(RATE, np.int16)):
            stream.push_frame(frame)
        await until(lambda: bool(server.connections) and server.connections[0].seconds == 1.0)
        await stream.aclose()
        await until(lambda: server.connections[0].end is not None)
        assert server.connections[0].end == "half-close"
        assert server.connections[0].seconds == 1.0


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error_style", ["v1", "v2"])
@pytest.mark.parametrize("burst", [False, True])
@in_virtual_time
async def test_a_bad_key_fails_at_once_with_one_attempt(error_style: str, burst: bool) -> None:
    server = TiroServer(api_key="right", error_style=error_style)  # type: ignore[arg-type]
    async with server, new_stt(server) as stt:
        stream = stt.stream(conn_options=QUICK)
        with pytest.raises(APIStatusError) as caught:
            await collect(stream, frames(read_wav("is2.wav")), pace=0.0 if burst else 0.01)
        assert len(server.connections) == 1
    assert caught.value.status_code == 401
    assert not caught.value.retryable
    assert "TIRO_API_KEY" in str(caught.value)


@in_virtual_time
async def test_field_violations_are_part_of_the_message() -> None:
    async with TiroServer() as server, new_stt(server, language="xx-XX") as stt:
        with pytest.raises(APIStatusError, match="config.language_code: ") as caught:
            await collect(stt.stream(), frames(read_wav("fox.wav")))
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("status", "attempts"), [(401, 1), (403, 1), (404, 1), (400, 1), (429, 4), (500, 4), (503, 4)]
)
@in_virtual_time
async def test_a_refused_handshake_keeps_its_status(status: int, attempts: int) -> None:
    class Refuses(Hooks):
        async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
            return HandshakeRefusal(status)

    async with TiroServer(hooks=Refuses()) as server, new_stt(server) as stt:
        with pytest.raises(APIError) as caught:
            await collect(stt.stream(conn_options=QUICK), frames(read_wav("fox.wav")))
        assert len(server.connections) == attempts
    error = caught.value if attempts == 1 else caught.value.__cause__
    assert isinstance(error, APIStatusError)
    assert error.status_code == status


@in_virtual_time
async def test_a_wrong_path_is_a_404() -> None:
    async with TiroServer() as server:
        stt = tiro.STT(base_url=server.base_url + "/nowhere", api_key="test")
        async with stt:
            with pytest.raises(APIStatusError) as caught:
                await collect(stt.stream(), frames(read_wav("fox.wav")))
    assert caught.value.status_code == 404


@in_virtual_time
async def test_a_service_that_is_not_there_is_named() -> None:
    async with TiroServer() as server:
        base_url = server.base_url
    async with tiro.STT(base_url=base_url, api_key="test") as stt:
        with pytest.raises(APIConnectionError, match="Connection refused"):
            await collect(stt.stream(conn_options=ONCE), frames(read_wav("fox.wav")))


@pytest.mark.parametrize("code", [1, 4, 10, 11])
@in_virtual_time
async def test_a_limit_of_a_healthy_session_is_a_rotation(code: int) -> None:
    class Limit(Hooks):
        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            if connection.number == 0 and connection.seconds >= 2.8:
                raise StatusError(code, "it is over")

    said = talk(4, 4)
    async with numbered_server(said, Limit()) as server, new_stt(server) as stt:
        errors: list[object] = []
        stt.on("error", errors.append)
        events = await collect(stt.stream(conn_options=ONCE), frames(said.pcm()), pace=0.005)
        assert len(server.connections) == 2
    assert words(events) == said.texts
    assert_times(events, said)
    assert not errors


@pytest.mark.parametrize("code", [2, 8, 13, 14, 15])
@in_virtual_time
async def test_a_failure_in_mid_call_is_retried_by_the_framework(code: int) -> None:
    class Fails(Hooks):
        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            if connection.number == 0 and connection.seconds >= 1.2:
                raise StatusError(code, "a fault")

    said = talk(4, 4)
    async with numbered_server(said, Fails()) as server, new_stt(server) as stt:
        errors: list[object] = []
        stt.on("error", errors.append)
        events = await collect(stt.stream(conn_options=QUICK), frames(said.pcm()), pace=0.005)
    assert words(events) == said.texts
    assert_times(events, said)
    assert len(errors) == 1


@in_virtual_time
async def test_accept_and_drop_for_ever_ends_in_an_error_within_the_budget() -> None:
    class Drops(Hooks):
        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            raise Drop

    async with TiroServer(hooks=Drops()) as server, new_stt(server) as stt:
        with pytest.raises(APIConnectionError):
            await collect(stt.stream(conn_options=QUICK), frames(read_wav("is.wav")))
        assert len(server.connections) == 4


@in_virtual_time
async def test_a_fault_tied_to_one_stretch_of_audio_is_no_endless_loop() -> None:
    """Each connection shows a hypothesis, so it is healthy, and dies before the final."""

    class Poison(Hooks):
        async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
            if connection.seconds >= 2.0:
                raise Drop

    said = talk(20, word=0.5)
    async with numbered_server(said, Poison()) as server, new_stt(server) as stt:
        with pytest.raises(APIError):
            await collect(stt.stream(conn_options=QUICK), frames(said.pcm()), pace=0.02)
        assert 3 <= len(server.connections) <= 20


@pytest.mark.many
@in_virtual_time
async def test_what_is_said_as_an_idle_connection_ends_is_heard() -> None:
    """Nothing follows it: the microphone is on while a button is held down."""

    class Idle(Hooks):
        async def beside(self, connection: ConnectionRecord) -> None:
            if connection.number == 0:
                await asyncio.sleep(5)
                raise Drop

    said = talk(3)
    async with numbered_server(said, Idle()) as server, new_stt(server) as stt:
        stream = stt.stream()
        heard = asyncio.create_task(collect_all(stream))
        await until(lambda: stream._exchange is not None)
        await asyncio.sleep(4.9)
        # It checks without a pause, as the moment is short.
        while stream._exchange is not None:
            await asyncio.sleep(0)
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
        stream.flush()
        await asyncio.sleep(10)
        await stream.aclose()
        assert words(await heard) == said.texts


@pytest.mark.parametrize("ms", [10, 30])
@in_virtual_time
async def test_a_rest_too_short_for_a_message_opens_no_connection(ms: int) -> None:
    """Muted, with 10 ms left of a chunk: an idle service may hang up as often as it likes."""
    outcome = await hear(
        talk(2, 2, gap=2.0, lead=1.0), IdleLimit(5), live=True, pauses={3.3: 120}, ms=ms
    )
    assert outcome.is_exact, outcome
    assert len(outcome.connections) <= 3


async def collect_all(stream: tiro.SpeechStream) -> list[SpeechEvent]:
    return [event async for event in stream]


# -- options, and real speech ----------------------------------------------------------------------


@in_virtual_time
async def test_a_change_of_language_decodes_the_utterance_again() -> None:
    said = talk(6, gap=1.0)
    server = TiroServer(recognizers={"is": NumberedRecognizer(said)}, interim_interval=0.0)
    async with server, new_stt(server) as stt:
        stream = stt.stream()
        audio = list(frames(said.pcm()))
        for frame in audio[:30]:
            stream.push_frame(frame)
        await until(lambda: bool(server.connections) and bool(server.connections[0].frames))
        stream.update_options(language="is-IS")
        assert len(server.connections) == 1, "nothing changed"
        stream.update_options(language="is-IS-x-exp")
        with pytest.raises(ValueError):
            stream.update_options(max_alternatives=99)
        events = await collect(stream, audio[30:])
        assert [each.language for each in server.connections] == ["is-IS", "is-IS-x-exp"]
        assert stt.model == "is-IS"
    assert words(events) == said.texts
    assert_times(events, said)
    assert_alternating(events)


@in_virtual_time
async def test_usage_is_reported_though_nobody_pushes_any_more() -> None:
    """A caller that pushes a file only as fast as usage is reported would wait for ever."""
    said = talk(4, gap=25.0)
    async with numbered_server(said) as server, new_stt(server) as stt:
        stream = stt.stream()
        events: list[SpeechEvent] = []

        async def listen() -> None:
            events.extend([event async for event in stream])

        listening = asyncio.create_task(listen())
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
        pushed = said.seconds
        for _ in range(60):
            await asyncio.sleep(0.1)
        await stream.aclose()
        await listening
    reported = [e for e in events if e.recognition_usage is not None]
    assert usage(reported[:-1]) > pushed - 2.0, "the last one is that of the end"
