"""Two targets in turns of 0.4 s: the ratio of their costs, however fast the machine just is."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

from .load import FRAME_MS, STEADY, TRAFFIC, Load, group, used_cpu
from .targets import wire_rate_of

if TYPE_CHECKING:
    from .world import World

# s; a shared machine keeps its pace for longer, and no plugin takes this for a pause.
TURN = 0.4
# Share of a turn in which audio is fed, so that the work it makes is done before the next turn.
SHARE = 0.95


async def by_turns(
    world: World,
    target: str,
    *,
    turn: int,
    turns: int,
    rate: int,
    streams: int,
    wire_rate: int | None = None,
    traffic: str = STEADY,
) -> dict[str, float]:
    """Feed streams in every second turn. Return what they cost in these turns.

    Args:
        world: The way to the services.
        target: What is measured.
        turn: Whose turn it is: 0 or 1, by the clock that both processes share.
        turns: How often it is measured, after one turn to warm up.
        rate: Hz of the frames.
        streams: How many there are.
        wire_rate: Hz that the target is set to; None leaves it as shipped.
        traffic: What the callers and the services say.
    """
    run = await world.plan(rate=wire_rate_of(target, rate, wire_rate), **TRAFFIC[traffic])
    load = Load(rate, streams, wire_rate=wire_rate, traffic=traffic)
    cpu = seconds = 0.0
    async with group(world, target, run, load) as fed:
        gc.collect()
        for number in range(turns + 1):
            await asyncio.sleep((turn - time.monotonic() / TURN) % 2 * TURN)
            began, pushed = sum(used_cpu()), fed.pushed
            await fed.feed(TURN * SHARE)
            if number:
                cpu += sum(used_cpu()) - began
                seconds += (fed.pushed - pushed) * FRAME_MS / 1000
    return {"cpu_s_per_hour": cpu / seconds * 3600}
