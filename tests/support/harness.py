"""Helpers of the stream tests: audio in, events out."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from livekit import rtc
from livekit.agents.stt import SpeechEvent, SpeechEventType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from livekit.agents import stt

DATA = Path(__file__).parents[1] / "data"

START = SpeechEventType.START_OF_SPEECH
INTERIM = SpeechEventType.INTERIM_TRANSCRIPT
FINAL = SpeechEventType.FINAL_TRANSCRIPT
END = SpeechEventType.END_OF_SPEECH
USAGE = SpeechEventType.RECOGNITION_USAGE

Pcm = npt.NDArray[np.int16]


def read_wav(name: str) -> Pcm:
    """Return the samples of a file of tests/data, 16 kHz mono."""
    with wave.open(str(DATA / name)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def frames(
    pcm: Pcm, rate: int = 16000, ms: float = 50, channels: int = 1
) -> Iterator[rtc.AudioFrame]:
    """Cut samples into frames of `ms` milliseconds; the last one may be shorter."""
    size = max(1, round(rate * ms / 1000))
    for start in range(0, len(pcm), size):
        part = pcm[start : start + size]
        data = (part if channels == 1 else np.repeat(part, channels)).tobytes()
        yield rtc.AudioFrame(data, rate, channels, len(part))


async def collect(
    stream: stt.RecognizeStream, audio: Iterable[rtc.AudioFrame], *, pace: float = 0.0
) -> list[SpeechEvent]:
    """Push audio, end the input, and return all events. `pace` is real seconds per frame."""

    async def push() -> None:
        for frame in audio:
            stream.push_frame(frame)
            if pace:
                await asyncio.sleep(pace)
        stream.end_input()

    pushing = asyncio.create_task(push())
    try:
        return [event async for event in stream]
    finally:
        pushing.cancel()
        await stream.aclose()


def finals(events: Iterable[SpeechEvent]) -> list[str]:
    """Return the texts of the finals that have words."""
    return [e.alternatives[0].text for e in events if e.type is FINAL and e.alternatives[0].text]


def words(events: Iterable[SpeechEvent]) -> list[str]:
    """Return the words of the finals."""
    return " ".join(finals(events)).split()


def usage(events: Iterable[SpeechEvent]) -> float:
    """Return the seconds of audio that were reported."""
    return sum(e.recognition_usage.audio_duration for e in events if e.recognition_usage)


def assert_alternating(events: Iterable[SpeechEvent]) -> None:
    """START, transcripts, END; nothing outside, nothing left open (E4, E5)."""
    speaking = False
    for event in events:
        if event.type is START:
            assert not speaking, "START twice"
            speaking = True
        elif event.type is END:
            assert speaking, "END without START"
            speaking = False
        elif event.type is INTERIM or (event.type is FINAL and event.alternatives[0].text):
            assert speaking, f"{event.type.value} outside of START and END"
    assert not speaking, "START without END"


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something is so."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to pass in time"
        await asyncio.sleep(0.005)
