"""What stands behind the gateway: speech gate, look-ahead, endpoints and the stream's clock."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .recognizer import (
    RECOGNIZER_RATE,
    Attentive,
    Hypothesis,
    Judging,
    Placing,
    Recognition,
    Samples,
)
from .resample import Resampler
from .wire import Alternative, FrameStyle, SpeechConfig, TimedWord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from .record import ConnectionRecord

T = TypeVar("T")

# Samples of a frame that the voice gate looks at (30 ms); a message shorter than one opens it.
GATE_SAMPLES = 480
# Samples the acoustic model looks ahead over: so much of the newest audio is never decoded (0.3 s).
LOOKAHEAD_SAMPLES = 4800
# Seconds of a segment without any speech, after which it is given up with an empty response.
SILENT_SEGMENT = 5.0
# Seconds after which a segment is cut wherever it is.
LONGEST_SEGMENT = 20.0
# Samples to one call of a recogniser that blocks, so that it never holds the process up for long.
BLOCKING_SAMPLES = 800


@dataclass(frozen=True)
class Timing:
    """The times of the service that tests change, in seconds.

    Attributes:
        endpoint_silence: Decoded silence after speech that ends a segment; a hypothesis that does
            not look complete takes more, see `Ending`.
        interim_interval: Wall clock from one result to the next interim, at least.
    """

    endpoint_silence: float = 0.5
    interim_interval: float = 0.35


class Backend:
    """Recognises the audio of one connection; what it returns are the frames to send, in order."""

    def __init__(
        self,
        config: SpeechConfig,
        recognition: Recognition,
        *,
        style: FrameStyle,
        timing: Timing,
        clock: Callable[[], float],
        executor: Executor | None = None,
        voice_gate: bool = True,
        connection: ConnectionRecord | None = None,
    ) -> None:
        self._config = config
        self._recognition = recognition
        self._attentive = recognition if isinstance(recognition, Attentive) else None
        self._judging = recognition if isinstance(recognition, Judging) else None
        self._placing = recognition if isinstance(recognition, Placing) else None
        if self._placing is not None and connection is not None:
            self._placing.watch(connection)
        self._style = style
        self._voice_gate = voice_gate
        self._timing = timing
        self._clock = clock
        self._executor = executor
        self._resampler = Resampler(config.sample_rate, RECOGNIZER_RATE)
        # Milliseconds of the stream so far; each message's length is cut to whole ones.
        self._now_ms = 0
        # Messages that wait for their place, each with the millisecond at which it starts.
        self._waiting: deque[tuple[Samples, int]] = deque()
        self._may_hear = True
        self._open = False
        self._start_ms = 0
        self._decoded = 0
        self._pending: Samples = np.zeros(0, np.int16)
        self._shown = ""
        self._sent_at = clock()
        self.done = False

    async def audio(self, pcm: bytes) -> list[str]:
        """Take one message of audio; an odd last byte is lost.

        Call `go_on` until nothing is left, and when the audio is over `hear_out`, then `end`.
        """
        raw = np.frombuffer(pcm, "<i2", count=len(pcm) // 2)
        samples = self._resampler.feed(raw)
        start_ms = self._now_ms
        self._now_ms += len(raw) * 1000 // self._config.sample_rate
        self._waiting.append((samples, start_ms))
        if self._placing is not None:
            self._may_hear = self._placing.place(samples, start_ms / 1000)
        if self._may_hear and len(self._waiting) > 1:
            # All of this comes at once, so that a final may be there before an interim is due.
            self._sent_at = self._clock()
        return await self.go_on() or []

    async def go_on(self) -> list[str] | None:
        """Hear the oldest message that waits; return None if none is to be heard now."""
        if not self._may_hear or not self._waiting or self.done:
            return None
        return await self._hear(*self._waiting.popleft())

    async def hear_out(self) -> list[str] | None:
        """Do as `go_on`, as no more audio comes."""
        if self._placing is not None:
            self._placing.give_up_placing()
        self._may_hear = True
        return await self.go_on()

    async def _hear(self, samples: Samples, start_ms: int) -> list[str]:
        wanted = self._attentive is not None and self._attentive.attend(samples, start_ms / 1000)
        if not self._open:
            if self._voice_gate and not wanted and not opens_gate(samples):
                return []
            self._open, self._start_ms = True, start_ms
        await self._decode(samples)
        if self._at_endpoint():
            frames = await self._close_segment()
            if self._config.single_utterance:
                self.done = True
                frames.append(self._style.end_of_utterance())
            return frames
        return await self._interim()

    async def end(self, *, hung_up: bool = False) -> list[str]:
        """Close the open segment; its last 300 ms are not decoded, as at the service."""
        self.done = True
        if self._attentive is not None:
            self._attentive.ended(hung_up=hung_up)
        return await self._close_segment() if self._decoded else []

    def delivered(self) -> None:
        """Take note that the frames returned so far have gone out."""
        if self._attentive is not None:
            self._attentive.delivered()

    async def close(self) -> None:
        """Free the recogniser."""
        await self._call(self._recognition.close)

    async def _decode(self, samples: Samples) -> None:
        self._pending = np.concatenate((self._pending, samples))
        ready = max(0, len(self._pending) - LOOKAHEAD_SAMPLES)
        step = BLOCKING_SAMPLES if self._recognition.blocking else max(1, ready)
        for at in range(0, ready, step):
            part = self._pending[at : min(at + step, ready)]
            start = self._start_ms / 1000 + self._decoded / RECOGNIZER_RATE
            self._decoded += len(part)
            await self._call(self._recognition.feed, part, start)
        self._pending = self._pending[ready:]

    def _at_endpoint(self) -> bool:
        length = self._decoded / RECOGNIZER_RATE
        silence = self._recognition.silence()
        if silence is None:
            return length >= SILENT_SEGMENT
        enough = self._timing.endpoint_silence
        if self._judging is not None:
            enough = max(enough, self._judging.ending().value)
        # Half a millisecond of room for sums of binary fractions.
        return silence >= enough - 0.0005 or length >= LONGEST_SEGMENT

    async def _close_segment(self) -> list[str]:
        count = max(1, self._config.max_alternatives)
        hypotheses = await self._call(self._recognition.final, count)
        self._open, self._decoded, self._shown = False, 0, ""
        self._pending = self._pending[:0]
        self._sent_at = self._clock()
        return [self._style.result(self._alternatives(hypotheses), final=True)]

    async def _interim(self) -> list[str]:
        now = self._clock()
        due = now - self._sent_at >= self._timing.interim_interval
        if not (self._config.interim_results and due):
            return []
        words = await self._call(self._recognition.partial)
        text = _text(words)
        if text in ("", self._shown):
            return []
        self._shown, self._sent_at = text, now
        return [self._style.result(self._alternatives([words]), final=False)]

    def _alternatives(self, hypotheses: Sequence[Hypothesis]) -> list[Alternative]:
        texts = [_text(words) for words in hypotheses]
        best = hypotheses[0] if hypotheses and self._config.word_offsets else ()
        timed = [
            TimedWord(w.text, round(w.start * 1000), round(w.end * 1000), w.speaker) for w in best
        ]
        return [Alternative(text, () if n else timed) for n, text in enumerate(texts)]

    async def _call(self, function: Callable[..., T], *args: object) -> T:
        """Call the recogniser, in a thread if it blocks; even cancelled, wait for the thread."""
        if not self._recognition.blocking:
            return function(*args)
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._executor, lambda: function(*args))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise


def opens_gate(samples: Samples) -> bool:
    """Tell whether a message opens the voice gate: what came before it was thrown away then.

    The service asks WebRTC's VAD, at its second most lenient, about whole frames of 30 ms, and does
    not look at what is left over. That takes anything but digital silence for a voice at first.
    """
    whole = len(samples) // GATE_SAMPLES * GATE_SAMPLES
    return not whole or bool(samples[:whole].any())


def _text(words: Hypothesis) -> str:
    return " ".join(word.text for word in words)
