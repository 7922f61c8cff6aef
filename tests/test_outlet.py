"""Events and reports of usage, in the order in which a stream hands them out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from livekit.agents import APIConnectOptions, APIError
from livekit.agents.stt import RecognitionUsage, SpeechEvent, SpeechEventType
from livekit.plugins import tiro
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.outlet import EventStream, Outlet, _run_through
from livekit.plugins.tiro.transcript import Transcript

from .support.harness import END, FINAL, INTERIM, START, USAGE, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livekit.agents.metrics import STTMetrics

RATE = 16000


def send(backlog: Backlog, seconds: float) -> None:
    start = backlog.end
    backlog.push(bytes(2 * round(seconds * RATE)), RATE)
    backlog.take(start, backlog.end)


def new_transcript(backlog: Backlog) -> Transcript:
    clock = Clock()
    feed = Feed(backlog, clock, 0.0)
    transcript = Transcript(clock, backlog, feed)
    transcript.begin("tiro_1", feed)
    return transcript


class Stream:
    """An outlet, and stand-ins for what it asks of its stream."""

    def __init__(self, *, usage: bool = True) -> None:
        self.backlog = Backlog()
        transcript = new_transcript(self.backlog)
        self.events: list[SpeechEvent] = []
        self.counted: list[SpeechEvent] = []
        send, count = self.events.append, self.counted.append
        self.outlet = Outlet(send, count, self.backlog, transcript, usage=usage)

    def send(self, seconds: float) -> None:
        """Send audio, and report as a stream does that sends it as it is pushed."""
        send(self.backlog, seconds)
        if self.backlog.sent_to >= self.outlet.report_at:
            self.outlet.report_usage()

    def emit(self, *kinds: SpeechEventType) -> None:
        self.outlet.emit([SpeechEvent(kind) for kind in kinds])

    @property
    def kinds(self) -> Sequence[SpeechEventType]:
        return [event.type for event in self.events]


@pytest.mark.parametrize("frame", [0.01, 0.05, 0.1])
def test_usage_is_reported_while_audio_goes_out(frame: float) -> None:
    stream = Stream()
    for n in range(round(23 / frame)):
        stream.send(frame)
        assert (n + 1) * frame - usage(stream.events) <= 5.0 + frame
    reported = [event.recognition_usage.audio_duration for event in stream.events]  # type: ignore[union-attr]
    assert 5.0 < min(reported) <= max(reported) < 5.01 + frame
    stream.outlet.report_usage(at_least=0.0)
    assert usage(stream.events) == pytest.approx(23)


def test_a_report_says_on_which_connection() -> None:
    stream = Stream()
    stream.emit(START, FINAL)
    stream.send(0.3)
    stream.emit(END)
    stream.outlet.report_usage(at_least=0.0)
    stream.outlet.report_usage(at_least=0.0)
    assert stream.kinds == [START, FINAL, END, USAGE], "nothing was sent in between"
    assert stream.counted == stream.events[3:]
    assert usage(stream.events) == pytest.approx(0.3)
    assert stream.events[-1].request_id == "tiro_1"


def test_little_is_left_for_later() -> None:
    stream = Stream()
    stream.send(0.3)
    stream.outlet.report_usage()
    assert not stream.events


def test_who_reports_usage_himself_gets_no_report() -> None:
    stream = Stream(usage=False)
    stream.send(3.0)
    stream.emit(START, END)
    stream.outlet.report_usage(at_least=0.0)
    assert stream.kinds == [START, END]


class Scripted(EventStream):
    """A stream that does what it is told."""

    def __init__(self, stt: tiro.STT) -> None:
        self.told: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self.backlog = Backlog()
        super().__init__(stt=stt, conn_options=APIConnectOptions(max_retry=2, retry_interval=0))
        send, said = self._event_ch.send_nowait, new_transcript(self.backlog)
        self._outlet = Outlet(send, self.count, self.backlog, said, usage=True)

    async def _run(self) -> None:
        while True:
            (await self.told.get())()

    def tell(self, *kinds: SpeechEventType) -> None:
        used = RecognitionUsage(audio_duration=1.5)
        for kind in kinds:
            event = SpeechEvent(kind, recognition_usage=used if kind is USAGE else None)
            self.told.put_nowait(lambda event=event: self._hand_out(event))  # type: ignore[misc]

    def _hand_out(self, event: SpeechEvent) -> None:
        self._event_ch.send_nowait(event)
        if event.type is USAGE:
            self.count(event)

    def fail(self) -> None:
        def fail() -> None:
            raise APIError("the service is down", retryable=True)

        self.told.put_nowait(fail)


async def test_who_gives_up_waiting_for_an_event_gets_the_next_one() -> None:
    stream = Scripted(tiro.STT(api_key="t"))
    for kind in (START, INTERIM, FINAL):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.001)
        stream.tell(kind)
        assert (await stream.__anext__()).type is kind
    await stream.aclose()
    assert [event async for event in stream] == []


async def test_a_failure_comes_after_the_last_event_and_stays() -> None:
    stream = Scripted(tiro.STT(api_key="t"))
    stream.tell(START)
    for _ in range(3):
        stream.fail()
    assert (await stream.__anext__()).type is START
    for _ in range(2):
        with pytest.raises(APIError, match="after 2 attempts"):
            await stream.__anext__()
    await stream.aclose()


async def test_the_framework_counts_usage_once() -> None:
    stt = tiro.STT(api_key="t")
    metrics: list[STTMetrics] = []
    stt.on("metrics_collected", metrics.append)
    stream = Scripted(stt)
    stream.tell(INTERIM, FINAL, USAGE, USAGE)
    events = [await stream.__anext__() for _ in range(4)]
    assert [event.type for event in events] == [INTERIM, FINAL, USAGE, USAGE]
    await stream.aclose()
    assert [(one.audio_duration, one.streamed) for one in metrics] == 2 * [(1.5, True)]


async def test_what_is_reported_as_a_stream_closes_is_counted() -> None:
    stt = tiro.STT(api_key="t")
    metrics: list[STTMetrics] = []
    stt.on("metrics_collected", metrics.append)

    class Closing(Scripted):
        async def _run(self) -> None:
            try:
                await super()._run()
            finally:
                used = RecognitionUsage(audio_duration=0.5)
                self._hand_out(SpeechEvent(USAGE, recognition_usage=used))

    stream = Closing(stt)
    await asyncio.sleep(0)
    await stream.aclose()
    assert [one.audio_duration for one in metrics] == [0.5]


async def test_all_that_was_used_is_counted_at_once_if_asked() -> None:
    stt = tiro.STT(api_key="t")
    metrics: list[float] = []
    stt.on("metrics_collected", lambda one: metrics.append(one.audio_duration))
    stream = Scripted(stt)
    send(stream.backlog, 6.0)
    stream._outlet.report_usage()
    send(stream.backlog, 2.0)
    assert not metrics, "the listener is not called from within `push_frame`"
    stream.account()
    assert metrics == [6.0, 2.0]
    stream.account()
    await asyncio.sleep(0)
    assert metrics == [6.0, 2.0], "once"
    # Events and metrics belong to the stream's own loop.
    send(stream.backlog, 1.0)
    await asyncio.to_thread(stream.account)
    assert metrics == [6.0, 2.0]
    await stream.aclose()


async def test_metrics_that_wait_for_something_are_not_lost_in_silence() -> None:
    with pytest.raises(RuntimeError, match="sleep.* waits for something: run it as a task"):
        _run_through(asyncio.sleep(0))
