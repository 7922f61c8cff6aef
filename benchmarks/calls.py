"""Single moments of a call: the first audio, the last word, and a connection that breaks."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .load import FRAME_MS, Load, group
from .targets import Stream, frame, open_stream
from .world import FIRST_NUMBER, World, median, numbered, syllables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit.agents.stt import RecognizeStream

FRAME = FRAME_MS / 1000
# Frames pushed to a stream of which only the first audio is of interest.
FIRST_FRAMES = 6
# s of audio at which the services of the reconnect test say a final, and break off.
FINAL_AT, BREAK_AT = 0.5, 2.5
# s of audio pushed in that test, and how much of its end may still be under way.
RECONNECT_SECONDS, UNDER_WAY = 5.0, 0.5
# Hz at which no plugin resamples, so that numbered audio arrives as it was pushed.
NUMBERED_RATE = 16000
# Frames of speech before the silence in which the final is waited for.
SPOKEN_FRAMES = 24


async def first_audio(
    world: World, target: str, *, streams: int = 20, rate: int = 24000
) -> dict[str, float]:
    """Return the ms from `stream()` to the first audio at the service, with audio at hand."""
    run = await world.plan(rate=16000)
    async with world.http() as session:

        async def call(index: int) -> float:
            await asyncio.sleep(0.03 * index)
            started = time.monotonic()
            url = f"{world.url(run)}/{index}"
            stream = await open_stream(target, session, url, rate, None)
            for pcm in syllables(rate * FRAME_MS // 1000)[:FIRST_FRAMES]:
                await stream.push(frame(target, pcm, rate))
                await asyncio.sleep(FRAME)
            await stream.aclose()
            return started

        started = await asyncio.gather(*(call(index) for index in range(streams)))
    peers = await world.report(run)
    delays = [peer["first_audio_at"] - started[peer["index"]] for peer in peers]
    return {"first_audio_ms": median(delays) * 1000}


async def reconnect(world: World, target: str, *, streams: int = 10) -> dict[str, float]:
    """Break the connection 2 s after the last final. Return what that does, in ms.

    The audio is numbered, 10 ms by 10 ms. What no final covers and the second connection does not
    get is lost: no recogniser can make words of it.
    """
    run = await world.plan(rate=NUMBERED_RATE, by="audio", phase=3.0 - FINAL_AT, drop_at=BREAK_AT)
    load = Load(rate=NUMBERED_RATE, streams=streams)
    async with group(world, target, run, load) as calls:
        await _feed_numbered(target, calls.streams)
    first: dict[int, dict[str, Any]] = {}
    second: dict[int, dict[str, Any]] = {}
    for peer in await world.report(run):
        (second if peer["index"] in first else first)[peer["index"]] = peer
    deaf = [second[n]["first_audio_at"] - first[n]["dropped_at"] for n in second]
    heard = {n: {b - FIRST_NUMBER for b in second[n]["blocks"]} for n in second}
    said, broken = round(FINAL_AT * 100), round(BREAK_AT * 100)
    end = round((RECONNECT_SECONDS - UNDER_WAY) * 100)
    return {
        "came_back": len(second) / len(first),
        "deaf_ms": median(deaf) * 1000 if deaf else -1.0,
        "lost_before_ms": median(_lost(heard.get(n, set()), said, broken) for n in first),
        "lost_after_ms": median(_lost(heard.get(n, set()), broken, end) for n in first),
    }


def _lost(heard: set[int], start: int, end: int) -> float:
    """Return the ms that were not heard, from block `start` to block `end`."""
    return 10.0 * len(set(range(start, end)) - heard)


async def _feed_numbered(target: str, streams: Sequence[Stream]) -> None:
    """Push numbered audio in real time, to all streams that still take it."""
    pcm = numbered(round(RECONNECT_SECONDS * 100))
    size = NUMBERED_RATE * FRAME_MS // 1000 * 2
    began = time.monotonic()
    for number in range(len(pcm) // size):
        pushed = frame(target, pcm[number * size : (number + 1) * size], NUMBERED_RATE)
        for stream in streams:
            # The stream of a plugin that does not come back is closed.
            with suppress(RuntimeError):
                await stream.push(pushed)
        await asyncio.sleep(max(0.0, began + (number + 1) * FRAME - time.monotonic()))


async def last_word(world: World, target: str, *, streams: int = 10) -> dict[str, float]:
    """Return the ms from the last voiced sample to the final, against the local server."""
    return {
        "final_ms": median(await _finals(world, streams, flush=False)) * 1000,
        "final_after_flush_ms": median(await _finals(world, streams, flush=True)) * 1000,
    }


async def _finals(world: World, streams: int, *, flush: bool) -> list[float]:
    from livekit.agents.stt import SpeechEventType
    from livekit.plugins import tiro

    async def call(index: int, stt: tiro.STT) -> float:
        await asyncio.sleep(index * 0.037)
        stream = stt.stream()
        spoken = asyncio.get_running_loop().create_future()
        talking = asyncio.create_task(_talk(stream, spoken, flush))
        try:
            async for event in stream:
                if event.type is SpeechEventType.FINAL_TRANSCRIPT:
                    return time.monotonic() - float(await spoken)
            raise RuntimeError("no final came")
        finally:
            talking.cancel()
            await stream.aclose()

    async with world.http() as session:
        stt = tiro.STT(api_key="bench", base_url=world.tiro_url, http_session=session)
        return await asyncio.gather(*(call(index, stt) for index in range(streams)))


async def _talk(stream: RecognizeStream, spoken: asyncio.Future[float], flush: bool) -> None:
    """Speak, note when the last voiced sample is pushed, and go on in silence."""
    samples = 24000 * FRAME_MS // 1000
    # Without the soft frame, so that the last frame of speech is voiced.
    said = [frame("tiro", pcm, 24000) for pcm in syllables(samples)[:-1]]
    silence = frame("tiro", bytes(2 * samples), 24000)
    for number in range(10 * SPOKEN_FRAMES):
        stream.push_frame(said[number % len(said)] if number < SPOKEN_FRAMES else silence)
        if number == SPOKEN_FRAMES - 1:
            spoken.set_result(time.monotonic())
            if flush:
                stream.flush()
        await asyncio.sleep(FRAME)
