"""Many streams at the pace of real calls: what they cost, and how late audio and events are."""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import time
from bisect import bisect_left
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

from .services import NOTED
from .targets import Stream, Tally, frame, open_stream, wire_rate_of
from .world import World, quantile, syllables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

# ms; LiveKit hands frames of this length to a plugin.
FRAME_MS = 50
# Ticks into which the streams' frames are spread, so that they do not come all at once.
TICKS = 20
# Points of each frame at which the age of the audio is read.
POINTS = 10
# s at the end of a run whose audio may still be under way.
TAIL = 0.3
# s of quiet audio that may be held back as well.
HELD_BACK = 0.4
# What the services are told of the traffic: somebody speaks all the time, with a final every 3 s;
# turns of 2 to 6 s with digital silence between them, 40 % speech; finals every 0.7 s.
STEADY, CALL, DENSE = "steady", "call", "dense"
TRAFFIC: dict[str, dict[str, Any]] = {
    STEADY: {},
    CALL: {"by_voice": True},
    DENSE: {"final_every": 0.7},
}
SPEECH_SHARE = 0.4
SHORTEST_TURN, LONGEST_TURN = 2.0, 6.0


@dataclass(frozen=True)
class Load:
    """One condition."""

    rate: int = 24000
    streams: int = 100
    seconds: float = 5.0
    wire_rate: int | None = None
    tls: bool = False
    warm_up: float = 1.0
    traffic: str = STEADY


class Turns:
    """Whether a caller speaks: turns and pauses, each caller at another place in them."""

    def __init__(self, index: int) -> None:
        self._chance = random.Random(index)
        self._is_speaking = self._chance.random() < SPEECH_SHARE
        self._left = self._chance.random() * self._length()

    def _length(self) -> float:
        turn = self._chance.uniform(SHORTEST_TURN, LONGEST_TURN)
        return turn if self._is_speaking else turn * (1 - SPEECH_SHARE) / SPEECH_SHARE

    def next_frame(self) -> bool:
        """Tell whether the caller speaks in the next frame."""
        if self._left <= 0:
            self._is_speaking = not self._is_speaking
            self._left = self._length()
        self._left -= FRAME_MS / 1000
        return self._is_speaking


@dataclass
class Group:
    """Streams that are fed and listened to together."""

    streams: Sequence[Stream]
    tallies: Sequence[Tally]
    voices: Sequence[Iterator[Any]]
    """What each caller says, frame by frame."""
    pushed: int = 0
    """Frames so far, over all streams."""
    pushes: list[list[float]] = field(default_factory=list)
    """When each frame was pushed, of the first streams."""
    quiet: Any = None
    """A frame of silence."""
    turns: Sequence[Turns] = ()
    """Who speaks when, unless everybody does all the time."""

    async def feed(self, seconds: float, pace: int = 1) -> None:
        """Push frames for some seconds, `pace` times as fast as real, spread over the streams."""
        ticks = min(TICKS, len(self.streams))
        groups = [list(enumerate(self.streams))[n::ticks] for n in range(ticks)]
        step = FRAME_MS / 1000 / ticks / pace
        began = time.monotonic()
        for tick in range(round(seconds / step)):
            for index, stream in groups[tick % ticks]:
                if index < NOTED:
                    self.pushes[index].append(time.monotonic())
                await stream.push(self.next_frame(index))
            self.pushed += len(groups[tick % ticks])
            await asyncio.sleep(max(0.0, began + (tick + 1) * step - time.monotonic()))

    def next_frame(self, index: int = 0) -> Any:
        """Return what is pushed to a stream next."""
        if self.turns and not self.turns[index].next_frame():
            return self.quiet
        return next(self.voices[index])


@asynccontextmanager
async def group(
    world: World, target: str, run: str, load: Load, first: int = 0
) -> AsyncIterator[Group]:
    """Open the streams of a run, and close them."""
    async with world.http(tls=load.tls) as session:
        base = world.url(run, tls=load.tls)
        streams = [
            await open_stream(target, session, f"{base}/{n}", load.rate, load.wire_rate)
            for n in range(first, first + load.streams)
        ]
        tallies = [Tally() for _ in streams]
        listening = [
            asyncio.create_task(stream.listen(tally))
            for stream, tally in zip(streams, tallies, strict=True)
        ]
        samples = load.rate * FRAME_MS // 1000
        said = [frame(target, pcm, load.rate) for pcm in syllables(samples)]
        opened = Group(streams, tallies, [cycle(said) for _ in streams], 0, [[] for _ in streams])
        if load.traffic == CALL:
            opened.quiet = frame(target, bytes(2 * samples), load.rate)
            opened.turns = [Turns(index) for index in range(len(streams))]
        try:
            yield opened
        finally:
            await asyncio.gather(*(stream.aclose() for stream in streams))
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)


async def measure(world: World, target: str, load: Load) -> dict[str, float]:
    """Run one condition and return its figures.

    Raises:
        RuntimeError: The target did not send all audio, or missed phrases.
    """
    rate = wire_rate_of(target, load.rate, load.wire_rate)
    run = await world.plan(rate=rate, **TRAFFIC[load.traffic])
    await _warm_up(world, target, load, rate)
    gc.collect()
    before = resident_kb()
    async with group(world, target, run, load) as streams:
        await streams.feed(load.warm_up)
        pushed, cpu, began = streams.pushed, used_cpu(), time.monotonic()
        for tally in streams.tallies:
            tally.latencies.clear()
        await streams.feed(load.seconds)
        used = [now - then for now, then in zip(used_cpu(), cpu, strict=True)]
        wall = time.monotonic() - began
        # Before the collection: it takes up to 0.1 s, and what comes meanwhile waits for it.
        latencies = _latencies(streams.tallies)
        gc.collect()
        memory = (resident_kb() - before) / load.streams
        await asyncio.sleep(TAIL)
    hours = (streams.pushed - pushed) * FRAME_MS / 1000 / 3600
    peers = await world.report(run)
    if target != "lk-null":
        _check(load, streams, peers, rate)
    return {
        "cpu_s_per_hour": sum(used) / hours,
        "system_s_per_hour": used[1] / hours,
        "core_share": sum(used) / wall,
        "memory_kb": memory,
        **latencies,
        # In calls, a target that holds silence back makes the silence old, but no speech.
        **({} if load.traffic == CALL else _ages(streams.pushes, peers, rate, load)),
    }


async def _warm_up(world: World, target: str, load: Load, rate: int) -> None:
    """Have everything loaded and allocated that is loaded or allocated only once."""
    run = await world.plan(rate=rate)
    two = Load(load.rate, min(2, load.streams), 0.1, load.wire_rate, load.tls)
    async with group(world, target, run, two) as streams:
        await streams.feed(0.2)


def used_cpu() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def resident_kb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


def _check(load: Load, streams: Group, peers: list[dict[str, Any]], rate: int) -> None:
    """Raise RuntimeError unless all audio came, and all phrases that were due."""
    seconds = load.seconds + load.warm_up
    due = 0.8 * (seconds / 0.35 - 2) * load.streams
    tail = TAIL
    if load.traffic == CALL:
        due, tail = due * SPEECH_SHARE / 2, TAIL + HELD_BACK
    heard = sum(tally.phrases for tally in streams.tallies)
    missed = sum(tally.missed for tally in streams.tallies)
    if missed or heard < due:
        raise RuntimeError(f"{heard} phrases heard of at least {due:.0f}, {missed} missed")
    got = [peer["pcm_bytes"] / 2 / rate for peer in peers]
    if len(got) != load.streams or min(got) < seconds - tail:
        raise RuntimeError(f"{len(got)} streams sent {min(got):.2f} s of {seconds:.2f} s or more")


def _latencies(tallies: Sequence[Tally]) -> dict[str, float]:
    """Return quantiles of the time from the service's send to the event, ms."""
    all_ns = sorted(ns for tally in tallies for ns in tally.latencies)
    if not all_ns:
        return {}
    return {f"event_p{p}_ms": quantile(all_ns, p / 100) / 1e6 for p in (50, 95, 99)}


def _ages(
    pushes: Sequence[Sequence[float]], peers: list[dict[str, Any]], rate: int, load: Load
) -> dict[str, float]:
    """Return how old audio is when it arrives, ms, over points spread evenly over the audio."""
    ages: list[float] = []
    first, last = round(load.warm_up * 20), round((load.warm_up + load.seconds - TAIL) * 20)
    for peer in peers:
        arrivals = peer["arrivals"]
        ends = [size / 2 / rate for _, size in arrivals]
        if not ends:
            continue
        for number in range(first, last):
            pushed = pushes[peer["index"]][number]
            for point in range(POINTS):
                position = (number + (point + 0.5) / POINTS) * FRAME_MS / 1000
                ages.append(arrivals[bisect_left(ends, position)][0] - pushed)
    if not ages:
        return {}
    ages.sort()
    return {
        "age_mean_ms": sum(ages) / len(ages) * 1000,
        "age_p95_ms": quantile(ages, 0.95) * 1000,
    }
