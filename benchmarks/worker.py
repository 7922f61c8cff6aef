"""The process that is measured by `benchmarks.processes`: a worker, with one plugin.

`python -m benchmarks.worker TARGET PORTS` reads commands from standard input, JSON a line, and
answers each with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from livekit.agents import AgentServer
from livekit.protocol import agent

from . import job
from .targets import make_stt, wire_rate_of
from .world import World, median

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# s from the last call's start to the measurement.
SETTLE = 2.0
# s for a process to be ready; the machine may be busy.
PATIENCE = 60.0


class Worker:
    """Takes calls, each in a process of its own, and measures these from outside."""

    def __init__(self, server: AgentServer, world: World, target: str) -> None:
        self._server = server
        self._world = world
        self._target = target

    async def measure(
        self, calls: int, seconds: float, stagger: float = 0.0, delay: float = 0.0
    ) -> dict[str, float]:
        """Have a number of calls at once. Return what each of them costs.

        Args:
            calls: How many.
            seconds: How long they are measured, when all of them are under way.
            stagger: s from one call to the next.
            delay: s to the first.

        Raises:
            RuntimeError: A call ended, or did not hear what its caller said.
        """
        run = await self._world.plan(rate=wire_rate_of(self._target, job.RATE, None), by_voice=True)
        with tempfile.TemporaryDirectory() as folder:
            reports = [Path(folder) / str(index) for index in range(calls)]
            await asyncio.sleep(delay)
            started = await self._start(run, reports, stagger)
            await asyncio.sleep(SETTLE)
            pids = self._pids()
            before, began = [_used_cpu(pid) for pid in pids], time.monotonic()
            await asyncio.sleep(seconds)
            wall = time.monotonic() - began
            cpu = sum(_used_cpu(pid) - used for pid, used in zip(pids, before, strict=True))
            # Measured last: counting its pages costs a process time.
            memory = [psutil.Process(pid).memory_full_info().uss for pid in pids]
            ended = calls - len(self._pids())
            await self._end()
            finals = [len(json.loads(report.read_text())) for report in reports]
        if ended or (self._target != "lk-null" and min(finals) < seconds // job.CYCLE * 2):
            raise RuntimeError(f"{self._target}: {ended} of {calls} ended, finals: {finals}")
        return {
            "cpu_share": cpu / wall / calls,
            "uss_mb": sum(memory) / calls / 2**20,
            **await self._first_audio(run, started),
        }

    async def _start(self, run: str, reports: list[Path], stagger: float) -> list[float]:
        """Let the calls come, one by one. Return when they came."""
        began, started = time.monotonic(), []
        for index, report in enumerate(reports):
            await asyncio.sleep(max(0.0, began + index * stagger - time.monotonic()))
            order = job.Order(f"{self._world.url(run)}/{index}", index, str(report))
            started.append(time.monotonic())
            await self._server.simulate_job(order.room, fake_job=True)
        return started

    def _pids(self) -> list[int]:
        processes = self._server._proc_pool.processes
        return [process.pid for process in processes if process.running_job]  # type: ignore[attr-defined]

    async def _end(self) -> None:
        """Do as LiveKit does when a room is closed."""
        jobs = [info.job.id for info in self._server.active_jobs]
        endings = [agent.JobTermination(job_id=job_id) for job_id in jobs]
        await asyncio.gather(*map(self._server._handle_termination, endings))

    async def _first_audio(self, run: str, started: list[float]) -> dict[str, float]:
        """Return the ms from the start of a job to its first audio at the service."""
        if self._target == "lk-null":
            return {}
        peers = await self._world.report(run)
        delays = [peer["first_audio_at"] - started[peer["index"]] for peer in peers]
        return {"first_audio_ms": median(delays) * 1000}


def _used_cpu(pid: int) -> float:
    """Return the CPU seconds of a process, to the nanosecond."""
    # The clock id that `clock_getcpuclockid` returns for a process on Linux.
    return time.clock_gettime((~pid << 3) | 2)


@asynccontextmanager
async def agent_server() -> AsyncIterator[AgentServer]:
    """Run a worker that no LiveKit server knows of."""
    server = AgentServer(
        host="127.0.0.1",
        port=0,
        # The load of the rest of the machine must not decide whether a process is warm.
        load_fnc=lambda: 0.0,
        load_threshold=math.inf,
        initialize_process_timeout=PATIENCE,
        setup_fnc=job.set_up,
        preload_modules=[job.__name__],
    )
    server.rtc_session(job.entrypoint)
    started = asyncio.Event()
    server.once("worker_started", lambda: started.set())
    running = asyncio.create_task(server.run(unregistered=True))
    await started.wait()
    try:
        yield server
    finally:
        await server.aclose()
        await running


async def serve(target: str, ports: dict[str, str]) -> None:
    """Obey until standard input ends."""
    async with agent_server() as server:
        print(json.dumps({}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            world = World(ports, f"{target}-{command['id']}")
            answer = await Worker(server, world, target).measure(**command["arguments"])
            print(json.dumps(answer), flush=True)


def main() -> None:
    target, ports = sys.argv[1], json.loads(sys.argv[2])
    os.environ[job.TARGET] = target
    # Only modules that are imported here are loaded in the processes from the start.
    make_stt(target, None, "http://127.0.0.1:9", None)
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(target, ports))


if __name__ == "__main__":
    main()
