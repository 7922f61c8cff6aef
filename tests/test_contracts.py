"""What the framework demands of an STT plugin, rule by rule; `RULES` is the table."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import aiohttp
import numpy as np
import pytest

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, APIStatusError, Plugin, utils
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import ConnectionRecord, Hooks, TiroServer, faults
from livekit.plugins.tiro.testing.faults import Moment

from .support.harness import (
    END,
    FINAL,
    INTERIM,
    START,
    USAGE,
    assert_alternating,
    finals,
    frames,
    until,
    usage,
    words,
)
from .support.numbered import NumberedRecognizer, Talk, talk
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from livekit.agents.metrics import STTMetrics
    from livekit.agents.stt import SpeechEvent, SpeechEventType, STTError

RULES = {
    "L1": "a stream ends only when its input has ended",
    "L2": "every failure is an APIError",
    "L3": "not retryable is only what cannot heal",
    "L4": "reconnecting is bounded, in attempts and in seconds",
    "L5": "aclose is prompt, and can be called twice",
    "L6": "stream() needs no service and raises on bad settings only",
    "L7": "prewarm() does not block or raise",
    "L8": "closing the STT closes its streams, and no session that is not its own",
    "L9": "nothing is emitted once a stream has ended",
    "L10": "the plugin is registered at import",
    "L11": "input, retries and offset are looked up anew at each attempt",
    "I1": "frames and flushes, also a flush with nothing buffered",
    "I2": "bursts and long gaps",
    "I3": "stereo is mixed down",
    "I4": "audio is copied",
    "I5": "stream(language=) counts for that stream only",
    "E1": "transcripts have an alternative",
    "E2": "an interim is all that is not final, a final repeats nothing",
    "E3": "a preflight would be as an interim; there are none",
    "E4": "START, transcripts, END, alternating",
    "E5": "END comes also without a final, and after a reconnect",
    "E6": "no empty transcripts, but for one that takes an interim back or answers a flush",
    "E7": "the language is a tag, and goes out letter by letter",
    "E8": "confidence is 0 to 1",
    "E9": "every event has the id of its connection",
    "E10": "usage is reported in increments",
    "T1": "times are seconds of the input, from the first frame on",
    "T2": "an outage moves no time",
    "T3": "an unknown time is 0.0, not the offset",
    "T4": "no time lies in the future",
    "T5": "words come with their times, as promised",
    "T6": "START and END have epoch seconds",
    "S1": "no transcript in a log message",
    "S2": "no key in an exception, whatever it is printed with",
    "S3": "no key in a log",
    "M1": "model and provider are set",
    "M2": "each connection is reported once",
}
"""The contracts that a plugin can break; each has tests that bear its id."""

DEFAULT = APIConnectOptions()
ONCE = APIConnectOptions(max_retry=0)
KEY = "lykill-Ð0123/456?789"
SAID = talk(3, 2)


def test_every_rule_is_tested() -> None:
    ids = {part for name in globals() for part in name.split("_") if name.startswith("test_")}
    assert {rule.lower() for rule in RULES} <= ids


# -- helpers -------------------------------------------------------------------------------------


class Ear:
    """A stream, and what it said."""

    def __init__(self, stt: tiro.STT, stream: tiro.SpeechStream) -> None:
        self.stt = stt
        self.stream = stream
        self.events: list[SpeechEvent] = []
        self.error: BaseException | None = None
        self.errors: list[STTError] = []
        self.metrics: list[STTMetrics] = []
        stt.on("error", self.errors.append)
        stt.on("metrics_collected", self.metrics.append)
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for event in self.stream:
                self.events.append(event)
        except Exception as error:
            self.error = error

    async def say(self, said: Talk = SAID) -> None:
        """Push a talk at the pace of speech."""
        for frame in frames(said.pcm()):
            await asyncio.sleep(0.05)
            if self.reading.done():
                return
            self.stream.push_frame(frame)

    async def end(self) -> None:
        """End the input, and wait for the end of the stream."""
        if not self.reading.done():
            self.stream.end_input()
        await self.reading


@asynccontextmanager
async def listening(
    hooks: Hooks | None = None,
    said: Talk = SAID,
    *,
    conn_options: APIConnectOptions = DEFAULT,
    language: str = "is-IS",
    server: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[TiroServer, Ear]]:
    """Run a server that hears `said`, and a stream to it."""
    settings = {"interim_interval": 0.1, "api_key": KEY, **(server or {})}
    recognizers = {"is": NumberedRecognizer(said)}
    async with TiroServer(recognizers=recognizers, hooks=hooks, **settings) as tiro_server:
        stt = tiro.STT(base_url=tiro_server.base_url, api_key=KEY, language=language, **options)
        async with stt:
            ear = Ear(stt, stt.stream(conn_options=conn_options))
            yield tiro_server, ear
            await ear.stream.aclose()
            await ear.reading


class Rewrite(Hooks):
    """Changes every response."""

    def __init__(self, change: Callable[[dict[str, Any]], Any]) -> None:
        self._change = change

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        self._change(document["result"])
        return json.dumps(document)


def of_type(events: list[SpeechEvent], kind: SpeechEventType) -> list[SpeechEvent]:
    return [event for event in events if event.type is kind]


def assert_heard(ear: Ear, said: Talk = SAID, offset: float = 0.0) -> None:
    """Every word once, in order, at its time."""
    assert words(ear.events) == said.texts
    timed = [
        word for event in of_type(ear.events, FINAL) for word in event.alternatives[0].words or ()
    ]
    for word, spoken in zip(timed, said.words, strict=True):
        assert word.start_time == pytest.approx(spoken.start + offset, abs=0.06)
        assert word.end_time == pytest.approx(spoken.end + offset, abs=0.06)
    assert_alternating(ear.events)


# -- lifecycle -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.Disconnect(Moment.OPENED),
        faults.Disconnect(0.3),
        faults.Disconnect(1.2),
        faults.Disconnect(1.2, reset=True),
        faults.Disconnect(Moment.FINAL),
        faults.Close(Moment.FINAL, 1000),
        faults.Fail(11, Moment.INTERIM),
        faults.Fail(14, Moment.FINAL),
        faults.SessionLimit(2.0),
        faults.IdleLimit(1.0, None),
    ],
    ids=repr,
)
@in_virtual_time
async def test_l1_a_stream_ends_with_its_input_and_not_before(fault: Hooks) -> None:
    async with listening(faults.PerConnection(fault)) as (_, ear):
        await ear.say()
        await asyncio.sleep(10)
        assert not ear.stream._task.done()
        assert_heard(ear)
        ended = time.monotonic()
        await ear.end()
        assert ear.error is None
        assert time.monotonic() - ended < 1


FAILURES = [
    (faults.Refuse(302), 302, False),
    (faults.Refuse(400), 400, False),
    (faults.Refuse(401), 401, False),
    (faults.Refuse(403), 403, False),
    (faults.Refuse(404), 404, False),
    (faults.Refuse(429), 429, True),
    (faults.Refuse(500), 500, True),
    (faults.Refuse(503), 503, True),
    (faults.ResetHandshake(), -1, True),
    (faults.StalledHandshake(), -1, True),
    (faults.Disconnect(Moment.CONFIG), -1, True),
    (faults.Close(Moment.CONFIG, 1011), -1, True),
    *(
        (faults.Fail(code, shape=shape), status, retryable)
        for code, status, retryable in [
            (2, 500, True),
            (3, 400, False),
            (5, 404, False),
            (7, 403, False),
            (8, 429, True),
            (9, 400, False),
            (12, 501, False),
            (13, 500, True),
            (14, 503, True),
            (15, 500, True),
            (16, 401, False),
            (99, 500, True),
        ]
        for shape in ("v1", "v2", "gateway v1", "gateway v2", "result")
    ),
    *((faults.Fail(code), status, True) for code, status in ((1, 499), (4, 504), (11, 503))),
    (faults.Fail(message="Not Found", shape="text"), 404, False),
]


@pytest.mark.parametrize(("fault", "status", "retryable"), FAILURES, ids=repr)
@in_virtual_time
async def test_l2_l3_every_failure_is_an_api_error_and_says_whether_it_can_heal(
    fault: Hooks, status: int, retryable: bool
) -> None:
    async with listening(fault, conn_options=ONCE) as (_, ear):
        await ear.say()
        await ear.end()
        assert isinstance(ear.error, APIError)
        assert ear.error.retryable is retryable
        assert isinstance(ear.error, APIStatusError) == (status > 0)
        if isinstance(ear.error, APIStatusError):
            assert ear.error.status_code == status
        assert [(error.error, error.recoverable) for error in ear.errors] == [(ear.error, False)]


@in_virtual_time
async def test_l2_a_fault_of_our_own_is_an_api_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else would stop the session's pipeline for good."""

    def broken(*_: object) -> list[SpeechEvent]:
        raise KeyError(KEY)

    monkeypatch.setattr("livekit.plugins.tiro.transcript.Transcript.on_response", broken)
    async with listening(conn_options=ONCE) as (_, ear):
        await ear.say()
        assert isinstance(ear.error, APIError)
        assert KEY not in str(ear.error)


@in_virtual_time
async def test_l2_a_session_that_is_closed_is_an_api_error_too() -> None:
    session = aiohttp.ClientSession()
    await session.close()
    async with listening(conn_options=ONCE, http_session=session) as (_, ear):
        await ear.reading
        assert isinstance(ear.error, APIError)


@pytest.mark.parametrize(
    ("fault", "attempts", "seconds"),
    [
        (faults.Refuse(503), 4, 5),
        (faults.StalledHandshake(), 4, 25),
        (faults.Disconnect(0.0), 4, 6),
        (faults.Fail(14, Moment.CONFIG), 4, 6),
        (faults.Fail(14, Moment.INTERIM), 4, 10),
        (faults.Disconnect(Moment.INTERIM), 12, 20),
        # As in an outage, it is tried for 5 s in each of the attempts.
        (faults.LongLine(), 36, 25),
    ],
    ids=repr,
)
@in_virtual_time
async def test_l4_a_service_that_never_recovers_ends_in_an_error(
    fault: Hooks, attempts: int, seconds: float
) -> None:
    """Also one that always answers something, and hangs up before that is useful."""
    # A line that is cut is a final, so there are pauses; the other faults get no final to send.
    said = talk(*[3] * 15) if isinstance(fault, faults.LongLine) else talk(100)
    async with listening(fault, said) as (server, ear):
        started = time.monotonic()
        speaking = asyncio.create_task(ear.say(said))
        await asyncio.wait({ear.reading}, timeout=200)
        assert isinstance(ear.error, APIError)
        assert time.monotonic() - started < seconds
        assert len(server.connections) <= attempts
        await speaking


@pytest.mark.parametrize(
    "fault",
    [
        None,
        faults.StalledHandshake(),
        faults.Mute(),
        faults.HalfOpen(0.5),
        faults.StopReading(0.5),
        faults.IgnoreEnd(),
        faults.Refuse(503),
    ],
    ids=repr,
)
@pytest.mark.parametrize("ended", [False, True])
@in_virtual_time
async def test_l5_aclose_is_prompt_and_can_be_called_twice(
    fault: Hooks | None, ended: bool
) -> None:
    async with listening(fault) as (_, ear):
        await ear.say()
        if ended and not ear.reading.done():
            ear.stream.end_input()
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await ear.stream.aclose()
        await ear.stream.aclose()
        assert time.monotonic() - started < 1
        await ear.reading
        assert_alternating_so_far(ear.events)


def assert_alternating_so_far(events: list[SpeechEvent]) -> None:
    """As `assert_alternating`, for a stream that was closed in mid-utterance."""
    kinds = [event.type for event in events if event.type in (START, END)]
    assert kinds == [(START, END)[n % 2] for n in range(len(kinds))]


@in_virtual_time
async def test_l6_stream_needs_no_service_and_raises_on_bad_settings_only() -> None:
    stt = tiro.STT(base_url="ws://127.0.0.1:9", api_key=KEY)
    started = time.monotonic()
    stream = stt.stream()
    assert time.monotonic() == started
    with pytest.raises(ValueError, match="language"):
        stt.stream(language="!")
    await stream.aclose()
    await stt.aclose()


def test_l7_prewarm_reads_the_certificates_once_and_raises_nothing() -> None:
    """The framework does not catch its exceptions; here there is not even an event loop."""
    stt, context = tiro.STT(base_url="ws://127.0.0.1:9", api_key=KEY), ssl.create_default_context()
    known = utils.http_context._ssl_context_for
    known.cache_clear()
    reads = [FileNotFoundError("no certificates"), context]
    with mock.patch.object(ssl, "create_default_context", side_effect=reads) as read:
        stt.prewarm()
        assert (read.call_count, known.cache_info().currsize) == (1, 0)
        stt.prewarm()
        stt.prewarm()
        assert (read.call_count, known.cache_info().currsize) == (2, 1)
    known.cache_clear()


@pytest.mark.parametrize("whose", ["given", "job", "own"])
@in_virtual_time
async def test_l8_closing_the_stt_closes_its_streams_and_only_its_own_session(whose: str) -> None:
    given = aiohttp.ClientSession()
    async with given, utils.http_context.open() if whose == "job" else _nothing():
        job = utils.http_context.http_session() if whose == "job" else None
        async with TiroServer(api_key=KEY) as server:
            stt = tiro.STT(
                base_url=server.base_url,
                api_key=KEY,
                http_session=given if whose == "given" else None,
            )
            streams = [stt.stream() for _ in range(3)]
            await until(lambda: len(server.connections) == 3)
            used = stt._http_session()
            own = None if whose != "own" else stt._own_sessions.get(server.base_url)
            assert used is {"given": given, "job": job, "own": own}[whose]
            await stt.aclose()
            await stt.aclose()
            for stream in streams:
                with pytest.raises(RuntimeError):
                    stream.push_frame(rtc.AudioFrame.create(16000, 1, 800))
            await until(lambda: all(connection.closed_at for connection in server.connections))
            assert used.closed == (whose == "own")


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("how", ["aclose", "end", "error"])
@in_virtual_time
async def test_l9_nothing_is_emitted_once_the_stream_has_ended(how: str) -> None:
    """A flush is not answered yet when the stream ends; its timer must not fire any more."""
    fault = faults.Disconnect(Moment.FLUSH) if how == "error" else faults.Delay(1.2, finals=False)
    async with listening(fault, talk(2), conn_options=ONCE) as (_, ear):
        await ear.say(talk(2, gap=0.1))
        ear.stream.flush()
        await asyncio.sleep(0.02)
        if how == "aclose":
            await ear.stream.aclose()
        else:
            await ear.end()
        assert ear.stream._event_ch.closed
        # An exception in a timer fails the test.
        await asyncio.sleep(10)


def test_l10_the_plugin_is_registered_once() -> None:
    (plugin,) = [p for p in Plugin.registered_plugins if p.package == "livekit.plugins.tiro"]
    assert (plugin.title, plugin.version) == ("livekit.plugins.tiro", tiro.__version__)
    assert plugin.logger is not None and plugin.logger.name == "livekit.plugins.tiro"


@in_virtual_time
async def test_l11_input_retries_and_offset_are_looked_up_at_each_attempt() -> None:
    hooks = faults.PerConnection(faults.Refuse(503), faults.StalledHandshake())
    async with listening(hooks) as (server, ear):
        ear.stream.start_time_offset = 7.0
        await until(lambda: len(ear.errors) == 1)
        ear.stream._conn_options = replace(DEFAULT, timeout=1.0)
        ear.stream._input_ch = utils.aio.Chan()
        ear.stream.start_time_offset = 100.0
        await until(lambda: len(server.connections) == 3, 10)
        first, second, third = (connection.opened_at for connection in server.connections)
        # An attempt takes half of the timeout, and the second retry comes 2 s later.
        assert third - second == pytest.approx(2.5, abs=0.2)
        await ear.say()
        await asyncio.sleep(2)
        assert_heard(ear, offset=100.0)


# -- input ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_i1_a_flush_sends_what_is_buffered_and_is_answered_once_each_time() -> None:
    async with listening() as (server, ear):
        for _ in range(2):
            ear.stream.flush()
            await asyncio.sleep(0.5)
        assert [e.alternatives[0].text for e in of_type(ear.events, FINAL)] == ["", ""]
        said = talk(2, gap=0.01)
        for frame in frames(said.pcm(), ms=10):
            ear.stream.push_frame(frame)
        ear.stream.flush()
        await asyncio.sleep(0.5)
        assert finals(ear.events) == ["w0 w1"]
        assert len(of_type(ear.events, FINAL)) == 3
        assert bytes(server.connections[0].audio).startswith(said.pcm().tobytes())


@in_virtual_time
async def test_i2_a_burst_is_as_good_as_live_and_a_long_gap_keeps_the_connection() -> None:
    async with listening() as (server, ear):
        for frame in frames(SAID.pcm()):
            ear.stream.push_frame(frame)
        await asyncio.sleep(3)
        assert_heard(ear)
        await asyncio.sleep(60)
        assert len(server.connections) == 1 and server.connections[0].closed_at is None
        ear.stream.flush()
        await asyncio.sleep(0.5)
        assert len(server.connections) == 1
        assert not ear.errors


@pytest.mark.parametrize("limit", [faults.Disconnect(Moment.OPENED), faults.IdleLimit(5.0)])
@in_virtual_time
async def test_i2_a_service_that_hangs_up_before_any_audio_is_called_when_there_is_some(
    limit: Hooks,
) -> None:
    """The stream is open before the caller speaks, who can be late."""
    async with listening(faults.PerConnection(limit)) as (server, ear):
        await asyncio.sleep(30)
        assert len(server.connections) == 1 and server.connections[0].closed_at
        await ear.say()
        await ear.end()
        assert len(server.connections) == 2
        assert not ear.errors and ear.error is None
        assert_heard(ear)


@in_virtual_time
async def test_i3_channels_are_mixed_down() -> None:
    async with listening() as (server, ear):
        left = np.full(1600, 4000, np.int16)
        stereo = np.stack((left, np.zeros_like(left)), axis=1)
        ear.stream.push_frame(rtc.AudioFrame(stereo.tobytes(), 16000, 2, 1600))
        await until(lambda: bool(server.connections) and server.connections[0].seconds >= 0.1)
        heard = np.frombuffer(server.connections[0].audio, np.int16)
        assert set(heard[:1600]) == {2000}


@pytest.mark.parametrize("channels", [1, 2])
@in_virtual_time
async def test_i3_a_buffer_may_be_longer_than_its_frame(channels: int) -> None:
    async with listening() as (server, ear):
        pcm = np.full(1600 * channels + 400, 4000, np.int16)
        pcm[1600 * channels :] = 9
        for _ in range(2):
            ear.stream.push_frame(rtc.AudioFrame(pcm.tobytes(), 16000, channels, 1600))
        await until(lambda: bool(server.connections) and server.connections[0].seconds >= 0.2)
        heard = np.frombuffer(server.connections[0].audio, np.int16)
        assert set(heard[:3200]) == {4000}
        assert ear.stream.stats.audio_pushed == pytest.approx(0.2)


@in_virtual_time
async def test_i4_audio_is_copied_before_the_caller_uses_his_buffer_again() -> None:
    async with listening(faults.PerConnection(faults.Disconnect(1.2))) as (server, ear):
        for frame in frames(SAID.pcm()):
            buffer = bytearray(frame.data.cast("B"))
            ear.stream.push_frame(rtc.AudioFrame(buffer, 16000, 1, len(frame.data)))
            await asyncio.sleep(0.05)
            buffer[:] = bytes(len(buffer))
        await asyncio.sleep(2)
        assert len(server.connections) == 2, "part of it was sent twice"
        assert_heard(ear)


@in_virtual_time
async def test_i5_the_language_of_a_stream_is_its_own() -> None:
    async with TiroServer(api_key=KEY) as server:
        async with tiro.STT(base_url=server.base_url, api_key=KEY) as stt:
            streams = stt.stream(language="is-IS-x-exp"), stt.stream(), stt.stream(language="is")
            for stream in streams:
                stream.push_frame(rtc.AudioFrame.create(16000, 1, 1600))
            await until(
                lambda: sum(connection.seconds > 0 for connection in server.connections) == 3
            )
            assert stt.model == "is-IS"
        tags = sorted(connection.language for connection in server.connections)
    assert tags == ["is-IS", "is-IS", "is-IS-x-exp"]


# -- events --------------------------------------------------------------------------------------


def _no_alternatives(result: dict[str, Any]) -> None:
    for number, each in enumerate(result.get("results") or []):
        each["alternatives"] = ([], None, [{}], [{"words": []}])[number % 4]


def _one_more_result(result: dict[str, Any]) -> None:
    result["results"] = [{}, {"isFinal": True}, {"alternatives": []}, *(result["results"] or [])]


@pytest.mark.parametrize("change", [_no_alternatives, _one_more_result])
@in_virtual_time
async def test_e1_transcripts_have_an_alternative_whatever_comes(
    change: Callable[[dict[str, Any]], None],
) -> None:
    async with listening(faults.Combined(Rewrite(change), faults.Garbage())) as (_, ear):
        await ear.say()
        await ear.end()
        assert ear.error is None
        for event in ear.events:
            spoken = event.type in (INTERIM, FINAL)
            assert bool(event.alternatives) == spoken
        if change is _one_more_result:
            assert_heard(ear)


@pytest.mark.parametrize("hooks", [None, faults.PerConnection(faults.Disconnect(1.2))], ids=repr)
@in_virtual_time
async def test_e2_e3_an_interim_is_the_whole_tail_and_a_final_repeats_nothing(
    hooks: Hooks | None,
) -> None:
    async with listening(hooks) as (_, ear):
        await ear.say()
        await ear.end()
        assert_heard(ear)
        assert {e.type for e in ear.events} == {START, INTERIM, FINAL, END, USAGE}, "no preflight"
        tail = list(SAID.texts)
        for event in ear.events:
            if event.type is INTERIM:
                assert event.alternatives[0].text.split()[0] in (tail[0], tail[0][:-1])
            elif event.type is FINAL and event.alternatives[0].text:
                del tail[: len(event.alternatives[0].text.split())]


class Silenced(Hooks):
    """Decides on every segment that nothing was said in it; shows hypotheses only if asked."""

    def __init__(self, *, interims: bool) -> None:
        self._interims = interims

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        results = document["result"]["results"]
        if results and not results[0]["isFinal"]:
            return text if self._interims else None
        document["result"]["results"] = []
        return json.dumps(document)


@pytest.mark.parametrize(
    "hooks",
    [
        Silenced(interims=True),
        faults.PerConnection(faults.Disconnect(1.2), then=Silenced(interims=False)),
        faults.PerConnection(faults.Fail(14, 1.2), then=Silenced(interims=False)),
    ],
    ids=["never a final", "none after a reconnect", "none after a retry"],
)
@in_virtual_time
async def test_e4_e5_e6_a_hypothesis_that_comes_to_nothing_is_taken_back_and_ended(
    hooks: Hooks,
) -> None:
    async with listening(hooks) as (_, ear):
        await ear.say()
        await asyncio.sleep(5)
        assert of_type(ear.events, INTERIM), "something was shown"
        assert not finals(ear.events)
        assert_alternating(ear.events)
        kinds = [event.type for event in ear.events if event.type is not USAGE]
        for number, kind in enumerate(kinds):
            if kind is FINAL:
                assert kinds[number - 1] is INTERIM and kinds[number + 1] is END
        assert len(of_type(ear.events, FINAL)) == len(of_type(ear.events, END))
        assert all(e.alternatives[0].text for e in of_type(ear.events, INTERIM))


@in_virtual_time
async def test_e6_silence_and_noise_say_nothing_at_all() -> None:
    async with listening(said=talk(gap=12.0)) as (_, ear):
        await ear.say(talk(lead=12.0))
        await ear.end()
        assert {event.type for event in ear.events} <= {USAGE}


@pytest.mark.parametrize(
    ("given", "wire", "shown"),
    [
        ("is", "is-IS", "is-IS"),
        ("is_is", "is-IS", "is-IS"),
        ("is-IS-x-exp", "is-IS-x-exp", "is-IS"),
        ("is-is-X-ExP", "is-is-X-ExP", "is-IS"),
    ],
)
@in_virtual_time
async def test_e7_the_language_is_a_tag_and_goes_out_letter_by_letter(
    given: str, wire: str, shown: str
) -> None:
    async with listening(language=given) as (server, ear):
        await ear.say()
        await ear.end()
        assert server.connections[0].config["languageCode"] == wire
        spoken = [event.alternatives[0] for event in ear.events if event.alternatives]
        assert {data.language for data in spoken} == {shown}


@pytest.mark.parametrize("sent", [0, 0.5, 1, 2, -1, "high", None, True, 1e999])
@in_virtual_time
async def test_e8_confidence_is_0_to_1(sent: Any) -> None:
    def change(result: dict[str, Any]) -> None:
        for each in result["results"] or ():
            for alternative in each["alternatives"]:
                alternative["confidence"] = sent

    async with listening(Rewrite(change)) as (_, ear):
        await ear.say()
        await ear.end()
        spoken = [event.alternatives[0] for event in ear.events if event.alternatives]
        expected = sent if sent in (0.5, 1) and sent is not True else 0.0
        assert {data.confidence for data in spoken} == {expected}


@in_virtual_time
async def test_e9_every_event_has_the_id_of_its_connection() -> None:
    async with listening(faults.PerConnection(faults.Disconnect(Moment.FINAL))) as (server, ear):
        await ear.say()
        await ear.end()
        assert len(server.connections) == 2
        ids = [event.request_id for event in ear.events]
        assert all(ids)
        assert len(set(ids)) == 2
        assert ids == sorted(ids, key=ids.index), "one after the other"


@in_virtual_time
async def test_e10_usage_is_reported_in_increments() -> None:
    said = talk(4, 4, 4, gap=2.0)
    async with listening(faults.PerConnection(faults.Disconnect(3.0)), said) as (_, ear):
        await ear.say(said)
        await ear.end()
        reports = of_type(ear.events, USAGE)
        assert all(event.recognition_usage for event in reports)
        assert len(reports) >= said.seconds // 5
        assert usage(ear.events) == pytest.approx(said.seconds, abs=0.05)


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hooks",
    [
        None,
        faults.PerConnection(faults.Disconnect(1.2), faults.Disconnect(0.6)),
        faults.PerConnection(faults.Refuse(503), faults.Refuse(503)),
        faults.PerConnection(faults.StalledHandshake(3.0)),
        faults.PerConnection(faults.Fail(14, 1.2), faults.Refuse(503)),
    ],
    ids=repr,
)
@in_virtual_time
async def test_t1_t2_times_are_seconds_of_the_input_and_an_outage_moves_none(
    hooks: Hooks | None,
) -> None:
    async with listening(hooks) as (_, ear):
        ear.stream.start_time_offset = 20.0
        await ear.say()
        await ear.end()
        assert_heard(ear, offset=20.0)


@pytest.mark.parametrize("missing", ["words", "times"])
@in_virtual_time
async def test_t3_an_unknown_time_is_zero_and_not_the_offset(missing: str) -> None:
    def change(result: dict[str, Any]) -> None:
        for each in result["results"] or ():
            for alternative in each["alternatives"]:
                for word in alternative["words"]:
                    word.pop("startTime"), word.pop("endTime")
                if missing == "words":
                    alternative["words"] = []

    async with listening(Rewrite(change)) as (_, ear):
        ear.stream.start_time_offset = 20.0
        await ear.say()
        await ear.end()
        assert words(ear.events) == SAID.texts
        for event in ear.events:
            for data in event.alternatives:
                assert (data.start_time, data.end_time) == (0.0, 0.0)
                assert not any(word.end_time for word in data.words or ())


@pytest.mark.parametrize("hooks", [None, faults.Drift(0.2)], ids=repr)
@in_virtual_time
async def test_t4_no_time_lies_in_the_future(hooks: Hooks | None) -> None:
    """Also if the service's clock runs fast, and for finals that a flush brings at once."""
    async with listening(hooks, talk(3, 3, gap=0.1)) as (_, ear):
        started = time.time()
        await ear.say(talk(3, 3, gap=0.1))
        ear.stream.flush()
        await asyncio.sleep(1)
        assert of_type(ear.events, FINAL)
        for event in ear.events:
            if event.alternatives:
                assert started + event.alternatives[0].end_time <= event.created_at + 0.001
            for at in (event.speech_start_time, event.speech_end_time):
                assert at is None or at <= event.created_at


@in_virtual_time
async def test_t5_finals_carry_their_words_with_times_in_order() -> None:
    async with listening() as (_, ear):
        assert ear.stt.capabilities.aligned_transcript == "word"
        await ear.say()
        await ear.end()
        for event in of_type(ear.events, FINAL):
            data = event.alternatives[0]
            timed = data.words or []
            assert [str(word) for word in timed] == data.text.split()
            edges = np.array([(word.start_time, word.end_time) for word in timed], np.float64)
            assert np.all(np.diff(edges.reshape(-1)) >= 0)
            assert (edges[0, 0], edges[-1, 1]) == (data.start_time, data.end_time)


@pytest.mark.parametrize("burst", [0.0, 2.0])
@in_virtual_time
async def test_t6_start_and_end_have_epoch_seconds(burst: float) -> None:
    """Also if the audio began before the call: what the room has kept of it comes in one burst."""
    async with listening() as (_, ear):
        audio = list(frames(SAID.pcm()))
        early = round(burst / 0.05)
        started = time.time() - burst
        for frame in audio[:early]:
            ear.stream.push_frame(frame)
        for frame in audio[early:]:
            await asyncio.sleep(0.05)
            ear.stream.push_frame(frame)
        await asyncio.sleep(2)
        starts = [event.speech_start_time for event in of_type(ear.events, START)]
        ends = [event.speech_end_time for event in of_type(ear.events, END)]
        first, last = SAID.words[:3], SAID.words[3:]
        for at, said in zip(starts, (first, last), strict=True):
            assert at == pytest.approx(started + said[0].start, abs=0.11)
        for at, said in zip(ends, (first, last), strict=True):
            assert at == pytest.approx(started + said[-1].end, abs=0.11)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
@in_virtual_time
async def test_t6_the_system_clock_may_be_set_in_mid_call(step: float) -> None:
    """NTP sets it, or a machine wakes up: what is said after that has the new time."""
    true = time.time
    async with listening() as (_, ear):
        set_by = 0.0
        with mock.patch.object(time, "time", lambda: true() + set_by):
            for frame in frames(SAID.pcm()):
                await asyncio.sleep(0.05)
                ear.stream.push_frame(frame)
                set_by = step
            await asyncio.sleep(2)
            ended = of_type(ear.events, END)[-1]
            assert ended.speech_end_time is not None
            assert 0 < ended.created_at - ended.speech_end_time < 3
            delay = ear.stream.stats.final_delay_last
            assert delay is not None and 0 < delay < 3


# -- secrets -------------------------------------------------------------------------------------


@in_virtual_time
async def test_s1_no_transcript_in_a_log_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    garbage = faults.Garbage(['{"w0": "w1"}', "w2 w3"])
    async with listening(garbage) as (_, ear):
        await ear.say()
        await ear.end()
        assert_heard(ear)
    said = set(SAID.texts)
    for record in caplog.records:
        if not record.name.startswith("livekit.plugins.tiro"):
            continue
        assert not said & set(record.getMessage().split())
        for name, value in vars(record).items():
            if any(word in str(value) for word in said):
                assert "pii" in name.split("."), name


@pytest.mark.parametrize(
    "fault",
    [
        faults.Refuse(401, KEY),
        faults.Refuse(503, KEY),
        faults.StalledHandshake(),
        faults.ResetHandshake(),
        faults.Disconnect(Moment.CONFIG, reset=True),
        faults.Fail(16, message=f"bad token={KEY}"),
        faults.Fail(13, message=f"https://x/?token={KEY}", shape="gateway v1"),
        faults.Mute(0.5),
    ],
    ids=lambda fault: repr(fault).replace(KEY, "KEY"),
)
@in_virtual_time
async def test_s2_s3_no_key_in_an_exception_and_none_in_a_log(
    fault: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """The key travels in the URL, and aiohttp puts the URL into its exceptions."""
    caplog.set_level(logging.DEBUG)
    async with listening(fault, conn_options=APIConnectOptions(max_retry=1)) as (server, ear):
        await ear.say()
        await asyncio.wait({ear.reading}, timeout=60)
        assert server.connections[0].token == KEY, "it was sent"
        shown = [repr(ear.stt), repr(ear.stream.options), *_every_way_to_print(ear.error)]
        for error in ear.errors:
            shown += [str(error), *_every_way_to_print(error.error)]
    shown += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    for text in shown:
        assert "lykill" not in text and "0123" not in text


def _every_way_to_print(error: BaseException | None) -> list[str]:
    """Print an exception, and those that it is chained to."""
    if error is None:
        return []
    shown = [str(error), repr(error), *traceback.format_exception(error)]
    for cause in (error.__cause__, error.__context__):
        shown += _every_way_to_print(cause)
    return shown


# -- labels --------------------------------------------------------------------------------------


@in_virtual_time
async def test_m1_model_and_provider_are_on_every_report() -> None:
    async with listening(language="is-IS-x-exp") as (_, ear):
        assert (ear.stt.model, ear.stt.provider) == ("is-IS-x-exp", "Tiro")
        await ear.say()
        await ear.end()
        labels = {
            (report.metadata.model_name, report.metadata.model_provider)
            for report in ear.metrics
            if report.metadata
        }
        assert labels == {("is-IS-x-exp", "Tiro")}
        assert all(report.metadata for report in ear.metrics)


@in_virtual_time
async def test_m2_each_connection_is_reported_once() -> None:
    hooks = faults.PerConnection(faults.Disconnect(1.2), faults.Refuse(503), faults.Disconnect(0.5))
    async with listening(hooks) as (server, ear):
        await ear.say()
        await ear.end()
        opened = [report for report in ear.metrics if not report.audio_duration]
        assert len(opened) == len(server.connections) - 1, "all but the refused one"
        assert not any(report.connection_reused for report in opened)
