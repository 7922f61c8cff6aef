"""How cost grows with the length of a call, with audio that is not final, and with a final.

The streams of other curves are those of `load`. Here audio is pushed faster than real time, which
saves wake-ups: compare these figures with each other, not with those at real pace.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

from .load import FRAME_MS, Group, Load, group, resident_kb
from .services import FINAL_EVERY, INTERIM_EVERY

if TYPE_CHECKING:
    from collections.abc import Callable

    from .world import World

FRAMES_PER_SECOND = 1000 // FRAME_MS
# s to wait for what is due; a stream that takes longer is broken.
PATIENCE = 20.0
# Times real pace at which audio without finals is fed: the pace the plugin trusts a service with.
PACE = 4
# Finals said in a row, and s of audio that they share: less than a service may take without a word.
FINALS, FINALS_AUDIO = 200, 10.0


async def call_length(
    world: World, target: str, *, minutes: list[int], rate: int = 24000
) -> dict[str, list[float]]:
    """Push one long call, 3 s at a time, each after the final of the 3 s before.

    Return the CPU s per audio hour of each stretch of the call, and the memory at its end.
    """
    run = await world.plan(rate=rate, by="audio")
    cpu: list[float] = []
    memory: list[float] = []
    async with group(world, target, run, Load(rate=rate, streams=1)) as call:
        await _push_utterances(call, 10)
        gc.collect()
        before, done = resident_kb(), 0
        for minute in minutes:
            used = time.process_time()
            utterances = round(minute * 60 / FINAL_EVERY) - done
            await _push_utterances(call, utterances)
            used = time.process_time() - used
            cpu.append(used * 3600 / (utterances * FINAL_EVERY))
            done += utterances
            gc.collect()
            memory.append(resident_kb() - before)
    return {"minutes": [float(m) for m in minutes], "cpu_s_per_hour": cpu, "memory_kb": memory}


async def _push_utterances(call: Group, utterances: int) -> None:
    for _ in range(utterances):
        due = call.tallies[0].finals + 1
        for _ in range(round(FINAL_EVERY * FRAMES_PER_SECOND)):
            await call.streams[0].push(call.next_frame())
        await _until_finals(call, due)


async def _until_finals(call: Group, due: int) -> None:
    await _until(lambda: call.tallies[0].finals >= due)


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: It does not hold after a long time.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("not all phrases came")
        await asyncio.sleep(0.0005)


async def unfinished_audio(
    world: World, target: str, *, seconds: list[int], streams: int = 20, rate: int = 24000
) -> dict[str, list[float]]:
    """Push audio of which nothing becomes final. Return the CPU s per audio hour as it grows."""
    run = await world.plan(rate=rate, by="audio", finals=False)
    cpu: list[float] = []
    memory: list[float] = []
    async with group(world, target, run, Load(rate=rate, streams=streams)) as calls:
        await calls.feed(1.0 / PACE, pace=PACE)
        before, done = resident_kb(), 0
        for end in seconds:
            used = time.process_time()
            await calls.feed((end - done) / PACE, pace=PACE)
            used = time.process_time() - used
            cpu.append(used * 3600 / ((end - done) * streams))
            memory.append((resident_kb() - before) / streams)
            done = end
        due = 0.9 * seconds[-1] / INTERIM_EVERY * streams
        await _until(lambda: sum(tally.phrases for tally in calls.tallies) >= due)
    return {"seconds": [float(s) for s in seconds], "cpu_s_per_hour": cpu, "memory_kb": memory}


async def words_in_final(
    world: World, target: str, *, words: list[int], rate: int = 8000
) -> dict[str, list[float]]:
    """Have finals of ever more words said. Return the CPU us that each final costs."""
    cost = [await _cost_of_final(world, target, count, rate) for count in words]
    return {"words": [float(count) for count in words], "us_per_final": cost}


async def _cost_of_final(world: World, target: str, words: int, rate: int) -> float:
    run = await world.plan(
        rate=rate, burst_at=FINALS_AUDIO, burst=FINALS, words=words, finals=False
    )
    async with group(world, target, run, Load(rate=rate, streams=1)) as call:
        await call.feed(FINALS_AUDIO / PACE, pace=PACE)
        await asyncio.sleep(0.3)
        used = time.process_time()
        await call.streams[0].push(call.next_frame())
        await _until_finals(call, FINALS)
        return (time.process_time() - used) / FINALS * 1e6
