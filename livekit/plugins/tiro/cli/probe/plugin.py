"""How the plugin works with the service: a flush, and a new connection in mid-sentence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from livekit import rtc
from livekit.agents import APIConnectOptions, utils
from livekit.agents.stt import SpeechEvent, SpeechEventType

from ...endpointer import FLUSH_SILENCE
from ...stream import SpeechStream
from ...stt import STT
from ..call import Samples, faint_noise
from .lab import HANDSHAKE, LEAD_IN, HeardWord, Lab, Probe, compare
from .report import Row, judged, not_seen
from .sample import RATE, Sample, plain

_FINAL = SpeechEventType.FINAL_TRANSCRIPT
# s from a flush to its final.
_FLUSHED = 1.0
# s of quiet after the last flush, to wait for its final. Together with the longest sample, it is
# less than a stream takes to give a service up and to send everything again.
_PATIENCE = 3.0
# s of audio that a flush sends at most: its silence goes out in pieces of 0.25 s.
_FLUSH = FLUSH_SILENCE + 0.25
# s of a frame.
_FRAME = 0.05


class Heard(NamedTuple):
    """An event, and when it came in monotonic seconds."""

    at: float
    event: SpeechEvent


class Hearing:
    """A stream of the plugin, fed at the pace of speech."""

    def __init__(self, lab: Lab, stream: SpeechStream) -> None:
        self.stream = stream
        self.pushed = 0.0
        """Seconds of audio pushed so far."""
        self.heard: list[Heard] = []
        self._lab = lab
        self._listening = asyncio.create_task(self._listen(), name="tiro.cli.listen")

    async def close(self) -> None:
        """Stop listening."""
        await utils.aio.cancel_and_wait(self._listening)

    def flush(self) -> float:
        """Flush. Return when that was, in monotonic seconds."""
        self._lab.spend(_FLUSH)
        self.stream.flush()
        return time.monotonic()

    async def settle(self) -> None:
        """Flush, and push quiet audio until a final comes, or it is clear that none will."""
        flushed = self.flush()

        def is_settled() -> bool:
            return any(each.at >= flushed for each in self.heard if each.event.type is _FINAL)

        await self.push(faint_noise(_PATIENCE, RATE), until=is_settled)

    async def _listen(self) -> None:
        """Collect the events until the stream ends."""
        async for event in self.stream:
            self.heard.append(Heard(time.monotonic(), event))

    async def push(self, samples: Samples, *, until: Callable[[], bool] = lambda: False) -> None:
        """Push audio at the pace of a microphone; stop early once `until` returns true.

        Raises:
            APIError: The stream failed.
        """
        size = round(_FRAME * RATE)
        due = time.monotonic()
        for start in range(0, len(samples), size):
            if self._listening.done():
                self._listening.result()
            if until():
                return
            part = samples[start : start + size]
            seconds = len(part) / RATE
            self._lab.spend(seconds)
            self.stream.push_frame(rtc.AudioFrame(part.tobytes(), RATE, 1, len(part)))
            self.pushed += seconds
            due += seconds
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    @property
    def finals(self) -> list[Heard]:
        """The finals that have words."""
        return [
            each
            for each in self.heard
            if each.event.type is _FINAL and each.event.alternatives[0].text
        ]


@asynccontextmanager
async def _listening(lab: Lab) -> AsyncIterator[Hearing]:
    """Open a stream with the lab's options."""
    lab.connections += 1
    async with STT(
        api_key=lab.options.api_key,
        base_url=lab.options.base_url,
        language=lab.options.language,
        http_session=lab.http,
    ) as stt:
        options = APIConnectOptions(max_retry=0, timeout=HANDSHAKE)
        async with stt.stream(conn_options=options) as stream:
            hearing = Hearing(lab, stream)
            try:
                yield hearing
            finally:
                await hearing.close()


def _words(finals: list[Heard]) -> list[HeardWord]:
    heard: list[HeardWord] = []
    for final in finals:
        data = final.event.alternatives[0]
        if data.words:
            heard += [HeardWord(plain(word), _seconds(word.start_time)) for word in data.words]
        else:
            heard += [HeardWord(plain(word), None) for word in data.text.split()]
    return [word for word in heard if word.text]


def _seconds(value: object) -> float | None:
    return value if isinstance(value, float) else None


async def flush(lab: Lab) -> AsyncIterator[Row]:
    """Flush after a sentence, and go on speaking after a breath."""
    whole = lab.needed()
    async with _listening(lab) as hearing:
        await hearing.push(faint_noise(LEAD_IN, RATE))
        await hearing.push(lab.sample.whole.samples)
        flushed = hearing.flush()
        # The caller takes a breath. Without it, the voice gate would be shut for the next sound.
        await hearing.push(faint_noise(LEAD_IN, RATE))
        said_at = hearing.pushed
        await hearing.push(lab.sample.broken.samples)
        await hearing.settle()
    after = [each for each in hearing.finals if each.at >= flushed]
    yield _flush_row(after, flushed)
    question = "speech after a flush"
    if not lab.broken:
        yield not_seen(question, "the first call heard nothing to compare with")
        return
    heard = _words(hearing.finals)
    found = compare(heard[len(whole) :], lab.broken, later=said_at - lab.broken_at)
    otherwise = "what is said after a flush is not heard as well: pause before you go on"
    yield judged(question, found.is_same, str(found), otherwise, **found._asdict())


def _flush_row(after: list[Heard], flushed: float) -> Row:
    if not after:
        return not_seen("flush", "no final came", "flush() does not work with this service")
    seconds = after[0].at - flushed
    means = "turns that a VAD or a button ends wait this long for their final"
    saw = f"final after {seconds:.2f} s"
    return judged("flush", seconds < _FLUSHED, saw, means, seconds=seconds)


async def reconnect(lab: Lab) -> AsyncIterator[Row]:
    """Change an option in mid-sentence, which opens a new connection."""
    whole = lab.needed()
    samples = lab.sample.whole.samples
    half = len(samples) // 2
    async with _listening(lab) as hearing:
        await hearing.push(faint_noise(LEAD_IN, RATE))
        await hearing.push(samples[:half])
        lab.connections += 1
        lab.spend(hearing.pushed)
        hearing.stream.update_options(punctuate=False)
        await hearing.push(samples[half:])
        await hearing.settle()
    found = compare(_words(hearing.finals), whole)
    yield judged(
        "reconnect in mid-sentence",
        found.is_same,
        str(found),
        "a reconnect can cost words with this service: please report it",
        **found._asdict(),
    )


def _flush_audio(sample: Sample) -> float:
    said = sample.whole.seconds + sample.broken.seconds
    return 2 * LEAD_IN + said + 2 * _FLUSH + _PATIENCE


def _reconnect_audio(sample: Sample) -> float:
    return 2 * LEAD_IN + 2 * sample.whole.seconds + _FLUSH + _PATIENCE


PROBES = (
    Probe(("flush", "speech after a flush"), flush, _flush_audio),
    Probe(("reconnect in mid-sentence",), reconnect, _reconnect_audio),
)
