"""The STT: its settings, the HTTP session it uses, its streams, `prewarm` and `recognize`."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, get_type_hints

import aiohttp
import psutil
import pytest

from livekit.agents import APIConnectOptions, APIError, LanguageCode, utils
from livekit.agents.metrics import STTMetrics
from livekit.agents.stt import SpeechData, SpeechEvent
from livekit.agents.types import TimedString
from livekit.plugins import tiro
from livekit.plugins.tiro import stt as stt_module
from livekit.plugins.tiro.stt import _BatchStream, _joined
from livekit.plugins.tiro.testing import TiroServer
from livekit.plugins.tiro.testing.faults import Mute, PerConnection, Refuse

from .support.harness import FINAL, frames, read_wav, until
from .support.numbered import NumberedRecognizer, talk
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


KEY = "test"
ONCE = APIConnectOptions(max_retry=0, timeout=2)
SAID = talk(3, 4)
REPORT: dict[str, Any] = {
    "label": "",
    "request_id": "",
    "timestamp": 0.0,
    "duration": 0.0,
    "audio_duration": 0.0,
    "streamed": True,
}


def numbered(**options: Any) -> TiroServer:
    return TiroServer(api_key=KEY, recognizers={"is": NumberedRecognizer(SAID)}, **options)


def new_stt(server: TiroServer, **options: Any) -> tiro.STT:
    return tiro.STT(base_url=server.base_url, api_key=KEY, **options)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["argument", "TIRO_API_KEY", "TIRO_SPEECH_KEY"])
def test_the_key_is_found_in_three_places(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "argument":
        monkeypatch.setenv(name, KEY)
    stt = tiro.STT(api_key=KEY) if name == "argument" else tiro.STT()
    assert stt._options.api_key == KEY


def test_without_a_key_there_is_no_stt() -> None:
    with pytest.raises(ValueError, match="pass api_key, or set TIRO_API_KEY"):
        tiro.STT()
    with pytest.raises(ValueError, match="api_key must be a str"):
        tiro.STT(api_key=7)  # type: ignore[arg-type]


def test_what_it_says_of_itself() -> None:
    stt = tiro.STT(api_key=KEY, language="icelandic", interim_results=False, diarization=True)
    assert (stt.model, stt.provider) == ("is-IS", "Tiro")
    told = stt.capabilities
    assert (told.streaming, told.interim_results, told.diarization) == (True, False, True)
    assert (told.aligned_transcript, told.offline_recognize) == ("word", True)


@in_virtual_time
async def test_a_change_reaches_live_streams_and_the_capabilities() -> None:
    async with numbered() as server, new_stt(server) as stt:
        stream = stt.stream()
        stt.update_options(interim_results=False, diarization=True, language="en-US")
        assert stream.options == stt._options
        assert not stt.capabilities.interim_results and stt.capabilities.diarization
        with pytest.raises(ValueError, match="max_alternatives"):
            stt.update_options(language="is-IS", max_alternatives=31)
        assert stt.model == stream.options.language == "en-US"


@in_virtual_time
async def test_the_words_of_a_session_reach_live_streams_beside_the_callers_own() -> None:
    async with numbered() as server, new_stt(server, keyterms=["Hekla"]) as stt:
        stream = stt.stream()
        stt._update_session_keyterms(["Katla", "", "Hekla"])
        assert stream.options.phrases == stt._options.phrases == ["Hekla", "Katla"]
        stt.update_options(keyterms=None)
        assert stream.options.phrases == stt._options.phrases == []
        assert not stt.capabilities.keyterms


@in_virtual_time
async def test_a_stream_that_is_over_hinders_no_change() -> None:
    """It is kept for its figures; a change need not fit the settings that it had."""
    async with numbered() as server, new_stt(server, diarization=True) as stt:
        over, live = stt.stream(), stt.stream()
        over.update_options(diarization=False)
        await over.aclose()
        stt.update_options(max_speakers=2)
        assert (live.options.max_speakers, over.options.max_speakers) == (2, None)


def test_endpointing_without_hypotheses_is_told_to_do_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stt = tiro.STT(api_key="k", endpointing=0.3)
    stt.update_options(interim_results=False)
    stt.update_options(punctuate=False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "interim_results=True" in caplog.text
    caplog.clear()
    tiro.STT(api_key="k", endpointing=0.3, interim_results=False)
    assert [record.getMessage() for record in caplog.records] == [
        "endpointing has no effect without hypotheses: it waits for quiet after one. Set "
        "interim_results=True, or leave endpointing out"
    ]


# -- streams and HTTP sessions ---------------------------------------------------------------------


@in_virtual_time
async def test_a_closed_stt_starts_nothing() -> None:
    async with numbered() as server:
        stt = new_stt(server)
        stream = stt.stream()
        await stt.aclose()
        with pytest.raises(RuntimeError, match="closed; make a new one"):
            stt.stream()
        with pytest.raises(RuntimeError):
            stream.push_frame(next(frames(SAID.pcm())))


def test_what_is_no_http_session_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="http_session must be an aiohttp.ClientSession, not str"):
        tiro.STT(api_key=KEY, http_session="session")  # type: ignore[arg-type]


@in_virtual_time
async def test_whose_http_session_it_is() -> None:
    async with aiohttp.ClientSession() as mine:
        assert tiro.STT(api_key=KEY, http_session=mine)._http_session() is mine
        async with utils.http_context.open():
            async with tiro.STT(api_key=KEY) as stt:
                assert stt._http_session() is utils.http_context.http_session()
        stt = tiro.STT(api_key=KEY)
        own = stt._http_session()
        assert own is stt._http_session() is not mine
        await own.close()
        assert not stt._http_session().closed, "a new one"
        await stt.aclose()
        assert own.closed and not mine.closed


def test_it_outlives_an_event_loop() -> None:
    """A script calls `asyncio.run` for each of its files."""
    stt = tiro.STT(api_key=KEY)

    async def session() -> aiohttp.ClientSession:
        return stt._http_session()

    first, second = asyncio.run(session()), asyncio.run(session())
    assert first is not second and first.closed
    asyncio.run(stt.aclose())
    assert second.closed


@pytest.mark.parametrize("owner", [tiro.STT, tiro.SpeechStream])
def test_the_types_of_options_can_be_read(owner: type) -> None:
    """As by a tool that makes a form, or checks a call, of them."""
    hints = get_type_hints(owner.update_options)  # type: ignore[attr-defined]
    assert {"language", "keyterms", "api_key", "return"} <= set(hints)


# -- prewarm --------------------------------------------------------------------------------------


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ssl.SSLContext]]:
    """The TLS settings that are made, in a process that has made none yet."""
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def note(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(create(*args, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", note)
    utils.http_context._ssl_context_for.cache_clear()
    yield made
    utils.http_context._ssl_context_for.cache_clear()


def offline_stt(**options: Any) -> tiro.STT:
    return tiro.STT(base_url="wss://127.0.0.1:9", api_key=KEY, **options)


def test_without_prewarm_the_first_session_of_a_process_reads_the_certificates(
    contexts: list[ssl.SSLContext],
) -> None:
    """Were it not so any more, `prewarm` could go."""
    utils.http_context._create_ssl_context()
    assert len(contexts) == 1


async def test_after_prewarm_the_first_session_of_a_job_finds_all_there(
    contexts: list[ssl.SSLContext],
) -> None:
    offline_stt().prewarm()
    (built,) = contexts
    async with utils.http_context.open() as job, offline_stt() as stt:
        assert stt._http_session() is job
        assert isinstance(job.connector, aiohttp.TCPConnector)
        assert job.connector._ssl is built
    assert contexts == [built]


def test_prewarm_needs_no_loop_opens_nothing_and_may_be_called_again(
    contexts: list[ssl.SSLContext],
) -> None:
    process = psutil.Process()
    stt = offline_stt()
    before = process.num_fds(), process.num_threads()
    stt.prewarm()
    stt.prewarm()
    offline_stt().prewarm()
    assert (process.num_fds(), process.num_threads()) == before
    assert len(contexts) == 1
    assert not stt._own_sessions._by_loop


async def test_a_session_of_the_callers_own_needs_no_prewarm(
    contexts: list[ssl.SSLContext],
) -> None:
    async with aiohttp.ClientSession() as session:
        offline_stt(http_session=session).prewarm()
    assert not contexts


def test_certificates_that_can_not_be_read_are_left_for_the_call_to_report(
    contexts: list[ssl.SSLContext],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An agent server does not start processes whose set-up raises."""
    bad = tmp_path / "bad.pem"
    for content in (None, "no certificate"):
        if content:
            bad.write_text(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(bad))
        offline_stt().prewarm()
    assert not contexts
    records = [r for r in caplog.records if r.name == "livekit.plugins.tiro"]
    assert [record.levelno for record in records] == [logging.DEBUG] * 2


def test_a_framework_that_reads_certificates_otherwise_is_left_alone(
    contexts: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(utils.http_context, "_create_ssl_context")
    offline_stt().prewarm()
    assert not contexts


# -- metrics ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_who_stops_listening_is_told_what_was_used_before() -> None:
    async with numbered() as server, new_stt(server) as stt:
        told: dict[str, list[float]] = {"leaves": [], "stays": []}

        def note(name: str) -> Callable[[STTMetrics], None]:
            return lambda report: told[name].append(report.audio_duration)

        leaves = note("leaves")
        stt.on("metrics_collected", leaves)
        stt.on("metrics_collected", note("stays"))
        streams = [stt.stream(), stt.stream()]
        for frame in frames(SAID.pcm()):
            for stream in streams:
                stream.push_frame(frame)
        await until(lambda: stt.stats.audio_sent > 2 * SAID.seconds - 0.5)
        stt.off("error", leaves)
        assert not any(sum(seconds) for seconds in told.values())
        stt.off("metrics_collected", leaves)
        assert sum(told["leaves"]) == pytest.approx(stt.stats.audio_sent)
        at_leave = list(told["leaves"])
        for stream in streams:
            stream.end_input()
        await until(lambda: sum(told["stays"]) > 2 * SAID.seconds - 0.01)
    assert told["leaves"] == at_leave
    assert sum(told["stays"]) == pytest.approx(2 * SAID.seconds)


@pytest.mark.parametrize("fault", [TypeError, ValueError])
@in_virtual_time
async def test_a_listener_that_fails_ends_no_call(
    fault: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """The framework's own `emit` raises a `TypeError`, into the stream or the session's close."""

    def fail(_: object) -> None:
        raise fault("a fault of the listener's own")

    async with numbered() as server, new_stt(server) as stt:
        stt.on("metrics_collected", fail)
        stream = stt.stream()
        for frame in frames(SAID.pcm()):
            stream.push_frame(frame)
        await until(lambda: stt.stats.audio_sent > 2.0)
        stt.off("metrics_collected", fail)
        stream.end_input()
        assert [str(word) async for word in finals_of(stream)] == SAID.texts
    assert "a fault of the listener's own" in caplog.text
    assert stt.stats.connections == 1 and not stt.stats.failures


async def finals_of(stream: tiro.SpeechStream) -> AsyncIterator[TimedString]:
    async for event in stream:
        if event.type is FINAL:
            for word in event.alternatives[0].words or ():
                yield word


@in_virtual_time
async def test_a_listener_that_leaves_as_it_is_called_is_not_called_again() -> None:
    async with numbered() as server, new_stt(server) as stt:
        told = list[float]()

        def once(report: STTMetrics) -> None:
            stt.off("metrics_collected", once)
            told.append(report.acquire_time)

        stream = stt.stream()
        for frame in frames(SAID.pcm()):
            stream.push_frame(frame)
        await until(lambda: stt.stats.audio_sent > 2.0)
        stt.on("metrics_collected", once)
        stt.emit("metrics_collected", STTMetrics(**REPORT, acquire_time=0.5))
        assert told == [0.5]


@in_virtual_time
async def test_a_listener_taken_off_in_another_event_is_told_what_was_used() -> None:
    async with numbered() as server, new_stt(server) as stt:
        told = list[float]()

        def note(report: STTMetrics) -> None:
            told.append(report.audio_duration)

        stt.on("metrics_collected", note)
        stt.on("error", lambda: stt.off("metrics_collected", note))
        stream = stt.stream()
        for frame in frames(SAID.pcm()):
            stream.push_frame(frame)
        await until(lambda: stt.stats.audio_sent > 2.0)
        stt.emit("error", "of another stream")
        assert sum(told) == pytest.approx(stt.stats.audio_sent)


def test_a_stream_in_another_thread_is_closed_there() -> None:
    stt = tiro.STT(api_key=KEY, base_url="ws://127.0.0.1:1")
    opened, closed = threading.Event(), threading.Event()

    async def listen() -> None:
        stream = stt.stream()
        loop, aclose = asyncio.get_running_loop(), stream.aclose

        async def noted() -> None:
            assert asyncio.get_running_loop() is loop
            await aclose()
            closed.set()

        stream.aclose = noted  # type: ignore[method-assign]
        opened.set()
        assert await asyncio.to_thread(closed.wait, 10)
        assert stream._task.cancelled()

    async def close() -> None:
        mine = stt.stream()
        await stt.aclose()
        assert mine._task.done()

    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(lambda: asyncio.run(listen()))
        assert opened.wait(10)
        asyncio.run(close())
        elsewhere.result(10)


def test_closing_does_not_wait_for_a_loop_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stt_module, "_ELSEWHERE", 0.01)
    stt = tiro.STT(api_key=KEY, base_url="ws://127.0.0.1:1")
    opened, closed = threading.Event(), threading.Event()

    async def listen() -> None:
        stream = stt.stream()
        opened.set()
        # The loop stands still.
        assert closed.wait(10)
        with pytest.raises(RuntimeError):
            while True:
                stream.push_frame(next(frames(SAID.pcm())))
                await asyncio.sleep(0)

    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(lambda: asyncio.run(listen()))
        assert opened.wait(10)
        asyncio.run(stt.aclose())
        closed.set()
        elsewhere.result(10)


def test_listeners_come_and_go_without_an_event_loop() -> None:
    stt, told = tiro.STT(api_key=KEY), list[object]()
    stt.on("metrics_collected", told.append)
    stt.off("metrics_collected", told.append)
    stt.off("metrics_collected", told.append)
    stt.emit("metrics_collected", "report")
    assert not told


# -- recognize -------------------------------------------------------------------------------------


@in_virtual_time
async def test_recognize_joins_the_finals() -> None:
    async with numbered() as server, new_stt(server) as stt:
        metrics: list[STTMetrics] = []
        stt.on("metrics_collected", metrics.append)
        event = await stt.recognize(list(frames(SAID.pcm())), language="is-IS-x-exp")
        assert server.connections[0].language == "is-IS-x-exp"
    data = event.alternatives[0]
    assert (event.type, data.text) == (FINAL, " ".join(SAID.texts))
    assert [str(word) for word in data.words or ()] == SAID.texts
    assert data.start_time == pytest.approx(0.5, abs=0.06)
    assert data.end_time == pytest.approx(SAID.words[-1].end, abs=0.06)
    assert sum(m.audio_duration for m in metrics) == pytest.approx(SAID.seconds, abs=0.1)


def test_recognize_names_who_says_most() -> None:
    def final(text: str, speaker: str | None) -> SpeechEvent:
        said = [TimedString(word, speaker_id=speaker) for word in text.split()]
        data = SpeechData(LanguageCode("is-IS"), text, words=said, speaker_id=speaker)
        return SpeechEvent(FINAL, alternatives=[data])

    def named(*finals: SpeechEvent) -> str | None:
        return _joined(list(finals), "is-IS").alternatives[0].speaker_id

    assert named(final("já", "1"), final("einn tveir", "2"), final("þrír", "2")) == "2"
    assert named(final("já", "1"), final("einn tveir", None)) == "1"
    assert named(final("já", None)) is None


@pytest.mark.parametrize("buffer", [b"1234", "call.wav", None, ["call.wav"]])
async def test_recognize_of_no_frames_says_what_makes_them(buffer: Any) -> None:
    async with tiro.STT(api_key=KEY, base_url="ws://localhost") as stt:
        with pytest.raises(TypeError, match="audio_frames_from_file"):
            await stt.recognize(buffer)


@in_virtual_time
async def test_recognize_of_silence_is_empty() -> None:
    async with TiroServer(api_key=KEY) as server, new_stt(server, language="is-IS-x-exp") as stt:
        event = await stt.recognize(next(frames(read_wav("silence.wav"), ms=3000)))
    assert (event.alternatives[0].text, event.alternatives[0].language) == ("", "is-IS")


@in_virtual_time
async def test_recognize_retries_with_the_whole_buffer_and_reports_each_failure_once() -> None:
    async with numbered(hooks=PerConnection(Refuse(503))) as server, new_stt(server) as stt:
        errors: list[Any] = []
        stt.on("error", errors.append)
        event = await stt.recognize(list(frames(SAID.pcm())))
    assert event.alternatives[0].text == " ".join(SAID.texts)
    assert [error.recoverable for error in errors] == [True]


@in_virtual_time
async def test_recognize_ends_when_the_stt_is_closed() -> None:
    """Half of the words would look like all of them."""
    async with numbered(hooks=Mute(0.5)) as server, new_stt(server) as stt:
        recognizing = asyncio.create_task(
            stt.recognize(list(frames(SAID.pcm())), conn_options=ONCE), name="recognize"
        )
        await until(lambda: bool(server.connections) and server.connections[0].received > 0)
        assert [type(stream) for stream in stt._streams] == [_BatchStream]
        await stt.aclose()
        with pytest.raises(APIError, match="closed"):
            await recognizing
