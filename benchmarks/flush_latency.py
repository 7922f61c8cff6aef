"""How long a caller waits: from the last sound of an utterance to its final, by who asks for it.

`python -m benchmarks.flush_latency` measures on the local server, in real time, with 24 kHz audio
in 50 ms frames, as a room delivers it, under each rule of the service's endpointer: 0.5 s of
silence after a whole sentence, 1.0 s if it may go on, 2.0 s if it breaks off. Either nobody asks
(the endpointer decides), or the framework's VAD when it hears the end of speech, or an
`AgentSession` with its default turn detector (the model that comes with livekit-agents), or
whoever lets go of a push-to-talk button with the last sound, or the plugin's `endpointing`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from livekit import rtc
from livekit.agents import Agent, AgentSession, inference, vad
from livekit.agents.stt import SpeechEventType
from livekit.agents.voice import io
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import TiroServer

from .world import utterance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit.agents import UserInputTranscribedEvent

_RATE = 24000
_FRAME = _RATE // 20
# s of silence after the utterance, longer than the slowest endpointer here.
_SILENCE = 4.0
# Of 32767; what is louder is sound.
_SOUND = 1000
# Calls at the same time, and s between their starts, so that no two want an answer at the same
# moment. In each call, the frames begin at another place in the audio.
_TOGETHER = 5
_APART = 0.21
_NOBODY, _VAD, _DETECTOR, _BUTTON = "nobody", "VAD", "default turn detector", "button"
_ENDPOINTING = {"endpointing=0.2": 0.2, "endpointing=0.3": 0.3}
_WAYS = (_NOBODY, _VAD, _DETECTOR, _BUTTON, *_ENDPOINTING)
# The word that is said over and over, by the seconds that the endpointer waits after its mark.
_SCRIPTS = {0.5: "já", 1.0: "já,", 2.0: "já…"}

Found = dict[tuple[float, str], list[float]]
"""Seconds of each call, by the endpointer's silence and who asked for the final."""


class _Room(io.AudioInput):
    """A room that delivers an utterance, frame by frame, each when its last sample is said."""

    def __init__(self, lead: int) -> None:
        """Put `lead` samples of silence before the utterance."""
        super().__init__(label="room")
        after = np.zeros(round(_SILENCE * _RATE), np.int16)
        audio = np.concatenate((np.zeros(lead, np.int16), utterance(_RATE), after))
        self._frames = iter(
            [audio[at : at + _FRAME].tobytes() for at in range(0, len(audio), _FRAME)]
        )
        self._due = 0.0
        last = int(np.flatnonzero(np.abs(audio.astype(np.int32)) > _SOUND)[-1])
        self._until_last_sound = last / _RATE
        self.said_at = math.inf
        """When the last sound is out; `perf_counter` seconds."""
        self.is_last_sound = False
        """Whether it is in the frame that came last."""

    async def __anext__(self) -> rtc.AudioFrame:
        if not self._due:
            self._due = time.perf_counter()
            self.said_at = self._due + self._until_last_sound
        pcm = next(self._frames, None)
        if pcm is None:
            raise StopAsyncIteration
        self._due += _FRAME / _RATE
        await asyncio.sleep(self._due - time.perf_counter())
        self.is_last_sound = self._due - _FRAME / _RATE <= self.said_at < self._due
        return rtc.AudioFrame(pcm, _RATE, 1, len(pcm) // 2)


async def _call(stt: tiro.STT, way: str, number: int) -> float:
    """Return the seconds from the last sound to the final, in one of the simultaneous calls."""
    await asyncio.sleep(number * _APART)
    room = _Room(number * _FRAME // _TOGETHER)
    if way == _DETECTOR:
        return await _session(stt, room) - room.said_at
    async with stt.stream() as stream:
        detector = inference.VAD().stream()
        listening = asyncio.create_task(_flush_at_the_end(detector, stream))
        final = asyncio.create_task(_final(stream, room))
        async for frame in room:
            stream.push_frame(frame)
            if way == _VAD:
                detector.push_frame(frame)
            elif way == _BUTTON and room.is_last_sound:
                stream.flush()
            if final.done():
                break
        came = await final
        listening.cancel()
        await detector.aclose()
    return came - room.said_at


async def _session(stt: tiro.STT, room: _Room) -> float:
    """Return when the final came in a session that is given nothing but an STT."""
    session: AgentSession[None] = AgentSession(stt=stt)
    session.input.audio = room
    came: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_transcript(event: UserInputTranscribedEvent) -> None:
        now = time.perf_counter()
        if event.is_final and event.transcript and now >= room.said_at and not came.done():
            came.set_result(now)

    session.on("user_input_transcribed", on_transcript)
    await session.start(Agent(instructions=""))
    try:
        return await asyncio.wait_for(came, 10)
    finally:
        await session.aclose()


async def _flush_at_the_end(detector: vad.VADStream, stream: tiro.SpeechStream) -> None:
    async for event in detector:
        if event.type is vad.VADEventType.END_OF_SPEECH:
            stream.flush()


async def _final(stream: tiro.SpeechStream, room: _Room) -> float:
    """Return when the first final comes after the last sound."""
    async for event in stream:
        if event.type is SpeechEventType.FINAL_TRANSCRIPT and event.alternatives[0].text:
            now = time.perf_counter()
            if now >= room.said_at:
                return now
    raise RuntimeError("the stream ended without a final")


async def measure(calls: int, rules: Sequence[float], ways: Sequence[str]) -> Found:
    """Return the seconds of each call, by the endpointer's rule and who asked for the final."""
    found: Found = {}
    for rule in rules:
        for way in ways:
            async with (
                TiroServer(script=_SCRIPTS[rule]) as server,
                tiro.STT(
                    base_url=server.base_url, api_key="test", endpointing=_ENDPOINTING.get(way)
                ) as stt,
            ):
                seconds = found.setdefault((rule, way), [])
                while len(seconds) < calls:
                    together = (_call(stt, way, number) for number in range(_TOGETHER))
                    seconds += await asyncio.gather(*together)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flush_latency")
    parser.add_argument("--calls", type=int, default=40, help="how many of each kind")
    rules, ways = list(_SCRIPTS), list(_WAYS)
    parser.add_argument("--rule", type=float, nargs="+", choices=rules, default=rules)
    parser.add_argument("--way", nargs="+", choices=ways, default=ways)
    arguments = parser.parse_args()
    # The framework logs much about sessions without a voice.
    logging.disable(logging.WARNING)
    found = asyncio.run(measure(arguments.calls, arguments.rule, arguments.way))
    table = Table("who asks for the final", *(f"{rule:g} s" for rule in arguments.rule))
    table.title = f"last sound to final, p50 / p95 of {arguments.calls} calls, ms"
    for way in arguments.way:
        cells = []
        for rule in arguments.rule:
            p50, p95 = np.percentile(found[rule, way], [50, 95]) * 1000
            cells.append(f"{p50:.0f} / {p95:.0f}")
        table.add_row(way, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
