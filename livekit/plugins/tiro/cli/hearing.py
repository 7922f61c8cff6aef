"""Takes the audio of one file through one recognition stream, never far ahead of the service."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

from livekit import rtc
from livekit.agents import APIConnectOptions, stt
from livekit.agents.types import NotGivenOr
from livekit.agents.utils import is_given

from .audio import AudioFile
from .formats import Segment, Transcript, Word, printable

# A person waits for the answer, so an unreachable service is given up sooner than in an agent.
_CONNECT = APIConnectOptions(max_retry=2, retry_interval=1.0, timeout=8.0)
# Seconds of audio in one push, as fast as it goes and at the pace of speech.
_CHUNK = 0.1
_LIVE_CHUNK = 0.05
# Seconds of audio pushed but not yet sent; it bounds the memory that a long file takes. More than
# 30, up to which the stream takes audio for live and would keep only the last minute of it.
_MAX_AHEAD = 45.0
# Seconds between looks at how far the service is.
_LOOK = 0.05


class Listener(Protocol):
    """Whoever wants to know what is heard."""

    def interim(self, text: str) -> None:
        """Take what the words since the last final are so far."""

    def final(self, segment: Segment) -> None:
        """Take the next words that will not change any more."""

    def heard(self, seconds: float) -> None:
        """Take how many seconds of the audio are done."""


class Hearing:
    """One file's way through the service.

    Args:
        audio: The file's audio.
        transcript: Gets what was heard, also if the run fails half way.
        listener: Told of everything as it happens.
        realtime: Push the audio at the pace of speech.
    """

    def __init__(
        self, audio: AudioFile, transcript: Transcript, listener: Listener, *, realtime: bool
    ) -> None:
        self._audio = audio
        self._transcript = transcript
        self._listener = listener
        self._realtime = realtime
        self._began = time.monotonic()
        # Seconds of the audio.
        self._pushed = 0.0
        self._sent = 0.0

    async def run(self, engine: stt.STT[Any]) -> None:
        """Hear the whole file.

        Raises:
            APIError: If the service fails.
            FileError: If the file cannot be read to its end.
        """
        stream = engine.stream(conn_options=_CONNECT)
        pushing = asyncio.create_task(self._push_all(stream), name="tiro.cli.push")
        try:
            async for event in stream:
                self._take(event)
            await pushing
            self._transcript.complete = True
        finally:
            self._transcript.duration = self._audio.start + self._pushed
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            await stream.aclose()

    async def _push_all(self, stream: stt.RecognizeStream) -> None:
        rate = self._audio.sample_rate
        try:
            for pcm in self._audio.chunks(_LIVE_CHUNK if self._realtime else _CHUNK):
                await self._wait_for_room()
                stream.push_frame(rtc.AudioFrame(pcm, rate, 1, len(pcm) // 2))
                if self._transcript.recording is not None:
                    self._transcript.recording.write(pcm, self._audio.start + self._pushed)
                self._pushed += len(pcm) / 2 / rate
        finally:
            # Also when the file breaks off: what was pushed is to be heard.
            stream.end_input()

    async def _wait_for_room(self) -> None:
        """Wait until more audio is wanted.

        Real time always goes on: the stream takes audio that comes slower than that for a
        microphone that was muted, and would move the times of all that follows.
        """
        await asyncio.sleep(0)
        while (early := self._ahead()) > 0:
            await asyncio.sleep(min(_LOOK, early))

    def _ahead(self) -> float:
        """Return how many seconds too early it is to push more."""
        elapsed = time.monotonic() - self._began
        if self._realtime:
            return self._pushed - elapsed
        return self._pushed - max(elapsed, self._sent) - _MAX_AHEAD

    def _take(self, event: stt.SpeechEvent) -> None:
        if event.type is stt.SpeechEventType.RECOGNITION_USAGE and event.recognition_usage:
            self._sent += event.recognition_usage.audio_duration
            self._listener.heard(self._sent)
        elif event.type is stt.SpeechEventType.INTERIM_TRANSCRIPT:
            self._listener.interim(printable(event.alternatives[0].text))
        elif event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
            segment = _segment(event.alternatives[0], self._audio.start)
            # A final without words answers a flush in silence.
            if segment.text:
                self._transcript.segments.append(segment)
                self._listener.final(segment)


def _segment(data: stt.SpeechData, offset: float) -> Segment:
    words = (
        Word(printable(word), _shifted(word.start_time, offset), _shifted(word.end_time, offset))
        for word in data.words or ()
    )
    return Segment(
        text=printable(data.text),
        start=data.start_time + offset,
        end=data.end_time + offset,
        confidence=data.confidence or None,
        words=tuple(word for word in words if word.text),
    )


def _shifted(seconds: NotGivenOr[float], offset: float) -> float | None:
    return seconds + offset if is_given(seconds) else None
