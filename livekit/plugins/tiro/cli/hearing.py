"""Takes the audio of one file through the service, never far ahead of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

from livekit import rtc
from livekit.agents import APIConnectOptions, stt

from .audio import AudioFile
from .blocks import Block
from .finals import Places, segments_of
from .formats import Segment, Transcript, printable
from .reader import Reader
from .signals import ANSWERS, Interruption

# A person waits for the answer, so an unreachable service is given up sooner than in an agent.
_CONNECT = APIConnectOptions(max_retry=2, retry_interval=1.0, timeout=8.0)
# Seconds of audio in one push: as fast as possible, and at the pace of speech.
_CHUNK = 0.1
_LIVE_CHUNK = 0.05
# Seconds of audio pushed but not yet sent, at most: it bounds the memory that a long file takes. It
# is more than 30: up to that, the stream takes audio for live, and would keep only its last minute.
_MAX_AHEAD = 45.0
# Seconds between looks at how far the service is.
_LOOK = 0.05
# Seconds by which a live input may be late. From 1 s on, the stream would take it for a pause, and
# move the times of all that follows. So the stream is ended before that, which brings the words so
# far, and a new stream takes what comes next.
_STALLED = 0.8


class Listener(Protocol):
    """Whoever wants to know what is heard."""

    def interim(self, text: str) -> None:
        """Take the words since the last final, as far as they are known."""

    def final(self, segment: Segment) -> None:
        """Take the next words that will not change any more."""

    def heard(self, seconds: float) -> None:
        """Take the second of the file up to which the audio is done."""


class Hearing:
    """One file's way through the service.

    Args:
        reader: The file.
        transcript: Gets what was heard, also if the run fails half way.
        listener: Told of everything as it happens.
        interruption: Ends it early.
        realtime: Push the audio at the pace of speech.
    """

    def __init__(
        self,
        reader: Reader,
        transcript: Transcript,
        listener: Listener,
        interruption: Interruption,
        *,
        realtime: bool,
    ) -> None:
        self._reader = reader
        self._transcript = transcript
        self._listener = listener
        self._interruption = interruption
        self._chunk = _LIVE_CHUNK if realtime else _CHUNK
        self._realtime = realtime
        # These belong to the present stream.
        self._push: asyncio.Task[Block | None] | None = None
        self._places = Places()
        self._interim: list[stt.SpeechData] = []
        self._pushed = self._sent = 0.0
        self._began = self._last_push = 0.0

    async def run(self, engine: stt.STT[Any]) -> bool:
        """Hear the whole file. Return False if a signal ended it early.

        Raises:
            APIError: The service failed.
            FileError: The file cannot be read to its end.
        """
        hearing = asyncio.create_task(self._hear(engine), name="tiro.cli.hear")
        signal = asyncio.create_task(self._interruption.came.wait(), name="tiro.cli.signal")
        try:
            await asyncio.wait({hearing, signal}, return_when=asyncio.FIRST_COMPLETED)
            if signal.done():
                await self._end_early(hearing)
                return False
            await hearing
            return True
        finally:
            signal.cancel()
            if not signal.done():
                hearing.cancel()
            await asyncio.gather(signal, return_exceptions=True)

    async def _end_early(self, hearing: asyncio.Task[None]) -> None:
        """Take the finals that come at once, and for the rest the latest hypothesis."""
        if self._push is not None:
            self._push.cancel()
            await asyncio.wait({hearing}, timeout=ANSWERS)
        # The task is not waited for: it closes the connection, but what was heard is written first.
        hearing.cancel()
        hearing.add_done_callback(_retrieve)
        if self._interim:
            self._add(self._interim)

    async def _hear(self, engine: stt.STT[Any]) -> None:
        audio = await self._reader.audio()
        self._transcript.duration = audio.start
        await self._reader.get_ahead()
        block = await self._reader.next()
        while block is not None:
            rest = await self._hear_stretch(engine, audio, block)
            block = rest or await self._reader.next()
        self._transcript.complete = audio.shortfall is None

    async def _hear_stretch(
        self, engine: stt.STT[Any], audio: AudioFile, first: Block
    ) -> Block | None:
        """Hear audio until it is late. Return what has already come of the next stretch, if any."""
        stream = engine.stream(conn_options=_CONNECT)
        self._places = Places()
        self._pushed = self._sent = 0.0
        self._began = self._last_push = time.monotonic()
        push = self._push = asyncio.create_task(
            self._push_all(stream, audio.sample_rate, first), name="tiro.cli.push"
        )
        try:
            async for event in stream:
                self._take(event)
            return await push
        finally:
            push.cancel()
            await asyncio.gather(push, return_exceptions=True)
            await stream.aclose()

    # -- audio to the stream ---------------------------------------------------------------------

    async def _push_all(
        self, stream: stt.RecognizeStream, rate: int, block: Block | None
    ) -> Block | None:
        size = round(self._chunk * rate) * 2
        try:
            while block is not None:
                for start in range(0, len(block.pcm), size):
                    await self._wait_for_room()
                    at = block.time + start / 2 / rate
                    if self._is_late():
                        return Block(block.pcm[start:], at)
                    self._push_chunk(stream, rate, block.pcm[start : start + size], at)
                block = await self._next()
            return None
        finally:
            # This also holds when the file breaks off: what was pushed is to be heard.
            stream.end_input()

    def _push_chunk(self, stream: stt.RecognizeStream, rate: int, pcm: bytes, at: float) -> None:
        samples = len(pcm) // 2
        stream.push_frame(rtc.AudioFrame(pcm, rate, 1, samples))
        if self._transcript.recording is not None:
            self._transcript.recording.write(pcm, at)
        self._places.note(self._pushed, at)
        self._pushed += samples / rate
        self._last_push = time.monotonic()
        self._transcript.duration = max(self._transcript.duration, at + samples / rate)

    async def _next(self) -> Block | None:
        """Return the next block; None at the end, or if it does not come in time."""
        early = self._pushed - (time.monotonic() - self._began)
        try:
            return await self._reader.next(_STALLED + max(0.0, early))
        except asyncio.TimeoutError:
            return None

    def _is_late(self) -> bool:
        """Tell whether the stream would take the time since the last push for a pause.

        A file is never late: when it seems to be, this program did not run on a busy machine, and
        what it pushes next makes up for that.
        """
        now = time.monotonic()
        late = min(now - self._last_push, now - self._began - self._pushed)
        return late > _STALLED and not self._reader.is_file

    async def _wait_for_room(self) -> None:
        """Wait until more audio is wanted.

        Audio is never held below real time: the stream would take it for that of a microphone
        that was muted, and move the times of all that follows.
        """
        await asyncio.sleep(0)
        # Room comes with time, not only with what is sent, so there is no event to wait for.
        while (early := self._ahead()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(_LOOK, early))

    def _ahead(self) -> float:
        """Return how many seconds too early it is to push more."""
        elapsed = time.monotonic() - self._began
        if self._realtime:
            return self._pushed - elapsed
        return self._pushed - max(elapsed, self._sent) - _MAX_AHEAD

    # -- words from the stream -------------------------------------------------------------------

    def _take(self, event: stt.SpeechEvent) -> None:
        if event.type is stt.SpeechEventType.RECOGNITION_USAGE and event.recognition_usage:
            self._sent += event.recognition_usage.audio_duration
            self._listener.heard(self._places.end(self._sent))
        elif event.type is stt.SpeechEventType.INTERIM_TRANSCRIPT:
            self._interim = event.alternatives
            self._listener.interim(printable(event.alternatives[0].text))
        elif event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
            self._interim = []
            self._add(event.alternatives)

    def _add(self, alternatives: list[stt.SpeechData]) -> None:
        # A final without words answers a flush in silence.
        for segment in segments_of(alternatives, self._places):
            self._transcript.segments.append(segment)
            self._listener.final(segment)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take the outcome of a task that nobody waits for."""
    if not task.cancelled():
        task.exception()
