"""A file's way through the service: at which pace, at which times, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from livekit.agents import APIConnectionError, LanguageCode, stt
from livekit.agents.types import TimedString
from livekit.plugins.tiro.cli import hearing
from livekit.plugins.tiro.cli.blocks import Block
from livekit.plugins.tiro.cli.exits import Exit, FileError
from livekit.plugins.tiro.cli.formats import Segment, Transcript
from livekit.plugins.tiro.cli.hearing import Hearing
from livekit.plugins.tiro.cli.signals import Interruption
from livekit.plugins.tiro.clock import _FARTHEST_AHEAD, PAUSE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from livekit import rtc

RATE = 8000

Kind = stt.SpeechEventType


def sound(seconds: float, at: float = 0.0) -> Iterator[Block]:
    """Blocks of a tenth of a second, one after the other."""
    for number in range(round(seconds * 10)):
        yield Block(bytes(2 * RATE // 10), at + number / 10)


class FakeReader:
    """A reader whose blocks are given; between them it can fail, or have nothing for a while."""

    def __init__(self, *items: Any, shortfall: str | None = None) -> None:
        self._items = list(items)
        self._audio = SimpleNamespace(sample_rate=RATE, start=0.0, shortfall=shortfall)

    async def audio(self) -> Any:
        return self._audio

    async def get_ahead(self) -> None:
        pass

    is_file = False

    async def next(self, patience: float | None = None) -> Block | None:
        if not self._items:
            return None
        item = self._items[0]
        if isinstance(item, asyncio.Event):
            await asyncio.wait_for(item.wait(), patience)
            del self._items[0]
            return await self.next(patience)
        if isinstance(item, Exception):
            raise item
        block: Block = self._items.pop(0)
        return block


class FakeStream:
    """A stream that takes audio for ever, and reports that it was sent when it has a lot."""

    def __init__(self) -> None:
        self.pushed = 0.0
        self.frames: list[rtc.AudioFrame] = []
        self.most_ahead = 0.0
        self.acknowledged = 0.0
        self.ended = asyncio.Event()
        self.full = asyncio.Event()
        self.closed = False

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        assert not self.ended.is_set()
        self.frames.append(frame)
        self.pushed += frame.duration
        self.most_ahead = max(self.most_ahead, self.pushed - self.acknowledged)
        if self.pushed - self.acknowledged > 40.0:
            self.full.set()

    def end_input(self) -> None:
        self.ended.set()

    async def aclose(self) -> None:
        self.closed = True

    async def __aiter__(self) -> AsyncIterator[stt.SpeechEvent]:
        while not self.ended.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self.ended, self.full)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            for _ in range(400):
                # Time for whoever pushes to go too far.
                await asyncio.sleep(0)
            self.full.clear()
            yield self.usage()
        for event in self.last_words():
            yield event

    def usage(self) -> stt.SpeechEvent:
        seconds = self.pushed - self.acknowledged
        self.acknowledged = self.pushed
        usage = stt.RecognitionUsage(audio_duration=seconds)
        return stt.SpeechEvent(Kind.RECOGNITION_USAGE, recognition_usage=usage)

    def last_words(self) -> list[stt.SpeechEvent]:
        return []


def said(kind: Kind, text: str, start: float, end: float) -> stt.SpeechEvent:
    words = [TimedString(text, start_time=start, end_time=end)]
    data = stt.SpeechData(LanguageCode("is"), text, start_time=start, end_time=end, words=words)
    return stt.SpeechEvent(kind, alternatives=[data])


class Notebook:
    """A listener that writes everything down."""

    def __init__(self) -> None:
        self.interims: list[str] = []
        self.finals: list[Segment] = []
        self.seconds: list[float] = []

    def interim(self, text: str) -> None:
        self.interims.append(text)

    def final(self, segment: Segment) -> None:
        self.finals.append(segment)

    def heard(self, seconds: float) -> None:
        self.seconds.append(seconds)


class HearingSetup:
    """One hearing and all that belongs to it."""

    def __init__(self, *items: Any, realtime: bool = False, shortfall: str | None = None) -> None:
        self.reader = cast("Any", FakeReader(*items, shortfall=shortfall))
        self.streams: list[FakeStream] = []
        self.notebook = Notebook()
        self.transcript = Transcript("a.wav", "is-IS")
        self.interruption = Interruption()
        self.make: type[FakeStream] = FakeStream
        self.hearing = Hearing(
            self.reader, self.transcript, self.notebook, self.interruption, realtime=realtime
        )

    def stream(self, **_: object) -> FakeStream:
        self.streams.append(self.make())
        return self.streams[-1]

    async def run(self) -> bool:
        engine: Any = self
        return await asyncio.wait_for(self.hearing.run(engine), 10)


# -- pace ----------------------------------------------------------------------------------------


async def test_a_long_file_is_never_far_ahead_of_the_service() -> None:
    setup = HearingSetup(*sound(300.0))
    assert await setup.run()
    (stream,) = setup.streams
    assert stream.pushed == pytest.approx(300.0)
    assert 40.0 < stream.most_ahead < 55.0
    assert stream.closed
    assert setup.transcript.complete
    assert setup.transcript.duration == pytest.approx(300.0)
    assert setup.notebook.seconds == sorted(setup.notebook.seconds)
    assert setup.notebook.seconds[-1] == pytest.approx(300.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only sleeping moves."""
    found = SimpleNamespace(now=0.0)
    sleep = asyncio.sleep

    async def pass_time(seconds: float) -> None:
        found.now += seconds
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pass_time)
    monkeypatch.setattr(hearing, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


async def test_audio_goes_on_at_least_as_fast_as_speech_however_slow_the_service(
    clock: SimpleNamespace,
) -> None:
    class Mute(FakeStream):
        async def __aiter__(self) -> AsyncIterator[stt.SpeechEvent]:
            await self.ended.wait()
            for event in self.last_words():
                yield event

    setup = HearingSetup(*sound(100.0))
    setup.make = Mute
    await setup.run()
    (stream,) = setup.streams
    assert stream.pushed == pytest.approx(100.0)
    assert clock.now == pytest.approx(100.0 - hearing._MAX_AHEAD, abs=0.5)


def test_the_limits_keep_clear_of_those_of_the_stream() -> None:
    """A file is no live audio for it, and what a live input leaves out is no pause."""
    assert hearing._MAX_AHEAD > _FARTHEST_AHEAD + PAUSE
    assert hearing._STALLED < PAUSE


async def test_real_time_is_the_pace_of_speech(clock: SimpleNamespace) -> None:
    setup = HearingSetup(*sound(2.0), realtime=True)
    await setup.run()
    assert {frame.duration for frame in setup.streams[0].frames} == {0.05}
    assert clock.now == pytest.approx(2.0, abs=0.1)


# -- words ---------------------------------------------------------------------------------------


async def test_words_have_the_times_of_the_file() -> None:
    class Speaks(FakeStream):
        def last_words(self) -> list[stt.SpeechEvent]:
            return [
                said(Kind.INTERIM_TRANSCRIPT, "já\n já", 0.2, 0.4),
                said(Kind.FINAL_TRANSCRIPT, "Já", 0.2, 0.4),
                said(Kind.FINAL_TRANSCRIPT, "nei", 1.2, 1.4),
                said(Kind.FINAL_TRANSCRIPT, "", 0.0, 0.0),
                stt.SpeechEvent(Kind.END_OF_SPEECH),
            ]

    setup = HearingSetup(*sound(1.0, at=10.0), *sound(1.0, at=70.0))
    setup.make = Speaks
    await setup.run()
    assert setup.notebook.interims == ["já já"]
    times = [(segment.text, round(segment.start, 3)) for segment in setup.notebook.finals]
    assert times == [("Já", 10.2), ("nei", 70.2)]
    assert setup.transcript.segments == setup.notebook.finals
    assert setup.transcript.duration == pytest.approx(71.0)
    assert setup.notebook.seconds[-1] == pytest.approx(71.0)


async def test_a_file_that_is_shorter_than_it_says_is_not_complete() -> None:
    setup = HearingSetup(*sound(1.0), shortfall="it ends at 1.0 of 3.0 s")
    assert await setup.run()
    assert not setup.transcript.complete


async def test_a_file_without_a_block_needs_no_service() -> None:
    setup = HearingSetup()
    assert await setup.run()
    assert setup.streams == []


# -- live input ----------------------------------------------------------------------------------


async def test_an_input_that_pauses_brings_its_words_and_goes_on_at_its_own_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stream would take the pause for one of the microphone, and move all times after it."""
    monkeypatch.setattr(hearing, "_STALLED", 0.05)
    more = asyncio.Event()

    class Speaks(FakeStream):
        def last_words(self) -> list[stt.SpeechEvent]:
            more.set()
            return [said(Kind.FINAL_TRANSCRIPT, "já", 0.2, 0.3)]

    setup = HearingSetup(*sound(0.4), more, *sound(0.4, at=0.4))
    setup.make = Speaks
    await setup.run()
    assert [stream.pushed for stream in setup.streams] == pytest.approx([0.4, 0.4])
    assert [segment.start for segment in setup.notebook.finals] == pytest.approx([0.2, 0.6])
    assert setup.transcript.complete


async def test_audio_that_comes_late_all_the_same_begins_a_new_stream(
    clock: SimpleNamespace,
) -> None:
    """Such as when the computer slept."""
    setup = HearingSetup(*sound(0.9), Block(bytes(4 * RATE), 0.9), *sound(1.0, at=2.9))
    wait = setup.hearing._wait_for_room

    async def sleep_once() -> None:
        await wait()
        if len(setup.streams) == 1 and setup.streams[0].pushed > 0.95:
            clock.now += 5.0

    setup.hearing._wait_for_room = sleep_once  # type: ignore[method-assign]
    await setup.run()
    assert [stream.pushed for stream in setup.streams] == pytest.approx([1.0, 2.9])
    assert setup.transcript.duration == pytest.approx(3.9)


async def test_audio_that_is_there_is_not_cut_because_the_program_had_no_turn(
    clock: SimpleNamespace,
) -> None:
    """On a busy machine."""
    setup = HearingSetup(*sound(3.0))
    setup.reader.is_file = True
    wait = setup.hearing._wait_for_room

    async def be_held_up() -> None:
        await wait()
        if setup.streams[0].pushed == pytest.approx(0.5):
            clock.now += 2.0

    setup.hearing._wait_for_room = be_held_up  # type: ignore[method-assign]
    await setup.run()
    assert [stream.pushed for stream in setup.streams] == pytest.approx([3.0])


# -- failures ------------------------------------------------------------------------------------


async def test_a_failure_of_the_service_ends_the_pushing() -> None:
    class Fails(FakeStream):
        async def __aiter__(self) -> AsyncIterator[stt.SpeechEvent]:
            await asyncio.sleep(0)
            for event in self.last_words():
                yield event
            raise APIConnectionError("gone")

    setup = HearingSetup(*sound(100.0))
    setup.make = Fails
    tasks = asyncio.all_tasks()
    with pytest.raises(APIConnectionError):
        await setup.run()
    (stream,) = setup.streams
    assert stream.closed
    assert stream.pushed < 5.0, "the failure had no chance to be seen"
    assert asyncio.all_tasks() == tasks


async def test_a_file_that_breaks_off_is_heard_up_to_there() -> None:
    setup = HearingSetup(*sound(0.5), FileError(Exit.NO_FILE, "cannot be read"))
    with pytest.raises(FileError):
        await setup.run()
    (stream,) = setup.streams
    assert stream.ended.is_set() and stream.closed
    assert stream.pushed == pytest.approx(0.5)
    assert setup.transcript.duration == pytest.approx(0.5)
    assert not setup.transcript.complete


# -- signals -------------------------------------------------------------------------------------


async def interrupted(setup: HearingSetup) -> None:
    running = asyncio.create_task(setup.run())
    while not (setup.streams and setup.streams[0].pushed):
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)
    setup.interruption.came.set()
    assert await running is False
    assert not setup.transcript.complete
    await asyncio.sleep(0.01)
    assert setup.streams[0].closed


async def test_a_signal_brings_the_words_so_far() -> None:
    class Speaks(FakeStream):
        def last_words(self) -> list[stt.SpeechEvent]:
            return [said(Kind.FINAL_TRANSCRIPT, "já", 0.2, 0.4)]

    setup = HearingSetup(*sound(1.0), asyncio.Event())
    setup.make = Speaks
    await interrupted(setup)
    assert [segment.text for segment in setup.transcript.segments] == ["já"]


async def test_a_signal_keeps_what_was_shown_if_the_service_is_too_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(FakeStream):
        async def __aiter__(self) -> AsyncIterator[stt.SpeechEvent]:
            yield said(Kind.INTERIM_TRANSCRIPT, "já já", 0.2, 0.4)
            await asyncio.Event().wait()

    monkeypatch.setattr(hearing, "ANSWERS", 0.02)
    setup = HearingSetup(*sound(1.0, at=5.0), asyncio.Event())
    setup.make = Slow
    await interrupted(setup)
    (segment,) = setup.transcript.segments
    assert (segment.text, round(segment.start, 3)) == ("já já", 5.2)
    assert setup.notebook.finals == [segment]


async def test_a_signal_ends_the_wait_for_the_first_sound() -> None:
    setup = HearingSetup(asyncio.Event())
    running = asyncio.create_task(setup.run())
    await asyncio.sleep(0.01)
    setup.interruption.came.set()
    assert await running is False
    assert setup.streams == []


async def test_a_failure_after_a_signal_is_nobodys_concern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without an error that nobody takes: asyncio would report it when the task is collected."""

    class Fails(FakeStream):
        async def __aiter__(self) -> AsyncIterator[stt.SpeechEvent]:
            await asyncio.Event().wait()
            yield self.usage()

        async def aclose(self) -> None:
            await super().aclose()
            raise APIConnectionError("gone")

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    monkeypatch.setattr(hearing, "ANSWERS", 0.01)
    setup = HearingSetup(*sound(1.0), asyncio.Event())
    setup.make = Fails
    await interrupted(setup)
    gc.collect()
    assert reports == []
