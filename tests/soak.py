"""Many calls for many minutes, a fault every few seconds: `python -m tests.soak`.

The server is another process, so that memory, tasks and open files are those of the plugin. Time
is real. A stream that fails for good is replaced by a new one, as an `AgentSession` does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import aiohttp

from livekit.agents import APIError
from livekit.plugins import tiro
from livekit.plugins.tiro.backlog import KEEP_AT_MOST
from livekit.plugins.tiro.testing import ConnectionRecord, Hooks, TiroServer
from livekit.plugins.tiro.testing.faults import Fault
from livekit.plugins.tiro.watch import UNRESPONSIVE_AFTER

from .support.draws import CLOSED, KINDS, LOUD
from .support.harness import FINAL, frames, read_wav

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from livekit import rtc

KEY = "test"
# Faults that need the end of the audio, or a muted microphone, never strike here.
_NEVER = ("ignores the end", "talks on", "says the end, is gone", "idle limit")
_KINDS = [kind for kind in KINDS if kind not in _NEVER]
# Faults that the client has to find out last some 15 s, so they are drawn less often.
_WEIGHTS = [8 if kind in LOUD else 2 if kind in CLOSED else 1 for kind in _KINDS]
# s after which a connection has its fault.
_SOONEST, _LATEST = 1.0, 6.0
# With so many connections, this many silent services in a row are drawn now and then.
_SILENT_IN_A_ROW = 3
# s without a final, after which a stream counts as deaf: it takes longer to notice each silent
# service in a row than the one before.
DEAF = sum(
    _LATEST + min(UNRESPONSIVE_AFTER * 2**before, KEEP_AT_MOST)
    for before in range(_SILENT_IN_A_ROW)
)
# s between two looks at what the process uses.
INTERVAL = 10.0


class RandomFaults(Hooks):
    """A fault for each connection."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)

    def for_connection(self, connection: ConnectionRecord) -> Hooks:
        (kind,) = self._rng.choices(_KINDS, _WEIGHTS)
        hooks = KINDS[kind](self._rng)
        if isinstance(hooks, Fault):
            hooks.when = self._rng.uniform(_SOONEST, _LATEST)
        return hooks


def serve(pipe: Connection, seed: int) -> None:
    """Run the server until the pipe says so; tell how many connections had a fault."""
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(pipe, seed))


async def _serve(pipe: Connection, seed: int) -> None:
    async with TiroServer(api_key=KEY, hooks=RandomFaults(seed), recorded_bytes=0) as server:
        pipe.send(server.base_url)
        await asyncio.to_thread(pipe.recv)
        pipe.send(server.connection_count)


@dataclass
class SoakCall:
    """One caller, who talks all the time."""

    finals: int = 0
    failures: int = 0
    pushed: float = 0.0
    heard_at: float = field(default_factory=time.monotonic)
    deaf: float = 0.0
    """The longest time between two finals, seconds."""

    async def run(self, stt: tiro.STT, audio: list[rtc.AudioFrame], start: int) -> None:
        position = start
        while True:
            stream = stt.stream()
            listening = asyncio.create_task(self._listen(stream))
            due = time.monotonic()
            try:
                while not listening.done():
                    frame = audio[position % len(audio)]
                    try:
                        stream.push_frame(frame)
                    except RuntimeError:
                        # The stream has failed, and the listener is about to get the error.
                        await listening
                        break
                    position += 1
                    self.pushed += frame.duration
                    due += frame.duration
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.failures += 1
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                await stream.aclose()

    async def _listen(self, stream: tiro.SpeechStream) -> None:
        try:
            async for event in stream:
                if event.type is FINAL:
                    now = time.monotonic()
                    self.finals += 1
                    self.deaf = max(self.deaf, now - self.heard_at)
                    self.heard_at = now
        except APIError:
            return


@dataclass(frozen=True)
class Usage:
    """What the process uses."""

    seconds: float
    memory: float
    """MB resident."""
    tasks: int
    files: int
    cpu: float
    """Seconds so far."""

    def __str__(self) -> str:
        return (
            f"{self.seconds:6.0f} s {self.memory:8.1f} MB {self.tasks:6} tasks {self.files:5} files"
        )


def look(started: float) -> Usage:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(
        time.monotonic() - started,
        pages * resource.getpagesize() / 1e6,
        len(asyncio.all_tasks()),
        len(os.listdir("/proc/self/fd")),
        used.ru_utime + used.ru_stime,
    )


async def soak(url: str, streams: int, seconds: float) -> tuple[list[SoakCall], list[Usage]]:
    """Hold so many calls for so long; return them, and what the process used meanwhile."""
    speech = read_wav("is.wav")
    audio = list(frames(speech, ms=50))
    calls = [SoakCall() for _ in range(streams)]
    usage: list[Usage] = []
    async with aiohttp.ClientSession() as session:
        stt = tiro.STT(base_url=url, api_key=KEY, http_session=session)
        started = time.monotonic()
        running = [
            asyncio.create_task(call.run(stt, audio, number * 7))
            for number, call in enumerate(calls)
        ]
        while time.monotonic() - started < seconds:
            await asyncio.sleep(min(INTERVAL, seconds))
            usage.append(look(started))
            print(usage[-1], flush=True)
            for task in running:
                if task.done():
                    task.result()
        for call in calls:
            call.deaf = max(call.deaf, time.monotonic() - call.heard_at)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await stt.aclose()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        raise RuntimeError(f"{len(left)} tasks are left: {sorted(map(repr, left))[:3]}")
    return calls, usage


def growth(usage: list[Usage]) -> str:
    """Compare the last third of the run with the one before it."""
    third = len(usage) // 3
    if not third:
        return "too short a run to tell what grows"
    before, after = usage[third : 2 * third], usage[2 * third :]
    words = []
    for name in ("memory", "tasks", "files"):
        first = sum(getattr(each, name) for each in before) / len(before)
        last = sum(getattr(each, name) for each in after) / len(after)
        words.append(f"{name} {last / first - 1:+.1%}")
    return "last third of the run by the one before: " + ", ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there, arguments.seed), daemon=True)
    server.start()
    calls, usage = asyncio.run(soak(here.recv(), arguments.streams, arguments.minutes * 60))
    here.send("end")
    connections = here.recv()
    server.join()
    hours = sum(call.pushed for call in calls) / 3600
    print(
        f"{len(calls)} streams, {hours:.1f} hours of calls, "
        f"{connections} connections, each with a fault, "
        f"{sum(call.finals for call in calls)} finals, "
        f"{sum(call.failures for call in calls)} streams that failed for good\n"
        f"longest time without a final: {max(call.deaf for call in calls):.1f} s\n"
        f"CPU, of callers too: {usage[-1].cpu / hours:.1f} s an hour of audio\n{growth(usage)}"
    )
    sys.exit(max(call.deaf for call in calls) > DEAF)


if __name__ == "__main__":
    main()
