"""What a stream may cost, in counts: the same input costs the same on any machine.

Each number is the measured count, or a little more where versions of Python differ. Raise one only
for a reason. Time is virtual: a call goes on at its pace, and takes no time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tracemalloc
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from livekit import rtc
from livekit.plugins import tiro
from livekit.plugins.tiro import protocol, transcript
from livekit.plugins.tiro.backlog import Backlog
from livekit.plugins.tiro.clock import Clock
from livekit.plugins.tiro.feed import Feed
from livekit.plugins.tiro.log import logger

from .support.fake_socket import RATE, calling, frame
from .support.garbage import set_aside
from .support.harness import FINAL, INTERIM
from .support.session_fakes import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from unittest.mock import Mock

PACKAGE = str(Path(tiro.__file__).parent)
CHUNK_BYTES = 2 * RATE // 20
"""50 ms: what an `AgentSession` pushes, and what goes out in one message."""
SECOND_BYTES = 2 * RATE
COUNTED = 200
"""Chunks over which is counted."""
SECONDS = COUNTED // 20
"""s that they last. Once a second a connection is looked after, and old audio is let go."""


def phrase(number: int, end: float, *, words: int = 10, final: bool = False) -> bytes:
    """Return a hypothesis, or a final, that ends at `end` seconds."""
    spoken = [
        {"startTime": f"{end * n / words:.3f}s", "endTime": f"{end * (n + 1) / words:.3f}s"}
        for n in range(words)
    ]
    said = [{**word, "word": f"orð{number}", "confidence": 0, "speakerTag": 0} for word in spoken]
    text = " ".join([f"orð{number}"] * words)
    best = {"transcript": text, "confidence": 0, "words": said}
    result = {"alternatives": [best], "isFinal": final, "stability": 0}
    return json.dumps({"result": {"error": None, "results": [result]}}).encode()


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of the package's own functions, and each time one goes on after a wait.

    Comprehensions, generators and lambdas are left out: Python 3.12 calls fewer of them.
    """
    calls: Counter[str] = Counter()

    def note(current: FrameType, event: str, _: Any) -> None:
        code = current.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name[0] != "<":
            calls[code.co_name] += 1

    # Closing generators that other tests left suspended calls them once more.
    gc.disable()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        gc.enable()


@contextmanager
def counted(owner: Any, name: str) -> Iterator[Mock]:
    """Count the calls of a function or a class."""
    with mock.patch.object(owner, name, wraps=getattr(owner, name)) as noted:
        yield noted


@contextmanager
def loop_calls() -> Iterator[Counter[str]]:
    """Count what the event loop is asked for."""
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    noted: dict[str, Mock] = {}
    with ExitStack() as stack:
        for name in ("create_task", "create_future", "call_soon", "call_at"):
            noted[name] = stack.enter_context(counted(loop, name))
        yield counts
        counts.update({name: mock.call_count for name, mock in noted.items()})


def peak(action: Callable[[], Any]) -> int:
    """Return how many bytes an action needs at most, its result included.

    The least of some tries: other threads of the process need memory as well.
    """
    tracemalloc.start()
    try:
        return min(_peak(action) for _ in range(5))
    finally:
        tracemalloc.stop()


def _peak(action: Callable[[], Any]) -> int:
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    kept = action()
    _, most = tracemalloc.get_traced_memory()
    del kept
    return most - before


@in_virtual_time
async def test_a_chunk_is_one_message_and_eleven_calls() -> None:
    pushed = frame(50)
    async with calling(pushed) as call:
        socket = call.socket
        sent, size = socket.messages, socket.audio_bytes
        with counted_calls() as calls:
            await call.push(pushed, times=COUNTED)
        assert socket.messages - sent == COUNTED
        assert socket.audio_bytes - size == COUNTED * len(protocol.encode_audio(pushed.data))
    # It is 11.5, with what is done once a second or more rarely, and a report each 5 s.
    assert sum(calls.values()) <= 11.6 * COUNTED, calls
    assert calls["_trim"] <= SECONDS


@in_virtual_time
async def test_a_frame_shorter_than_a_chunk_costs_little() -> None:
    pushed = frame(10)
    async with calling(pushed) as call:
        sent = call.socket.messages
        with counted_calls() as calls:
            await call.push(pushed, times=5 * COUNTED)
        assert call.socket.messages - sent == COUNTED
    # It is 6.6: the frame is kept, and there is no whole chunk yet.
    assert sum(calls.values()) <= 6.7 * 5 * COUNTED, calls


@in_virtual_time
async def test_a_chunk_makes_no_task_and_wakes_none() -> None:
    pushed = frame(50)
    async with calling(pushed) as call:
        with loop_calls() as counts:
            await call.push(pushed, times=COUNTED)
    # One of each per frame is the test's own: it waits until the next frame is due. A report of
    # usage wakes the reader of the events, and metrics are made of it a moment later.
    reports = 0.5 * SECONDS
    assert counts["call_at"] <= COUNTED + SECONDS + 2
    assert counts["create_future"] <= COUNTED + SECONDS + 2 * reports
    assert counts["call_soon"] <= COUNTED + SECONDS + 2 * reports
    assert counts["create_task"] == 0


@in_virtual_time
async def test_nothing_is_resampled_unless_asked() -> None:
    with mock.patch.object(rtc, "AudioResampler") as resampler:
        async with calling(frame(50)) as call:
            pass
    resampler.assert_not_called()
    assert b'"sampleRateHertz": 24000' in call.socket.config


@in_virtual_time
async def test_words_are_built_for_finals_only() -> None:
    async with calling(frame(50)) as call:
        await call.push(frame(50), times=100)
        with (
            counted(transcript, "TimedString") as timed,
            counted(protocol, "Word") as words,
        ):
            await call.hear(*(phrase(n, 0.1 * (n + 1)) for n in range(40)))
            assert (words.call_count, timed.call_count) == (0, 0)
            await call.hear(phrase(40, 5.0, final=True))
            assert (words.call_count, timed.call_count) == (10, 10)
    kinds = [event.type for event in call.events]
    assert (kinds.count(INTERIM), kinds.count(FINAL), len(kinds)) == (40, 1, 43)


@in_virtual_time
async def test_a_hypothesis_costs_the_same_whatever_its_length() -> None:
    async with calling(frame(50)) as call:
        await call.push(frame(50), times=100)
        for words in (1, 10, 100):
            hypotheses = [phrase(n, 0.1 * (n + 1), words=words) for n in range(40)]
            with counted_calls() as calls:
                await call.hear(*hypotheses)
            # It is 32.7 for each, 2 of which hand it to the reader of the events.
            assert sum(calls.values()) <= 33 * 40, calls


@in_virtual_time
async def test_a_final_costs_some_calls_a_word() -> None:
    async with calling(frame(50)) as call:
        await call.push(frame(50), times=100)
        for n, words in enumerate((1, 10, 100)):
            with counted_calls() as calls:
                await call.hear(phrase(n, 4.0 + n / 10, words=words, final=True))
            # It is 92, 4 of which are for two events to the reader, and 2 a word: its times and its
            # text. The first final costs 25 more: it measures the new audio, and compares the
            # service's clock.
            assert sum(calls.values()) <= (117 if n == 0 else 92) + 2 * words, calls


def test_a_chunk_is_copied_once_and_put_into_its_message() -> None:
    backlog = Backlog()
    feed = Feed(backlog, Clock(), 0.0)
    pcm = frame(50).data
    taken = peak(lambda: backlog.push(pcm, RATE))
    handed_out = peak(lambda: feed.next_chunk(0.0))
    chunk = bytes(CHUNK_BYTES)
    encoded = peak(lambda: protocol.encode_audio(chunk))
    # Measuring coverage takes some memory of its own; one more copy is more than that.
    assert taken <= 1.5 * CHUNK_BYTES
    assert handed_out <= 0.5 * CHUNK_BYTES
    # The base64, and the message that it is put into.
    assert encoded <= 2.4 * CHUNK_BYTES * 4 / 3


@pytest.mark.slow
@in_virtual_time
async def test_six_minutes_of_silence_leave_nothing_behind() -> None:
    held = await _held(frame(1000, 0), finals=False)
    # 7 s of audio: the possible start of speech, audio that the peer may not have taken, and audio
    # that is held back. The rest is the framework, and Python 3.13, which holds more than others.
    assert max(held) <= 8.5 * SECOND_BYTES
    # Not 8 bytes a message. At the end of some minutes 3 s more of the audio are held.
    assert min(held[-2:]) - min(held[:2]) <= 10_000, held


@pytest.mark.slow
@in_virtual_time
async def test_six_minutes_of_speech_leave_nothing_behind() -> None:
    held = await _held(frame(1000), finals=True)
    # Audio waits for its final for 1 s or more here, and is dropped then.
    assert max(held) <= 3.5 * SECOND_BYTES
    # Not 5 bytes a chunk, and not 250 a final.
    assert held[-1] - held[1] <= 20_000, held


async def _held(pushed: rtc.AudioFrame, *, finals: bool) -> list[int]:
    """Return the bytes that a call came to hold since its start, after each minute of six."""
    held: list[int] = []
    set_aside()
    # pytest keeps what is logged.
    with mock.patch.object(logger, "disabled", True):
        async with calling(pushed) as call:
            tracemalloc.start()
            try:
                for second in range(1, 361):
                    await call.push(pushed)
                    if finals and second % 3 == 0:
                        await call.hear(phrase(second, float(second), final=True))
                    call.events.clear()
                    if second % 60 == 0:
                        gc.collect()
                        held.append(tracemalloc.get_traced_memory()[0])
            finally:
                tracemalloc.stop()
    return held
