"""One stream against one server with faults: what was said, what was heard, and what went wrong.

The promise that every trial is held to is in `Outcome.broken`.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit.agents import APIConnectOptions, APIError
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import ConnectionRecord, Hooks, TiroServer
from livekit.plugins.tiro.testing.faults import Combined, Fault

from .harness import FINAL, assert_alternating, frames, until, usage, words
from .numbered import SECONDS, NumberedRecognizer, Talk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from livekit import rtc
    from livekit.agents.stt import SpeechEvent, SpeechStream, STTError

    from .proxy import Proxy

KEY = "test"
# s; what the README promises of the times of words.
TIME_ERROR = 0.06
# s of live audio behind the talk, after which a stream that did not finish it is deaf.
PATIENCE = 90.0
# s; no retry budget of these trials is longer.
LONGEST = 240.0


class Watch(Hooks):
    """Notes when audio flows on each connection."""

    def __init__(self) -> None:
        self.flowing: dict[int, float] = {}

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        self.flowing.setdefault(connection.number, asyncio.get_running_loop().time())


@dataclass
class Outcome:
    """What became of a stream."""

    said: Talk
    events: list[SpeechEvent] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    """When each event came, seconds of the loop's clock."""
    error: BaseException | None = None
    reported: list[STTError] = field(default_factory=list)
    """The error events of the STT."""
    sessions: list[ConnectionRecord] = field(default_factory=list)
    flowing: dict[int, float] = field(default_factory=dict)
    muted: list[tuple[float, float]] = field(default_factory=list)
    """From when until when the microphone was muted, seconds of the loop's clock."""
    pushed: float = 0.0
    """Seconds of audio."""
    seconds: float = 0.0
    """How long it all took."""
    pauses: dict[float, float] = field(default_factory=dict)
    """After how many seconds of audio the microphone was muted, and for how many seconds."""
    deaf: bool = False
    """Whether words were missing long after they were said."""

    @property
    def heard(self) -> list[str]:
        return words(self.events)

    @property
    def is_exact(self) -> bool:
        """Whether each word is final once, in order."""
        return self.error is None and self.heard == self.said.texts

    @property
    def lost(self) -> int:
        return len(set(self.said.texts) - set(self.heard))

    @property
    def doubled(self) -> int:
        return len(self.heard) - len(set(self.heard))

    @property
    def time_error(self) -> float:
        """The worst of the times of the words that are final, seconds."""
        spoken = {word.text: word for word in self.said.words}
        worst = 0.0
        for event in self.events:
            for word in (event.type is FINAL and event.alternatives[0].words) or ():
                true = spoken.get(str(word))
                start, end = word.start_time, word.end_time
                if true is None or not isinstance(start, float) or not isinstance(end, float):
                    return math.inf
                muted = sum(length for at, length in self.pauses.items() if at <= true.start)
                worst = max(worst, abs(start - muted - true.start), abs(end - muted - true.end))
        return worst

    def silence_behind(self, fault: Fault) -> float:
        """The longest time from a strike until audio flowed on another connection, seconds.

        A strike while the microphone was muted does not count.
        """
        gaps = [0.0]
        for number, struck in fault.struck.items():
            later = [at for n, at in self.flowing.items() if n > number]
            if later and not any(
                start <= min(later) and struck <= end for start, end in self.muted
            ):
                gaps.append(min(later) - struck)
        return max(gaps)

    def broken(self) -> str:
        """Say which promise was not kept, or nothing."""
        if self.error is not None and not isinstance(self.error, APIError):
            return f"not an APIError: {self.error!r}"
        if self.deaf:
            return f"deaf: heard {self.heard}"
        if self.error is None and self.heard != self.said.texts:
            return f"heard {self.heard}"
        # What an error leaves is a start of the talk; its last word may be a hypothesis.
        whole = self.heard if self.error is None else self.heard[:-1]
        if whole != self.said.texts[: len(whole)]:
            return f"heard {self.heard} before {self.error!r}"
        if self.error is None and self.time_error > TIME_ERROR:
            return f"times are wrong by {self.time_error:.3f} s"
        if usage(self.events) > self.pushed + 0.001:
            return f"usage {usage(self.events):.2f} s of {self.pushed:.2f} s"
        try:
            assert_alternating(self.events)
        except AssertionError as fault:
            return str(fault)
        return ""

    def __str__(self) -> str:
        return (
            f"{len(self.sessions)} sessions, {self.seconds:.1f} s, {len(self.reported)} errors, "
            f"{self.error!r}, heard {' '.join(self.heard)}"
        )


class Speaker:
    """Pushes a talk into a stream: live, with silence behind it until all is heard, or at once."""

    def __init__(
        self,
        stream: SpeechStream,
        outcome: Outcome,
        *,
        live: bool,
        flush_at: float | None,
        patience: float,
    ) -> None:
        self._stream = stream
        self._outcome = outcome
        self._live = live
        self._flush_at = flush_at
        self._patience = patience
        self._pauses = sorted(outcome.pauses.items())

    async def speak(self) -> None:
        for frame in self._frames():
            if self._outcome.error is not None:
                return
            self._stream.push_frame(frame)
            self._outcome.pushed += frame.duration
            if self._flush_at is not None and self._outcome.pushed >= self._flush_at:
                self._stream.flush()
                self._flush_at = None
            if self._live:
                await asyncio.sleep(frame.duration)
            if self._pauses and self._outcome.pushed >= self._pauses[0][0]:
                await self._be_muted(self._pauses.pop(0)[1])
            if self._outcome.pushed >= self._outcome.said.seconds and self._is_finished():
                break
        self._stream.end_input()

    async def _be_muted(self, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        await asyncio.sleep(seconds)
        self._outcome.muted.append((started, clock()))

    def _frames(self) -> Iterator[rtc.AudioFrame]:
        said = self._outcome.said
        tail = round(self._patience / SECONDS) if self._live else 0
        return frames(Talk(said.words, said.blocks + tail).pcm())

    def _is_finished(self) -> bool:
        outcome = self._outcome
        finished = outcome.heard == outcome.said.texts
        if outcome.pushed >= outcome.said.seconds + self._patience - 0.1:
            outcome.deaf = not finished
        return finished


async def hear(
    said: Talk,
    hooks: Hooks | None = None,
    *,
    live: bool = False,
    flush_at: float | None = None,
    max_retry: int = 3,
    pauses: dict[float, float] | None = None,
    patience: float = PATIENCE,
    proxy: Proxy | None = None,
) -> Outcome:
    """Speak to a server of one's own until all is over; leaves nothing open.

    Args:
        said: What is said.
        hooks: What goes wrong, if anything does.
        live: Whether the audio comes at its own pace, and goes on until all is heard.
        flush_at: Seconds of audio after which the caller flushes.
        max_retry: The retries of the framework.
        pauses: After how many seconds of audio the microphone is muted, and for how many seconds.
        patience: Seconds of live silence behind the talk, after which the stream is deaf.
        proxy: What stands between, if anything does.
    """
    watch = Watch()
    outcome = Outcome(said, flowing=watch.flowing, pauses=pauses or {})
    conn = APIConnectOptions(max_retry=max_retry)
    server = TiroServer(
        api_key=KEY,
        recognizers={"is": NumberedRecognizer(said)},
        hooks=Combined(watch, hooks or Hooks()),
        # A file is pushed in no time at all.
        interim_interval=0.35 if live else 0.0,
    )
    clock = asyncio.get_running_loop().time
    started = clock()
    async with server, proxy or nullcontext():
        url = server.base_url if proxy is None else proxy.before(server.base_url)
        async with tiro.STT(base_url=url, api_key=KEY) as stt:
            stt.on("error", outcome.reported.append)
            stream = stt.stream(conn_options=conn)
            speaker = Speaker(stream, outcome, live=live, flush_at=flush_at, patience=patience)
            speaking = asyncio.create_task(speaker.speak(), name="speaker")
            try:
                await asyncio.wait_for(_listen(stream, outcome), LONGEST + patience)
            except asyncio.TimeoutError:
                outcome.deaf = True
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
                await stream.aclose()
            outcome.seconds = clock() - started
    outcome.sessions = server.sessions
    return outcome


async def _listen(stream: SpeechStream, outcome: Outcome) -> None:
    clock = asyncio.get_running_loop().time
    try:
        async for event in stream:
            outcome.events.append(event)
            outcome.arrived.append(clock())
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        outcome.error = error


async def close_amid(said: Talk, fault: Fault) -> float:
    """Close a live stream as soon as a fault strikes it. Return how long that took."""
    server = TiroServer(
        api_key=KEY,
        recognizers={"is": NumberedRecognizer(said)},
        hooks=fault,
        interim_interval=0.0,
    )
    clock = asyncio.get_running_loop().time
    async with server, tiro.STT(base_url=server.base_url, api_key=KEY) as stt:
        stream = stt.stream()
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
            await asyncio.sleep(frame.duration)
            if fault.struck:
                break
        else:
            stream.end_input()
            await until(lambda: bool(fault.struck), PATIENCE)
        started = clock()
        await stream.aclose()
        return clock() - started
