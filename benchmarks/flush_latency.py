"""How long a caller waits: from the last sound of an utterance to its final, flushed or not.

`python -m benchmarks.flush_latency` measures on the local server, in real time, with 24 kHz audio
in 50 ms frames, as a room delivers it. Three ways to the final: none asks for it (the service's
endpointer decides), the framework's VAD hears the end of speech and asks, somebody lets go of a
push-to-talk button with the last sound.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from livekit import rtc
from livekit.agents import inference, vad
from livekit.agents.stt import SpeechEventType
from livekit.plugins import tiro
from livekit.plugins.tiro.testing import TiroServer

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPEECH = Path(__file__).parent.parent / "tests" / "data" / "is.wav"
# s of the file that are one utterance.
_START, _END = 0.6, 2.8
_RATE = 24000
_FRAME = _RATE // 20
# s of silence behind the utterance, longer than the slowest endpointer here.
_SILENCE = 3.0
# Of 32767; what is louder is sound.
_SOUND = 1000
# Calls at the same time; they start one after the other within the length of a frame.
_TOGETHER = 5
_WAYS = ("endpointer", "VAD", "button")

Found = dict[tuple[float, str], list[float]]
"""Seconds of each call, by the endpointer's silence and who asked for the final."""


def _utterance() -> npt.NDArray[np.int16]:
    """Return speech and silence at 24 kHz."""
    with wave.open(str(_SPEECH)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        rate = file.getframerate()
    pcm = pcm[round(_START * rate) : round(_END * rate)]
    at = np.arange(round(len(pcm) * _RATE / rate)) * rate / _RATE
    speech = np.interp(at, np.arange(len(pcm)), pcm).astype(np.int16)
    return np.concatenate((speech, np.zeros(round(_SILENCE * _RATE), np.int16)))


async def _call(stt: tiro.STT, way: str, delay: float) -> float:
    """Return the seconds from the last sound to the final of one call."""
    await asyncio.sleep(delay)
    audio = _utterance()
    last_sound = int(np.flatnonzero(np.abs(audio.astype(np.int32)) > _SOUND)[-1])
    async with stt.stream() as stream:
        detector = inference.VAD().stream()
        listening = asyncio.create_task(_flush_at_the_end(detector, stream))
        final = asyncio.create_task(_first_final(stream))
        started = time.perf_counter()
        for position in range(0, len(audio), _FRAME):
            pcm = audio[position : position + _FRAME].tobytes()
            frame = rtc.AudioFrame(pcm, _RATE, 1, len(pcm) // 2)
            await asyncio.sleep(started + (position + _FRAME) / _RATE - time.perf_counter())
            stream.push_frame(frame)
            if way == "VAD":
                detector.push_frame(frame)
            elif way == "button" and position <= last_sound < position + _FRAME:
                stream.flush()
            if final.done():
                break
        came = await final
        listening.cancel()
        await detector.aclose()
    return came - (started + last_sound / _RATE)


async def _flush_at_the_end(detector: vad.VADStream, stream: tiro.SpeechStream) -> None:
    async for event in detector:
        if event.type is vad.VADEventType.END_OF_SPEECH:
            stream.flush()


async def _first_final(stream: tiro.SpeechStream) -> float:
    async for event in stream:
        if event.type is SpeechEventType.FINAL_TRANSCRIPT and event.alternatives[0].text:
            return time.perf_counter()
    raise RuntimeError("the stream ended without a final")


async def measure(calls: int, endpointers: Sequence[float]) -> Found:
    """Return the seconds of each call, by endpointer and way."""
    found: Found = {}
    for endpointer in endpointers:
        async with TiroServer(endpoint_silence=endpointer) as server:
            async with tiro.STT(base_url=server.base_url, api_key="test") as stt:
                for way in _WAYS:
                    seconds = found.setdefault((endpointer, way), [])
                    while len(seconds) < calls:
                        delays = (n * _FRAME / _RATE / _TOGETHER for n in range(_TOGETHER))
                        seconds += await asyncio.gather(*(_call(stt, way, d) for d in delays))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flush_latency")
    parser.add_argument("--calls", type=int, default=40, help="how many of each kind")
    parser.add_argument(
        "--endpointer", type=float, nargs="+", default=[0.5, 1.0], help="its silence, s"
    )
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.calls, arguments.endpointer))
    table = Table("endpointer, s", "who asks for the final", "p50, ms", "p95, ms", "calls")
    for (endpointer, way), seconds in found.items():
        p50, p95 = np.percentile(seconds, [50, 95]) * 1000
        table.add_row(f"{endpointer:g}", way, f"{p50:.0f}", f"{p95:.0f}", str(len(seconds)))
    Console().print(table)


if __name__ == "__main__":
    main()
